"""A trained selector: a vector in, a label out; read from JSON and written to it."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from pydantic_core import to_json

from akidb_mlx.closeable import Closeable
from akidb_mlx.errors import InvalidInputError, ModelLoadError, NotTrainedError, ServiceClosedError
from akidb_mlx.selection.exact_svm import OneAgainstOne
from akidb_mlx.selection.features import CATEGORIES, EmbeddingModel
from akidb_mlx.selection.json_fields import MAX_BYTES, Fields, Floats, check_size, parse
from akidb_mlx.selection.kmeans import NearestCentroid
from akidb_mlx.selection.knn import NearestNeighbours, Neighbour
from akidb_mlx.selection.mlp import Perceptron
from akidb_mlx.selection.queries import check_vector, check_vectors
from akidb_mlx.selection.svm import OneAgainstAll
from model_cache.files import write_atomically


class _Kind(Protocol):
    """The data of one kind of selector, and its choice; queries are checked, (queries, dimension) float64."""

    dimension: int | None

    @property
    def labels(self) -> list[str]: ...
    def score_lists(self, queries: Floats) -> list[list[tuple[str, float]]]: ...
    def choose(self, queries: Floats) -> list[str]: ...
    def explain(self, query: Floats) -> list[str]: ...


_KINDS = {kind.algorithm: kind for kind in (NearestNeighbours, NearestCentroid, OneAgainstAll, Perceptron)}
ALGORITHMS = tuple(_KINDS)
# The names of selectors' files, as vLLM's semantic-router looks for them.
FILE_NAMES = {algorithm: f"{algorithm}_model.json" for algorithm in ALGORITHMS}
FORMAT_VERSION = 1


class Selector(Closeable):
    """Chooses a label for a vector; safe to call from any thread.

        selector = Selector.load("knn_model.json")
        label = selector.select(vector)

    Make one with `from_json`, `load` or `akidb_mlx.selection.train`.
    """

    def __init__(self, document: dict[str, Any], *, exact: bool = False) -> None:
        """Read the parsed JSON of a selector, in which lists of numbers become arrays.

        Raises:
            ModelLoadError: a field is missing or wrong; the message names it.
        """
        fields = Fields(document)
        self.algorithm = fields.choice("algorithm", ALGORITHMS)
        self._trained = fields.boolean("trained")
        exact = exact and self.algorithm == "svm" and OneAgainstOne.fits(fields)
        _check_version(fields, exact=exact)
        kind: type[NearestNeighbours | NearestCentroid | OneAgainstAll | Perceptron | OneAgainstOne]
        kind = OneAgainstOne if exact else _KINDS[self.algorithm]
        self._kind: _Kind | None = kind(fields, trained=self._trained)
        self._document = document
        self._dimension = self._kind.dimension
        self._labels = self._kind.labels
        self.category_one_hot = _read_one_hot(fields)
        self.embedding_model = (
            EmbeddingModel.read(fields.object("embedding_model")) if fields.has("embedding_model") else None
        )
        self._check_dimension(fields)
        fields.check_others()

    @classmethod
    def from_json(cls, text: str | bytes, *, exact: bool = False, max_bytes: int = MAX_BYTES) -> Selector:
        """Read a selector.

        Args:
            text: its JSON, as bytes in UTF-8.
            exact: read an SVM by scikit-learn's own arrays (`dual_coef`, `n_support`, `intercept`, `support_vectors`)
                where the file carries them, also one of `format_version` 2; the choice is then that of `SVC.predict`.
            max_bytes: how long the JSON may be.

        Raises:
            ModelLoadError: it is no selector that can be used; the message names the field.
            InvalidInputError: an argument is not usable.
        """
        return cls(parse(text, max_bytes), exact=exact)

    @classmethod
    def load(cls, path: str | PathLike[str], *, exact: bool = False, max_bytes: int = MAX_BYTES) -> Selector:
        """Read a selector's file; see `from_json`.

        Raises:
            ModelLoadError: it cannot be read, or is no selector that can be used.
        """
        try:
            with Path(path).open("rb") as file:
                check_size(Path(path).stat().st_size, max_bytes)
                content = file.read(max_bytes + 1)
            return cls.from_json(content, exact=exact, max_bytes=max_bytes)
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidInputError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise ModelLoadError(f"{fspath(path)[:200]} cannot be read: {reason}") from error
        except ModelLoadError as error:
            raise ModelLoadError(f"{fspath(path)[:200]}: {error}") from error

    def to_json(self) -> str:
        """Return the selector as JSON, with all fields that were read, also unknown ones, in their order."""
        self._open()
        return to_json(self._document, fallback=_plain).decode()

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the selector to a file, or to a folder under the name that the format gives it; return the file.

        Raises:
            OSError: it cannot be written.
        """
        content = self.to_json()
        target = Path(path) / FILE_NAMES[self.algorithm] if Path(path).is_dir() else Path(path)
        write_atomically(target, content)
        return target

    @property
    def is_trained(self) -> bool:
        """Return whether the selector can choose."""
        self._open()
        return self._trained

    @property
    def dimension(self) -> int | None:
        """Return how many values a vector has; None where the file does not tell, as an SVM without classifiers."""
        return self._dimension

    @property
    def labels(self) -> list[str]:
        """Return the labels that may be chosen."""
        return list(self._labels)

    def describe(self) -> dict[str, Any]:
        """Return what the file says of the selector, without its data."""
        self._open()
        return {
            "algorithm": self.algorithm,
            "trained": self._trained,
            "dimension": self._dimension,
            "labels": self.labels,
            "embedding_model": self.embedding_model.plain() if self.embedding_model else None,
            "category_one_hot": self.category_one_hot,
            "training": self._document.get("training"),
        }

    def select(self, vector: ArrayLike) -> str:
        """Return the label of a vector.

        Args:
            vector: (dimension,) finite numbers.

        Raises:
            InvalidInputError: it has another length, or holds something else than finite numbers.
            NotTrainedError: the selector was saved before it was trained.
            ServiceClosedError: the selector was closed.
            InferenceError: a score is not finite.
        """
        return self._ready().choose(check_vector(vector, self._dimension)[None])[0]

    def select_batch(self, vectors: ArrayLike) -> list[str]:
        """Return the label of each of several vectors; see `select`.

        Args:
            vectors: (vectors, dimension) finite numbers, or a list of vectors.
        """
        kind = self._ready()
        queries = check_vectors(vectors, self._dimension)
        return kind.choose(queries) if len(queries) else []

    def scores(self, vector: ArrayLike) -> dict[str, float]:
        """Return the score of each label, the largest where `score_list` has several."""
        return largest_scores(self.score_list(vector))

    def score_list(self, vector: ArrayLike) -> list[tuple[str, float]]:
        """Return the scores in the order that all languages share.

        KNN: the sums of votes, of the labels that got any, by label. k-means: minus the squared distance of a label's
        nearest centroid. SVM: each classifier's decision value, linear ones first. MLP: the logits.
        """
        return self._ready().score_lists(check_vector(vector, self._dimension)[None])[0]

    def score_batch(self, vectors: ArrayLike) -> list[list[tuple[str, float]]]:
        """Return the scores of each of several vectors; see `score_list`."""
        kind = self._ready()
        queries = check_vectors(vectors, self._dimension)
        return kind.score_lists(queries) if len(queries) else []

    def explain(self, vector: ArrayLike) -> list[str]:
        """Return the reasons of a choice in words: the neighbours that voted, or the nearest labels."""
        return self._ready().explain(check_vector(vector, self._dimension))

    def neighbours(self, vector: ArrayLike) -> list[Neighbour]:
        """Return the training examples that vote, the nearest first.

        Raises:
            InvalidInputError: the selector is not a KNN.
        """
        kind = self._ready()
        if not isinstance(kind, NearestNeighbours):
            raise InvalidInputError(f"only a KNN has neighbours, and this selector is {self.algorithm}")
        return kind.neighbours(check_vector(vector, self._dimension))

    def close(self) -> None:
        """Free the data. Idempotent."""
        self._kind = None
        self._document = {}

    def __repr__(self) -> str:
        state = "closed" if self._kind is None else "trained" if self._trained else "not trained"
        return f"<Selector {self.algorithm}: {self._dimension} values, {len(self._labels)} labels, {state}>"

    def _open(self) -> _Kind:
        if (kind := self._kind) is None:
            raise ServiceClosedError("the selector was closed")
        return kind

    def _ready(self) -> _Kind:
        kind = self._open()
        if not self._trained:
            raise NotTrainedError("the selector is not trained: its file says trained: false")
        return kind

    def _check_dimension(self, fields: Fields) -> None:
        if self.embedding_model is None or self._dimension is None:
            return
        model = self.embedding_model.dimension
        expected = model + len(CATEGORIES) * self.category_one_hot
        if expected != self._dimension:
            added = f" and {len(CATEGORIES)} of the category" if self.category_one_hot else ""
            raise fields.error(
                "embedding_model.dimension", f"is {model}{added}, and the selector takes {self._dimension} values"
            )


def largest_scores(pairs: list[tuple[str, float]]) -> dict[str, float]:
    """Return the largest score of each label."""
    found: dict[str, float] = {}
    for label, score in pairs:
        found[label] = max(score, found.get(label, score))
    return found


def _check_version(fields: Fields, *, exact: bool) -> None:
    if not fields.has("format_version"):
        return
    found = fields.integer("format_version")
    if found != FORMAT_VERSION and not (exact and found == 2):
        raise fields.error(
            "format_version",
            f"is {found}, and {FORMAT_VERSION} is read: files of another version follow other rules"
            + (" (an SVM with `svc` may be read with exact=True)" if fields.values["algorithm"] == "svm" else ""),
        )


def _read_one_hot(fields: Fields) -> bool:
    if not fields.has("features"):
        return False
    features = fields.object("features")
    found = features.boolean("category_one_hot") if features.has("category_one_hot") else False
    features.check_others()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
