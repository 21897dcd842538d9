"""The fidelity card: figures of how close a model's vectors, or a reranker's scores, are to its original's, as JSON."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from akidb_mlx.errors import ModelLoadError
from akidb_mlx.fidelity.figures import Numbers
from akidb_mlx.fidelity.json_files import CARD, first_fault, read_bounded, write_text

_MAX_BYTES = 1 << 20

_Cosine = Annotated[float, Field(ge=-1, le=1)]
_Name = Annotated[str, Field(max_length=500)]


class _Json(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Cosines(_Json):
    """Cosines of vectors to the original's.

    Attributes:
        texts: how many.
        mean: their mean.
        percentile_1: the value that one in a hundred is below.
        worst: the smallest.
    """

    texts: PositiveInt
    mean: _Cosine
    percentile_1: _Cosine
    worst: _Cosine

    @classmethod
    def of(cls, cosines: Numbers) -> Cosines:
        """Return the figures of cosines."""
        return cls(
            texts=len(cosines),
            mean=float(cosines.mean()),
            percentile_1=float(np.percentile(cosines, 1)),
            worst=float(cosines.min()),
        )


class Spearman(_Json):
    """Spearman's rank correlation of cosines with people's scores of sentence pairs.

    Attributes:
        pairs: how many pairs.
        model: the model's correlation.
        original: the original's.
    """

    pairs: PositiveInt
    model: _Cosine
    original: _Cosine


class DimensionFigures(_Json):
    """Figures of vectors that are cut to a size.

    Attributes:
        dimension: how many values are kept.
        cosine: cosines to the original's vectors, cut alike.
        recall_at_10: share of the ten nearest neighbours of a text, by the original, that are among the model's.
        spearman: correlations by language; empty where no scores were given.
    """

    dimension: PositiveInt
    cosine: Cosines
    recall_at_10: Annotated[float, Field(ge=0, le=1)]
    spearman: dict[_Name, Spearman] = {}


class LengthFigures(_Json):
    """Figures of the texts of some lengths.

    Attributes:
        least: fewest tokens.
        most: most tokens.
        cosine: cosines to the original's vectors.
    """

    least: PositiveInt
    most: PositiveInt
    cosine: Cosines


class ScoreFigures(_Json):
    """Figures of a reranker's scores; a query with its documents and one label is a ranking.

    Attributes:
        rankings: how many.
        documents: how many documents each has.
        mean_difference: mean distance of a score from the original's.
        worst_difference: the largest one.
        order: Spearman's rank correlation of a ranking's scores with the original's, the mean of all rankings.
        same_best: share of the rankings whose best document is the original's.
    """

    rankings: PositiveInt
    documents: PositiveInt
    mean_difference: NonNegativeFloat
    worst_difference: NonNegativeFloat
    order: _Cosine
    same_best: Annotated[float, Field(ge=0, le=1)]


class CardTexts(_Json):
    """The texts that figures were measured on.

    Attributes:
        name: the name of the set or of its file.
        licence: their licence; None where nobody stated it.
        sha256: hash of the texts.
        count: how many there are.
        input_type: the prompt before each, as in `EmbedOptions`.
    """

    name: _Name
    licence: _Name | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    count: PositiveInt
    input_type: _Name | None


class Card(_Json):
    """The fidelity of a model; the part that all kinds of models have.

    Attributes:
        version: of the format.
        model: the name that the model was evaluated by.
        original: name of the model that it is compared with, which was computed in float32.
        revision: commit of the model, or None.
        original_revision: commit of the original, or None.
        quantization: how the weights are packed; None where none are.
        precision: type of the activations that the figures were measured with.
        backend: the library that computed.
        device: "cpu" or "gpu".
        software: the program that measured.
        texts: the texts.
        weight_bytes: bytes of the files of weights.
        memory_bytes: bytes of memory that the weights took.
    """

    version: Literal[1] = 1
    model: _Name
    original: _Name
    revision: _Name | None
    original_revision: _Name | None
    quantization: _Name | None
    precision: _Name
    backend: _Name
    device: _Name
    software: _Name
    texts: CardTexts
    weight_bytes: NonNegativeInt
    memory_bytes: NonNegativeInt

    @property
    @abstractmethod
    def summary(self) -> str:
        """Return the main figures on one line."""

    def plain(self) -> dict[str, Any]:
        """Return the card as plain types."""
        return self.model_dump(mode="json")


class FidelityCard(Card):
    """The fidelity of an embedding model.

    Attributes:
        dimensions: figures by size of the vectors, the whole vectors first.
        lengths: figures by the number of tokens, whole vectors.
        languages: figures by language, whole vectors; without texts whose language is not known.
        texts_per_second: texts of the set per second on the machine that measured.
    """

    dimensions: Annotated[tuple[DimensionFigures, ...], Field(min_length=1, strict=False)]
    lengths: Annotated[tuple[LengthFigures, ...], Field(strict=False)]
    languages: dict[_Name, Cosines]
    texts_per_second: NonNegativeFloat

    @property
    def whole(self) -> DimensionFigures:
        """Return the figures of whole vectors."""
        return self.dimensions[0]

    @property
    def summary(self) -> str:
        """Return the main figures on one line."""
        cosine = self.whole.cosine
        return (
            f"cosine {cosine.mean:.4f} (worst {cosine.worst:.4f}), recall@10 {self.whole.recall_at_10:.3f} to "
            f"{self.original}"
        )


class RerankerCard(Card):
    """The fidelity of a reranker.

    Attributes:
        scores: the figures.
        pairs_per_second: pairs of texts of the set per second on the machine that measured.
    """

    scores: ScoreFigures
    pairs_per_second: NonNegativeFloat

    @property
    def summary(self) -> str:
        """Return the main figures on one line."""
        one = self.scores
        return (
            f"order {one.order:.4f}, same best {one.same_best:.3f}, scores within {one.worst_difference:.4f} of "
            f"{self.original}'s"
        )


def read_card(folder: Path) -> FidelityCard | RerankerCard | None:
    """Read the card beside a model's weights; return None where there is none.

    Raises:
        ModelLoadError: the file cannot be read, or is no card.
    """
    path = folder / CARD
    content = read_bounded(path, _MAX_BYTES)
    if content is None:
        return None
    kind = RerankerCard if _is_of_scores(content) else FidelityCard
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise ModelLoadError(
            f"{path} is not usable: {first_fault(error)}; make it anew with `akidb-mlx evaluate`, or delete it"
        ) from error


def _is_of_scores(content: bytes) -> bool:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):  # which its own reader explains
        return False
    return isinstance(parsed, dict) and "scores" in parsed


def write_card(card: Card, folder: Path) -> Path:
    """Write the card into a model's folder, and return its path."""
    path = folder / CARD
    write_text(path, card.model_dump_json(indent=1) + os.linesep)
    return path
