"""The measuring of fidelity: a model is asked for vectors of texts, and they are compared with its original's.

The two models need not be in memory at once: `measure` one, close it, measure the other, and make the card of both.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from akidb_mlx.embedder import Embedder
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.fidelity.card import CardTexts, Cosines, DimensionFigures, FidelityCard, LengthFigures, Spearman
from akidb_mlx.fidelity.figures import Numbers, cosines, cut, neighbour_recall, spearman
from akidb_mlx.fidelity.texts import TextSet
from akidb_mlx.reports import ModelInfo, RunningModelInfo
from akidb_mlx.texts import check_string
from akidb_mlx.vectors import Vectors

# The upper bounds of the lengths, in tokens, whose figures are stated apart.
_LENGTHS = (16, 64, 256)
# Figures are stated for whole vectors, and for the powers of two below down to this one.
_SMALLEST_DIMENSION = 64
# Texts that are computed before the time is taken.
_WARM_UP = 8


@dataclass(frozen=True)
class SentencePairs:
    """Pairs of sentences with people's scores of their similarity, as in the STS benchmark."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Measured:
    """A model's vectors of texts.

    Attributes:
        info: the model.
        input_type: the prompt before each text.
        vectors: those of the texts, all values of them.
        token_counts: how many tokens it reads of each text.
        seconds: how long it took to compute them.
        pairs: the vectors of the first and the second sentences of pairs, by language.
    """

    info: ModelInfo
    input_type: str | None
    vectors: Vectors
    token_counts: tuple[int, ...]
    seconds: float
    pairs: Mapping[str, tuple[Vectors, Vectors]]


