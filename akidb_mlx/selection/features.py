"""The vector that a selector takes: a text's embedding, and after it, if so trained, its category as a one-hot."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from akidb_mlx.catalog import ALL_MODELS
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.selection.json_fields import Fields, Floats

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder

logger = logging.getLogger(__name__)

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
        revision: commit of its repository, None if it is not known, as of a directory.
    """

    name: str
    dimension: int
    prompt: str | None = None
    revision: str | None = None

    @classmethod
    def of(cls, service: Embedder, prompt: str | None) -> EmbeddingModel:
        """Return the model of a service, with the prompt that goes before each text."""
        info = service.get_model_info()
        return cls(info["model_name"], info["dimension"], prompt, info["revision"])

    @classmethod
    def read(cls, fields: Fields) -> EmbeddingModel:
        """Return the model that a file names.

        Raises:
            ModelLoadError: a field is wrong.
        """
        prompt, revision = (fields.text(key) if fields.has(key) else None for key in ("prompt", "revision"))
        found = cls(fields.text("name"), fields.integer("dimension", minimum=1), prompt, revision)
        fields.check_others()
        return found

    def plain(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    def is_of(self, service: Embedder) -> bool:
        """Return whether a service has the model.

        A catalogue name and its repository are one model. A directory counts by its last part, since it may lie
        elsewhere on another machine; so that two models are not silently taken for one, a warning names both paths. It
        does so too where the commits of a repository differ, which may be those of a README only.
        """
        info = service.get_model_info()
        name, revision = info["model_name"], info["revision"]
        if _identity(self.name) != _identity(name):
            return False
        if self.name != name and _is_path(self.name):
            logger.warning(
                "the selector was trained with the model in %s, and the service has the one in %s: they are taken for "
                "one model by the name of their directory",
                self.name,
                name,
            )
        if None not in (self.revision, revision) and self.revision != revision:
            logger.warning(
                "the selector was trained with %s at the commit %s, and the service has %s: if the weights differ, "
                "train it again",
                self.name,
                self.revision,
                revision,
            )
        return True


def _identity(name: str) -> str:
    record = ALL_MODELS.get(name)
    if record is not None:
        return record.repo_id
    return PurePath(name).name if _is_path(name) else name


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


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
