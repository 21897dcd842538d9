"""The fidelity card and the known answers of a model that was just quantised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from akidb_mlx.fidelity.answers import write_answers
from akidb_mlx.fidelity.card import FidelityCard, RerankerCard, write_card
from akidb_mlx.fidelity.making import make_answers, with_reached
from akidb_mlx.fidelity.measuring import make_card, measure
from akidb_mlx.fidelity.scores import MeasuredScores, make_reranker_card, measure_scores
from akidb_mlx.fidelity.texts import TextSet, default_texts
from akidb_mlx.quantization.provenance import read_provenance
from akidb_mlx.reranking import Reranker
from akidb_mlx.service import EmbeddingService
from akidb_mlx.settings import Settings, load_settings

if TYPE_CHECKING:
    from akidb_mlx.checkpoint.checkpoint import Checkpoint


# Takes what is done, how much of it, and of how much.
_Progress = Callable[[str, int, int | None], None]


def write_fidelity(
    original: Checkpoint, folder: Path, name: str, progress: _Progress
) -> FidelityCard | RerankerCard | None:
    """Compare a quantised model with its original, both in float32 on the CPU, and write what was found beside it.

    Args:
        original: the original.
        folder: the quantised model.
        name: the name that its card gives it.
        progress: told which of the models is being computed.

    Returns:
        The card; None for a sparse or multi-vector model.
    """
    if original.sparse is not None or original.multi_vector is not None:
        return None
    label = _find_label(original, folder)
    card: FidelityCard | RerankerCard
    if original.scoring is None:
        card = _compare_vectors(original, folder, label, progress)
    else:
        card = _compare_scores(original.directory, folder, progress)
    card = card.model_copy(update={"model": name, "original": label})
    write_card(card, folder)
    return card


def _find_label(original: Checkpoint, folder: Path) -> str:
    """Return the original's name: a path of this machine says nothing elsewhere."""
    origin = read_provenance(folder)
    return (origin and origin.base_model) or original.directory.name


def _compare_scores(original: Path, folder: Path, progress: _Progress) -> RerankerCard:
    """Return the card of a reranker."""
    texts, settings = default_texts(), load_settings().exact()
    progress("comparing", 0, 2)
    expected = _score(original, settings, texts)
    progress("comparing", 1, 2)
    found = _score(folder, settings, texts)
    progress("comparing", 2, 2)
    return make_reranker_card(found, expected, texts)


def _score(directory: Path, settings: Settings, texts: TextSet) -> MeasuredScores:
    with Reranker(str(directory), device="cpu", settings=settings) as one:
        return measure_scores(one, texts)


def _compare_vectors(original: Checkpoint, folder: Path, label: str, progress: _Progress) -> FidelityCard:
    """Write the known answers of an embedding model, and return its card."""
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
    write_answers(answers.model_copy(update={"model": label}), folder)
    return make_card(found, expected, texts)
