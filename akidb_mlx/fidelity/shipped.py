"""The answers that count for a model: those beside its weights, else those of this package for models of the catalogue.

Those of the package are the vectors that sentence-transformers computes with the original weights in float32.
"""

from __future__ import annotations

from pathlib import Path

from akidb_mlx.catalog import ModelRecord
from akidb_mlx.fidelity.answers import ANSWERS, KnownAnswers, read_answers

_FOLDER = Path(__file__).parent / "shipped_answers"


def find_answers(directory: Path, record: ModelRecord | None) -> KnownAnswers | None:
    """Return the known answers of a model, None where nobody stated any.

    Args:
        directory: the model's.
        record: its record in the catalogue.

    Raises:
        ModelLoadError: the file beside the weights is not usable.
    """
    answers = read_answers(directory / ANSWERS)
    if answers is None and record is not None:
        return read_answers(shipped_file(record.repo_id))
    return answers


def shipped_file(repo_id: str) -> Path:
    """Return the file in which this package has the answers of a repository, whether or not it exists."""
    return _FOLDER / f"{repo_id.replace('/', '--')}.json"
