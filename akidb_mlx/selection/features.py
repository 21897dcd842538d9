"""The vector that a selector takes: a text's embedding, and after it, if so trained, its category as a one-hot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from akidb_mlx.catalog import ALL_MODELS
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.selection.json_fields import Fields, Floats

# In the order of the format.
CATEGORIES = (
    *("math", "physics", "chemistry", "biology", "computer science", "history", "economics", "business", "law"),
    *("health", "psychology", "philosophy", "other", "unknown"),
)


@dataclass(frozen=True)
class EmbeddingModel:
    """The embedding model of a selector.

    Attributes:
        name: as it was asked for in training.
        dimension: how many values its vectors have.
        prompt: the string before each text, None for none.
    """

    name: str
    dimension: int
    prompt: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> EmbeddingModel:
        """Return the model that a file names.

        Raises:
            ModelLoadError: a field is wrong.
        """
        prompt = fields.text("prompt") if fields.has("prompt") else None
        found = cls(fields.text("name"), fields.integer("dimension", minimum=1), prompt)
        fields.check_others()
        return found

    def plain(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"name": self.name, "dimension": self.dimension, "prompt": self.prompt}


def same_model(first: str, second: str) -> bool:
    """Return whether two names stand for one model: a directory counts by its last part, wherever it lies."""
    return _identity(first) == _identity(second)


def _identity(name: str) -> str:
    record = ALL_MODELS.get(name)
    if record is not None:
        return record.repo_id
    local = name.startswith(("/", ".", "~")) or name.count("/") > 1
    return PurePath(name).name if local else name


def one_hot(category: str | None) -> Floats:
    """Return a category as a one-hot: one that the format does not name counts as "other", None as "unknown".

    Raises:
        InvalidInputError: it is not a string.
    """
    if category is not None and not isinstance(category, str):
        raise InvalidInputError(f"category must be a string or None, found {type(category).__name__}")
    known = category if category in CATEGORIES else "unknown" if category is None else "other"
    values = np.zeros(len(CATEGORIES))
    values[CATEGORIES.index(known)] = 1
    return values


def join(embeddings: Floats, categories: list[str | None], *, category_one_hot: bool) -> Floats:
    """Return the features of texts, (texts, dimension) float64."""
    if not category_one_hot:
        return np.ascontiguousarray(embeddings, np.float64)
    hot = np.array([one_hot(category) for category in categories]).reshape(len(categories), len(CATEGORIES))
    return np.concatenate([embeddings, hot], axis=1, dtype=np.float64)
