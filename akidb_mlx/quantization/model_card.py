"""The model card of a quantised model, README.md on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.fidelity.card import FidelityCard, RerankerCard, read_card
from akidb_mlx.fidelity.json_files import CARD
from akidb_mlx.fidelity.markdown import score_rows, table
from akidb_mlx.fidelity.measuring import stored_bytes
from akidb_mlx.quantization.provenance import read_provenance
from model_cache.files import find_incomplete

# The entries of the original's metadata that hold for the quantised model too.
_INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag")
_TAGS = ("mlx", "akidb-mlx", "quantized")
# The task, by the Hub's name, and a command that does it.
_TASKS: dict[type, str] = {FidelityCard: "feature-extraction", RerankerCard: "text-ranking"}
_COMMANDS: dict[type, str] = {
    FidelityCard: 'akidb-mlx embed -m {} "Hello, world!"',
    RerankerCard: 'akidb-mlx rerank -m {} "a query" "a document" "another one"',
}


def check_publishable(folder: Path) -> FidelityCard | RerankerCard:
    """Return the fidelity card of a model, without which it is not published.

    Raises:
        InvalidInputError: it has none, or one that was made of other weights.
        ModelLoadError: the card cannot be read, or files of the model are missing or damaged.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is no folder")
    card = read_card(folder)
    remedy = f"make one with `akidb-mlx evaluate {folder} --against ORIGINAL`"
    if card is None:
        raise InvalidInputError(f"{folder} has no fidelity card ({CARD}), so nobody could see what it keeps: {remedy}")
    if (found := stored_bytes(folder)) != card.weight_bytes:
        raise InvalidInputError(
            f"{folder / CARD} was made of weights of {card.weight_bytes} bytes, and those there have {found}: {remedy}"
        )
    if missing := find_incomplete(folder):
        raise ModelLoadError(f"{folder} is incomplete: {cut(', '.join(missing))} is missing or damaged")
    return card


def find_base_model(folder: Path) -> str:
    """Return the original's repository, which the folder of a quantised model states.

    Raises:
        InvalidInputError: it does not.
        ModelLoadError: the file that would cannot be read.
    """
    origin = read_provenance(folder)
    if origin is None or origin.base_model is None:
        raise InvalidInputError(
            f"{folder} does not say which repository it was made of: name it with --base-model org/name"
        )
    return origin.base_model


def model_card(
    folder: Path, repo: str, card: FidelityCard | RerankerCard, base_model: str, licence: str | None = None
) -> str:
    """Return the content of a README.md with metadata for the Hub.

    Args:
        folder: the quantised model, perhaps with the original's README.md.
        repo: the repository that it is pushed to.
        card: its fidelity card.
        base_model: the original's repository.
        licence: the licence by the Hub's name; what its folder says if None.

    Raises:
        InvalidInputError: the licence is nowhere to be found.
        ModelLoadError: a file in the folder cannot be read.
    """
    from huggingface_hub import ModelCardData

    origin = read_provenance(folder)
    stated = {key: value for key, value in _read_metadata(folder).items() if key in _INHERITED and value}
    if licence is not None:
        stated = {key: value for key, value in stated.items() if not key.startswith("license")} | {"license": licence}
    elif "license" not in stated and origin is not None and origin.licence is not None:
        stated["license"] = origin.licence.lower()
    if "license" not in stated:
        raise InvalidInputError(
            f"{folder} does not say its licence: state the original's with --licence, as in apache-2.0"
        )
    data = ModelCardData(
        **{"pipeline_tag": _TASKS[type(card)], **stated},
        library_name="mlx",
        base_model=base_model,
        base_model_relation="quantized",
        tags=list(_TAGS),
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_text(repo, base_model, card)}"


def _text(repo: str, base_model: str, card: FidelityCard | RerankerCard) -> str:
    rows = [
        ("packing", card.quantization or "none"),
        ("weights", f"{card.weight_bytes / 1e6:.1f} MB"),
        ("texts", f"{card.texts.count} of {card.texts.name}"),
        *(score_rows(card) if isinstance(card, RerankerCard) else _vector_rows(card)),
    ]
    return (
        f"# {repo.partition('/')[2]}\n\n"
        f"[{base_model}](https://huggingface.co/{base_model}), quantised for MLX with {card.software}.\n\n"
        f"```bash\npip install akidb-mlx\n{_COMMANDS[type(card)].format(repo)}\n```\n\n"
        f"## Fidelity\n\nCompared with the original in float32, on the {card.device.upper()} in {card.precision}; "
        f"all figures are in `{CARD}`.\n\n{table(('quantity', 'value'), rows)}\n"
    )


def _vector_rows(card: FidelityCard) -> list[tuple[str, str]]:
    cosine, whole = card.whole.cosine, card.whole
    return [
        (
            "cosine to the original: mean, 1st percentile, worst",
            f"{cosine.mean:.4f}, {cosine.percentile_1:.4f}, {cosine.worst:.4f}",
        ),
        ("recall@10 of the original's nearest neighbours", f"{whole.recall_at_10:.3f}"),
        *(
            (f"Spearman, {language}", f"{one.model:.4f}, original {one.original:.4f}")
            for language, one in whole.spearman.items()
        ),
    ]


def _read_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of the original's model card; empty where there is none."""
    from huggingface_hub import metadata_load

    path = folder / "README.md"
    if not is_file(path):
        return {}
    try:
        return metadata_load(path) or {}
    except Exception as error:
        raise ModelLoadError(f"{path}: its metadata cannot be read: {cut(str(error))}") from error
