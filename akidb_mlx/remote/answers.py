"""The answers of an embeddings API, of which nothing is taken on trust."""

from __future__ import annotations

import json
import reprlib
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from akidb_mlx.errors import InferenceError
from akidb_mlx.vectors import Vectors

# How far from 1 the length of a vector may be that is passed on to the bit; float32 rounds by a tenth of this.
_UNIT_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one request.

    Attributes:
        vectors: (texts, dimension) float32, in the order of the texts.
        model: the model's name as the API gives it; None where it gives none.
        tokens: tokens of all texts together; None where the API does not count.
        token_counts: tokens of each text; None where the API, not being akidb-mlx's server, does not say.
        truncated: for each text, whether it was cut; None where `token_counts` is.
    """

    vectors: Vectors
    model: str | None
    tokens: int | None
    token_counts: list[int] | None
    truncated: list[bool] | None


def parse_answer(body: bytes, texts: int, dimension: int | None) -> Answer:
    """Return an answer, once it is known to hold one vector for each text, all of one size.

    Args:
        body: the body of the response.
        texts: how many texts were sent.
        dimension: how many values each vector must have; None where that is not known yet.

    Raises:
        InferenceError: it does not; `index` holds which text of the request.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InferenceError(
            f"the API's answer is not JSON ({len(body)} bytes); is base_url the address of an OpenAI-compatible API?"
        ) from error
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        raise InferenceError(
            "the API's answer has no list 'data'; is base_url the address of an OpenAI-compatible API?"
        )
    if len(data) != texts:
        raise InferenceError(f"the API answered with {len(data)} vectors for {texts} texts")
    entries = _in_order(data)
    rows = [_parse_vector(entry.get("embedding"), index) for index, entry in enumerate(entries)]
    size = len(rows[0]) if dimension is None else dimension
    for index, row in enumerate(rows):
        if len(row) != size or not size:
            raise InferenceError(
                f"the API's vector for text {index} has {len(row)} values where {size} are expected; an API that "
                "ignores `dimensions` can only be asked without it",
                index,
            )
    own = [one for entry in entries if isinstance(one := entry.get("akidb"), dict)]
    counts = [count for one in own if _is_count(count := one.get("tokens"))]
    cut = [flag for one in own if isinstance(flag := one.get("truncated"), bool)]
    described = len(counts) == len(cut) == texts
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    model = answer.get("model")
    return Answer(
        vectors=np.stack(rows),
        model=model if isinstance(model, str) else None,
        tokens=tokens if _is_count(tokens) else None,
        token_counts=counts if described else None,
        truncated=cut if described else None,
    )


def unit_vectors(vectors: Vectors, first: int) -> Vectors:
    """Return vectors of length 1; those that have it already are passed on to the bit.

    Args:
        vectors: (texts, dimension) float32.
        first: the index, in the caller's list, of the first text.

    Raises:
        InferenceError: one is not finite or has no length; `index` holds which.
    """
    with np.errstate(all="ignore"):
        wide = vectors.astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    sound = np.isfinite(lengths) & (lengths > 0)
    if not sound.all():
        index = first + int(np.argmin(sound))
        raise InferenceError(f"the API's vector for text {index} is not finite or has no length", index)
    scales = np.where(np.abs(lengths - 1) <= _UNIT_TOLERANCE, 1.0, lengths)
    return np.ascontiguousarray((wide / scales[:, None]).astype(np.float32))


def _in_order(data: list[Any]) -> list[dict[str, Any]]:
    entries: dict[int, dict[str, Any]] = {}
    for entry in data:
        index = entry.get("index") if isinstance(entry, dict) else None
        if not _is_count(index) or index >= len(data) or index in entries:
            raise InferenceError(
                f"the API's answer to {len(data)} texts has an entry of index {reprlib.repr(index)}, which is missing, "
                "repeated or out of range"
            )
        entries[index] = entry
    return [entries[index] for index in range(len(data))]


def _parse_vector(value: Any, index: int) -> Any:
    """Return a vector that is sent as numbers, or in base64 as little-endian float32."""
    try:
        if isinstance(value, str):
            return np.frombuffer(b64decode(value, validate=True), "<f4").astype(np.float32)
        if isinstance(value, list) and all(type(one) in (int, float) for one in value):
            with np.errstate(over="ignore"):  # found by the check of all values
                return np.array(value, np.float64).astype(np.float32)
    except (Base64Error, ValueError, OverflowError) as error:
        raise InferenceError(f"the API's vector for text {index} cannot be read: {error}", index) from error
    raise InferenceError(
        f"the API's vector for text {index} must be numbers or base64, found {reprlib.repr(value)}", index
    )


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
