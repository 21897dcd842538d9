"""The fidelity card and the known answers of a model that was just quantised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from akidb_mlx.fidelity.answers import write_answers
from akidb_mlx.fidelity.card import FidelityCard, write_card
from akidb_mlx.fidelity.making import make_answers, with_reached
from akidb_mlx.fidelity.measuring import make_card, measure
from akidb_mlx.fidelity.texts import default_texts
from akidb_mlx.quantization.provenance import read_provenance
from akidb_mlx.service import EmbeddingService
from akidb_mlx.settings import load_settings

if TYPE_CHECKING:
    from akidb_mlx.checkpoint.checkpoint import Checkpoint


def write_fidelity(
    original: Checkpoint, folder: Path, name: str, progress: Callable[[str, int, int | None], None]
) -> FidelityCard | None:
    """Compare a quantised model with its original, both in float32 on the CPU, and write what was found beside it.

    Args:
        original: the original.
        folder: the quantised model.
        name: the name that its card gives it.
        progress: told which of the models is being computed.

    Returns:
        The card; None for a model that computes no vectors of one size.
    """
    if original.scoring is not None or original.sparse is not None or original.multi_vector is not None:
        return None
    texts = default_texts()
    # A model with routes may have none for texts that are neither.
    input_type = None if None in original.routes else next(role for role in original.routes if role)
    settings = load_settings().exact()
    progress("comparing", 0, 2)
    with EmbeddingService(str(original.directory), device="cpu", backend="mlx", settings=settings) as one:
        answers, expected = make_answers(one), measure(one, texts, input_type=input_type)
    progress("comparing", 1, 2)
    with EmbeddingService(str(folder), device="cpu", backend="mlx", settings=settings) as one:
        answers, found = with_reached(answers, one, least_cosine=0.0), measure(one, texts, input_type=input_type)
    progress("comparing", 2, 2)
    origin = read_provenance(folder)
    label = (origin and origin.base_model) or original.directory.name  # a path of this machine says nothing elsewhere
    card = make_card(found, expected, texts).model_copy(update={"model": name, "original": label})
    write_answers(answers.model_copy(update={"model": label}), folder)
    write_card(card, folder)
    return card