def read_pairs(path: Path) -> SentencePairs:
    """Read pairs from a CSV file: two sentences and a score on each line; a first line without a number is a header.

    Raises:
        InvalidInputError: it cannot be read, or has a line of another form, or fewer than two pairs.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error
    pairs = []
    for number, row in enumerate(rows, 1):
        try:
            first, second, score = row
            value = float(score)
        except ValueError as error:
            if number == 1:
                continue
            raise InvalidInputError(
                f"{path}: row {number} is not two sentences and a score: {str(row)[:80]}"
            ) from error
        if not np.isfinite(value):
            raise InvalidInputError(f"{path}: row {number} has the score {score[:20]}, which is not finite")
        for text in (first, second):
            check_string(f"row {number} of {path}", text)
        pairs.append((first, second, value))
    if len(pairs) < 2:
        raise InvalidInputError(f"{path} holds {len(pairs)} pairs of sentences, at least 2 are needed")
    firsts, seconds, scores = zip(*pairs, strict=True)
    return SentencePairs(firsts, seconds, scores)


def measure(
    embedder: Embedder,
    texts: TextSet,
    pairs: Mapping[str, SentencePairs] | None = None,
    input_type: str | None = None,
) -> Measured:
    """Compute a model's vectors of texts, and take the time.

    Args:
        embedder: the model; the original's must be in float32, which `make_card` checks.
        texts: the texts.
        pairs: pairs of sentences by language.
        input_type: the prompt before each text.

    Raises:
        InvalidInputError: there are fewer than two texts.
        AkidbMlxError: the model cannot compute them.
    """
    if len(texts.texts) < 2:
        raise InvalidInputError(f"{texts.name} holds {len(texts.texts)} texts, at least 2 are needed")
    dimension = embedder.get_model_info()["native_dimension"]

    def embed(given: tuple[str, ...]) -> tuple[Vectors, list[int]]:
        batch = embedder.embed_detailed(given, input_type=input_type, dimensions=dimension)
        return np.asarray(batch.vectors, np.float32), batch.token_counts

    embed(texts.texts[:_WARM_UP])
    began = time.perf_counter()
    vectors, counts = embed(texts.texts)
    seconds = time.perf_counter() - began
    return Measured(
        info=embedder.get_model_info(),
        input_type=input_type,
        vectors=vectors,
        token_counts=tuple(counts),
        seconds=seconds,
        pairs={language: (embed(one.first)[0], embed(one.second)[0]) for language, one in (pairs or {}).items()},
    )


def make_card(
    model: Measured, original: Measured, texts: TextSet, pairs: Mapping[str, SentencePairs] | None = None
) -> FidelityCard:
    """Compare a model with its original.

    Args:
        model: the model, measured as it is used.
        original: the original, measured in float32 on the same texts and pairs.
        texts: the texts.
        pairs: the pairs of sentences by language.

    Raises:
        InvalidInputError: the original is not in float32, or the two have other dimensions.
    """
    info, other = model.info, original.info
    if model.vectors.shape != original.vectors.shape:
        raise InvalidInputError(
            f"{info['model_name']} has vectors of {model.vectors.shape[1]} values, and {other['model_name']} of "
            f"{original.vectors.shape[1]}: it is no conversion of it"
        )
    each = cosines(model.vectors, original.vectors)
    return FidelityCard(
        **describe(info, other, texts, model.input_type),
        dimensions=tuple(_dimension_figures(model, original, pairs or {}, size) for size in _sizes(info)),
        lengths=tuple(_length_figures(each, np.array(original.token_counts))),
        languages={
            language: Cosines.of(each[[one == language for one in texts.languages]])
            for language in dict.fromkeys(filter(None, texts.languages))
        },
        texts_per_second=len(texts.texts) / model.seconds,
    )


def describe(info: RunningModelInfo, other: RunningModelInfo, texts: TextSet, input_type: str | None) -> dict[str, Any]:
    """Return the entries of a card that do not depend on what the model computes.

    Args:
        info: the model.
        other: its original.
        texts: the texts.
        input_type: the prompt before each.

    Raises:
        InvalidInputError: the original is not in float32.
    """
    if other["precision"] != "float32" or other["allow_tf32"]:
        raise InvalidInputError(
            f"the original {other['model_name']} was computed in {other['precision']}"
            f"{' with TF32' if other['allow_tf32'] else ''}: compare with float32"
        )
    return {
        "model": info["model_name"],
        "original": other["model_name"],
        "revision": info["revision"],
        "original_revision": other["revision"],
        "quantization": info["quantization"],
        "precision": info["precision"],
        "backend": info["backend"],
        "device": info["device"],
        "software": f"akidb-mlx {version('akidb-mlx')}",
        "texts": CardTexts(
            name=texts.name,
            licence=texts.licence,
            sha256=texts.sha256,
            count=len(texts.texts),
            input_type=input_type,
        ),
        "weight_bytes": stored_bytes(Path(info["path"])),
        "memory_bytes": info["weight_bytes"],
    }


def stored_bytes(folder: Path) -> int:
    """Return the bytes of the files of weights in a model's folder and its modules' folders."""
    return sum(file.stat().st_size for pattern in ("*", "*/*") for file in folder.glob(f"{pattern}.safetensors"))


def _sizes(info: ModelInfo) -> list[int]:
    """Return the sizes of vectors that figures are stated for, the whole vectors first."""
    whole = info["native_dimension"]
    shorter = [1 << power for power in range(whole.bit_length(), 0, -1)] if info["matryoshka"] else []
    return [whole, *(size for size in shorter if _SMALLEST_DIMENSION <= size < whole)]


def _dimension_figures(
    model: Measured, original: Measured, pairs: Mapping[str, SentencePairs], size: int
) -> DimensionFigures:
    vectors, others = cut(model.vectors, size), cut(original.vectors, size)
    return DimensionFigures(
        dimension=size,
        cosine=Cosines.of(cosines(vectors, others)),
        recall_at_10=neighbour_recall(vectors, others),
        spearman={
            language: Spearman(
                pairs=len(one.scores),
                model=_correlation(model.pairs[language], one, size),
                original=_correlation(original.pairs[language], one, size),
            )
            for language, one in pairs.items()
        },
    )


def _correlation(vectors: tuple[Vectors, Vectors], pairs: SentencePairs, size: int) -> float:
    first, second = (one[:, :size] for one in vectors)
    return spearman(cosines(first, second), np.array(pairs.scores))


def _length_figures(each: Numbers, counts: np.ndarray) -> list[LengthFigures]:
    figures = []
    bounds = [0, *_LENGTHS, max(int(counts.max()), _LENGTHS[-1] + 1)]
    for below, most in pairwise(bounds):
        chosen = (counts > below) & (counts <= most)
        if chosen.any():
            figures.append(LengthFigures(least=below + 1, most=most, cosine=Cosines.of(each[chosen])))
    return figures
