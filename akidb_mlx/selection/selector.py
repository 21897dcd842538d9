"""A trained selector: a vector in, a label out; read from JSON and written to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from pydantic_core import to_json

from akidb_mlx.closeable import Closeable
from akidb_mlx.errors import InvalidInputError, ModelLoadError, NotTrainedError, ServiceClosedError
from akidb_mlx.selection.decision import Decision
from akidb_mlx.selection.exact_svm import OneAgainstOne
from akidb_mlx.selection.features import CATEGORIES, EmbeddingModel
from akidb_mlx.selection.files import ALGORITHMS, output_file
from akidb_mlx.selection.json_fields import Fields, Floats
from akidb_mlx.selection.json_text import MAX_BYTES, check_limit, check_size, parse
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
    def decisions(self, queries: Floats) -> Iterator[Decision]: ...


_KINDS = {kind.algorithm: kind for kind in (NearestNeighbours, NearestCentroid, OneAgainstAll, Perceptron)}
FORMAT_VERSION = 1


class Selector(Closeable):
    """Chooses a label for a vector; safe to call from any thread.

        selector = Selector.load("knn_model.json")
        label = selector.select(vector)

    Make one with `from_json`, `load` or `akidb_mlx.selection.train`.

    Attributes:
        algorithm: "knn", "kmeans", "svm" or "mlp".
        embedding_model: the model of its vectors, None where the file names none, as those of vLLM's router.
        category_one_hot: whether a category follows the embedding; None where the file does not say.
    """

    def __init__(self, document: dict[str, Any], *, exact: bool = False) -> None:
        """Read the parsed JSON of a selector, in which lists of numbers become arrays.

        Raises:
            ModelLoadError: a field is missing or wrong; the message names it.
        """
        fields = Fields(document)
        self.algorithm = fields.choice("algorithm", ALGORITHMS)
        self._trained = fields.boolean("trained")
        if exact and self.algorithm != "svm":
            raise fields.error("algorithm", f"is {self.algorithm}, and exact=True reads the arrays of an svm")
        _check_version(fields, exact=exact)
        kind: type[NearestNeighbours | NearestCentroid | OneAgainstAll | Perceptron | OneAgainstOne]
        kind = OneAgainstOne if exact else _KINDS[self.algorithm]
        data: _Kind = kind(fields, trained=self._trained)
        # The data and the document, which close() takes away in one step.
        self._content: tuple[_Kind, dict[str, Any]] | None = data, document
        self._dimension = data.dimension
        self._labels = data.labels
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
            exact: read an SVM by scikit-learn's own arrays (`dual_coef`, `n_support`, `intercept`, `support_vectors`,
                and `classes` where it is there), also one of `format_version` 2; the choice is then that of
                `SVC.predict`. A file without them is refused.
            max_bytes: how long the JSON may be. Reading takes at most 16 times as much memory.

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
            InvalidInputError: an argument is not usable.
        """
        check_limit(max_bytes)
        try:
            with Path(path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                check_size(size, max_bytes)
                content = file.read((size or min(max_bytes, MAX_BYTES)) + 1)  # a pipe has no size
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
        _, document = self._open()
        return to_json(document, fallback=_plain).decode()

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the selector to a file, or to a folder under the name that the format gives it; return the file.

        Args:
            path: the file; or a folder, which is there or ends with "/" and is then made.

        Raises:
            OSError: it cannot be written.
        """
        content = self.to_json()
        target = output_file(path, self.algorithm)
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
        _, document = self._open()
        return {
            "algorithm": self.algorithm,
            "trained": self._trained,
            "dimension": self._dimension,
            "labels": self.labels,
            "embedding_model": self.embedding_model.plain() if self.embedding_model else None,
            "category_one_hot": self.category_one_hot,
            "training": document.get("training"),
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
        return self.decide_batch([check_vector(vector, self._dimension)])[0].reasons

    def decide_batch(self, vectors: ArrayLike) -> list[Decision]:
        """Return the label, the scores and the reasons of each of several vectors, which are computed once."""
        kind = self._ready()
        queries = check_vectors(vectors, self._dimension)
        return list(kind.decisions(queries)) if len(queries) else []

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
        self._content = None

    def __repr__(self) -> str:
        state = "closed" if self._content is None else "trained" if self._trained else "not trained"
        return f"<Selector {self.algorithm}: {self._dimension} values, {len(self._labels)} labels, {state}>"

    def _open(self) -> tuple[_Kind, dict[str, Any]]:
        if (content := self._content) is None:
            raise ServiceClosedError("the selector was closed")
        return content

    def _ready(self) -> _Kind:
        kind, _ = self._open()
        if not self._trained:
            raise NotTrainedError("the selector is not trained: its file says trained: false")
        return kind

    def _check_dimension(self, fields: Fields) -> None:
        if self.embedding_model is None or self._dimension is None:
            return
        model = self.embedding_model.dimension
        expected = model + len(CATEGORIES) * bool(self.category_one_hot)
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


def _read_one_hot(fields: Fields) -> bool | None:
    if not fields.has("features"):
        return None
    features = fields.object("features")
    found = features.boolean("category_one_hot") if features.has("category_one_hot") else None
    features.check_others()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
