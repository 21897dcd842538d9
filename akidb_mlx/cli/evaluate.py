"""`akidb-mlx evaluate`, which measures how close a model's vectors or scores are to those of its original."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from akidb_mlx.catalog import CATALOG, RERANKERS, find_record
from akidb_mlx.cli.output import check_output, write_json, write_text
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.resolve import acquire_directory, beside, check_writable
from akidb_mlx.settings import Settings, load_settings

if TYPE_CHECKING:
    from akidb_mlx.checkpoint.checkpoint import Checkpoint
    from akidb_mlx.fidelity.card import FidelityCard, RerankerCard
    from akidb_mlx.fidelity.measuring import SentencePairs
    from akidb_mlx.fidelity.texts import TextSet


def evaluate(
    name: Annotated[str, typer.Argument(help="Catalogue name, org/repo, org/repo@revision or directory of a model.")],
    against: Annotated[
        str | None,
        typer.Option(
            help="The original. Default: the one of its known answers, else an unquantised model's own float32."
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="File of texts, one on each line, or a .json array. Default: 320 texts in 30 languages."),
    ] = None,
    sts: Annotated[
        list[str] | None,
        typer.Option(help="LANGUAGE=FILE: pairs of sentences and people's scores, as CSV. May be repeated."),
    ] = None,
    input_type: Annotated[str | None, typer.Option(help="Prompt before each text, as query or document.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, gpu or cpu. Default: the setting's.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", callback=check_output, help="Folder for the card. Default: beside the weights."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the card as JSON, not as Markdown.")] = False,
) -> None:
    """Measure how close a model's vectors, or a reranker's scores, are to its original's, and keep a card of it."""
    from akidb_mlx.checkpoint.kinds import read_any
    from akidb_mlx.fidelity.card import write_card
    from akidb_mlx.fidelity.markdown import to_markdown
    from akidb_mlx.fidelity.texts import default_texts, read_texts

    chosen = read_texts(texts) if texts else default_texts()
    pairs = _read_pairs(sts or [])
    settings = load_settings().model_copy(update={"known_answers": False})
    with ExitStack() as resources:
        directory = acquire_directory(resources, name, CATALOG | RERANKERS, settings, download=True)
        if output is None:
            check_writable(name, directory, settings)
        checkpoint = read_any(directory)
        if checkpoint.sparse is not None or checkpoint.multi_vector is not None:
            raise InvalidInputError(f"{name} is a sparse or multi-vector model, of which no figures are known")
        original = against or _find_original(name, directory, checkpoint)
        card: FidelityCard | RerankerCard
        if checkpoint.scoring is None:
            card = _compare_vectors(name, original, device, settings, chosen, pairs, input_type)
        elif pairs or input_type:
            raise InvalidInputError(
                f"{name} is a reranker, whose scores are compared: leave --sts and --input-type out"
            )
        else:
            card = _compare_scores(name, original, device, settings, chosen)
        with beside(name, directory, output, settings) as folder:
            write_card(card, folder)
    if as_json:
        write_json(card.plain())
    else:
        write_text(to_markdown(card))


def _compare_vectors(
    name: str,
    original: str,
    device: str | None,
    settings: Settings,
    texts: TextSet,
    pairs: dict[str, SentencePairs],
    input_type: str | None,
) -> FidelityCard:
    """Measure an embedding model and its original, one after the other."""
    from akidb_mlx.fidelity.measuring import make_card, measure
    from akidb_mlx.service import EmbeddingService

    with EmbeddingService(original, device=device, settings=settings.exact()) as service:
        reference = measure(service, texts, pairs, input_type)
    with EmbeddingService(name, device=device, settings=settings) as service:
        return make_card(measure(service, texts, pairs, input_type), reference, texts, pairs)


def _compare_scores(name: str, original: str, device: str | None, settings: Settings, texts: TextSet) -> RerankerCard:
    """Measure a reranker and its original, one after the other."""
    from akidb_mlx.fidelity.scores import make_reranker_card, measure_scores
    from akidb_mlx.reranking import Reranker

    with Reranker(original, device=device, settings=settings.exact()) as reranker:
        reference = measure_scores(reranker, texts)
    with Reranker(name, device=device, settings=settings) as reranker:
        return make_reranker_card(measure_scores(reranker, texts), reference, texts)


def _find_original(name: str, directory: Path, checkpoint: Checkpoint) -> str:
    """Return the original that a model's known answers name, or the model itself where it is not quantised.

    Raises:
        InvalidInputError: it is quantised, and nobody said what from.
    """
    from akidb_mlx.fidelity.shipped import find_answers

    if answers := find_answers(directory, find_record(name)):
        return answers.model
    if packing := checkpoint.quantization_summary:
        raise InvalidInputError(f"{name} is quantised ({packing}): name the original with --against")
    return name


def _read_pairs(options: list[str]) -> dict[str, SentencePairs]:
    from akidb_mlx.fidelity.measuring import read_pairs

    found = {}
    for option in options:
        language, equals, file = option.partition("=")
        if not equals or not language or not file:
            raise InvalidInputError(f"--sts takes LANGUAGE=FILE, as in en=stsb-en-test.csv, found {option[:80]!r}")
        found[language] = read_pairs(Path(file))
    return found
