"""A router: text in, label out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import is_number, shown
from akidb_mlx.selection.decision import Decision
from akidb_mlx.selection.features import CATEGORIES, join, one_hot
from akidb_mlx.selection.selector import Selector, largest_scores
from akidb_mlx.texts import check_string, list_texts

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder


@dataclass(frozen=True)
class Route:
    """The label of a text.

    Attributes:
        label: the selector's choice, or the fallback.
        scores: of each label, as `Selector.scores` has them.
        margin: the largest score minus that of the next label; infinite where there is one label only.
        is_fallback: whether the margin was below the threshold.
        reasons: in words, as which neighbours voted with which weights.
    """

    label: str
    scores: dict[str, float]
    margin: float
    is_fallback: bool
    reasons: list[str]


class Router:
    """Embeds texts and chooses their labels; safe to call from any thread.

        router = Router(Selector.load("knn_model.json"), service)
        router.route("Prove that the square root of two is irrational.").label

    It closes neither the selector nor the service.

    Args:
        selector: trained.
        service: embeds the texts, with the model that the selector was trained with.
        fallback: the label of a text whose margin is below `threshold`.
        threshold: in the unit of the selector's scores.
        category_one_hot: whether a category follows the embedding, for a file that does not say, as those of vLLM's
            router; None for what the file says, and no category where it does not.

    Raises:
        InvalidInputError: the service has another model or dimension than the selector was trained with; only one of
            `fallback` and `threshold` is given; or the file says otherwise of categories.
    """

    def __init__(
        self,
        selector: Selector,
        service: Embedder,
        *,
        fallback: str | None = None,
        threshold: float | None = None,
        category_one_hot: bool | None = None,
    ) -> None:
        if (fallback is None) != (threshold is None):
            raise InvalidInputError(
                "give fallback and threshold together: a label, and the margin below which it counts"
            )
        if fallback is not None:
            if not isinstance(fallback, str) or not fallback:
                raise InvalidInputError(f"fallback must be a label, found {shown(fallback)}")
            check_string("fallback", fallback)
        self._fallback, self._threshold = fallback, None if threshold is None else _check_threshold(threshold)
        self._selector, self._service = selector, service
        self._prompt = selector.embedding_model.prompt if selector.embedding_model else None
        self._category_one_hot = takes_category(selector, category_one_hot)
        check_service(selector, service, category_one_hot=self._category_one_hot)

    def route(self, text: str, *, category: str | None = None) -> Route:
        """Return the label of a text; see `route_batch`."""
        if not isinstance(text, str):
            raise InvalidInputError(f"text must be a string, found {type(text).__name__}; use route_batch for several")
        return self.route_batch([text], categories=[category])[0]

    def route_batch(self, texts: Iterable[str], *, categories: Sequence[str | None] | None = None) -> list[Route]:
        """Return the label of each text, with its scores and reasons.

        Args:
            texts: strings.
            categories: of each text its category, for a selector that was trained with categories; others ignore them.

        Raises:
            InvalidInputError: a text or category is not usable; `index` holds which.
            AkidbMlxError: a text could not be embedded, or the selector cannot choose.
        """
        texts = list_texts(texts)
        if isinstance(categories, str) or not isinstance(categories, (Iterable, type(None))):
            raise InvalidInputError(f"categories must be a list of strings, found {type(categories).__name__}")
        categories = [None] * len(texts) if categories is None else list(categories)
        if len(categories) != len(texts):
            raise InvalidInputError(f"there are {len(categories)} categories and {len(texts)} texts: give one for each")
        for category in categories:
            one_hot(category)
        if not texts:
            return []
        embeddings = np.asarray(self._service.embed_array(texts, prompt=self._prompt), np.float64)
        features = join(embeddings, categories, category_one_hot=self._category_one_hot)
        return [self._route(decision) for decision in self._selector.decide_batch(features)]

    def _route(self, decision: Decision) -> Route:
        label, scores, reasons = decision.label, largest_scores(decision.scores), decision.reasons
        margin = margin_of(scores, self._selector.labels)
        if self._threshold is not None and self._fallback is not None and margin < self._threshold:
            fault = f"the margin {margin:.4g} of {label} is below {self._threshold:.4g}"
            reasons.insert(0, f"{fault}: {self._fallback} instead")
            return Route(self._fallback, scores, margin, True, reasons)
        return Route(label, scores, margin, False, reasons)


def margin_of(scores: dict[str, float], labels: Sequence[str]) -> float:
    """Return the largest score minus the next; a label of a KNN without a vote has 0."""
    best = sorted(scores.values(), reverse=True)[:2]
    if len(best) == 2:
        return best[0] - best[1]
    return best[0] if best and len(labels) > 1 else math.inf


def takes_category(selector: Selector, category_one_hot: bool | None) -> bool:
    """Return whether a category follows the embedding, by a selector's file and by what its caller says.

    Raises:
        InvalidInputError: they contradict each other.
    """
    if not isinstance(category_one_hot, (bool, type(None))):
        raise InvalidInputError(f"category_one_hot must be true, false or None, found {shown(category_one_hot)}")
    stated = selector.category_one_hot
    if None not in (stated, category_one_hot) and stated != category_one_hot:
        raise InvalidInputError(
            f"category_one_hot is {category_one_hot}, and the selector's file has features.category_one_hot {stated}"
        )
    return bool(category_one_hot if stated is None else stated)


def check_service(selector: Selector, service: Embedder, *, category_one_hot: bool) -> None:
    """Refuse a service whose vectors a selector was not trained on.

    Args:
        selector: trained.
        service: embeds the texts.
        category_one_hot: whether a category follows the embedding.

    Raises:
        InvalidInputError: the model or the dimension is another; both are named.
    """
    model = selector.embedding_model
    if model is not None and not model.is_of(service):
        raise InvalidInputError(
            f"the selector was trained with the embeddings of {model.name}, and the service has {service.model_name}: "
            "vectors of different models cannot be compared"
        )
    added = len(CATEGORIES) * category_one_hot
    if selector.dimension is not None and service.dimension + added != selector.dimension:
        hint = ""
        if selector.category_one_hot is None and service.dimension + len(CATEGORIES) == selector.dimension:
            hint = f": if the last {len(CATEGORIES)} stand for a category, say category_one_hot=True"
        raise InvalidInputError(
            f"the selector takes {selector.dimension - added} values of an embedding, and {service.model_name} gives "
            f"{service.dimension}{hint}"
        )


def _check_threshold(threshold: float) -> float:
    try:
        if is_number(threshold, Real) and math.isfinite(threshold):
            return float(threshold)
    except OverflowError:  # an integer beyond float64
        pass
    raise InvalidInputError(f"threshold must be a finite number, found {shown(threshold)}")
