"""The requests and answers of AkiDB's protocol, each a JSON object on a line."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from typing_extensions import Never

from akidb_mlx.errors import InferenceError, InvalidInputError
from akidb_mlx.quantized import OutputVectors
from akidb_mlx.vectors import EmbeddingBatch

# Writes vectors in a twentieth of the time; of the extra `stdio`.
_orjson: Any = import_module("orjson") if find_spec("orjson") else None
# Most texts in one request.
MAX_TEXTS = 100_000
# The folder that AkiDB's client always names; users cannot change it, so it stands for that of the settings.
_CLIENT_CACHE_DIR = "~/.cache/akidb/models"
# Keys beside `method` and `params` that JSON-RPC knows, and that change nothing about an answer.
_ENVELOPE = frozenset({"method", "params", "id", "jsonrpc"})
# Vectors that are written as JSON at a time.
_ROWS = 256


@dataclass(frozen=True)
class Ping:
    """Asks for a sign of life."""


@dataclass(frozen=True)
class LoadModel:
    """Asks for a model to be loaded.

    Attributes:
        model: the model's name.
        cache_dir: the folder that models lie in; None for that of the settings.
    """

    model: str
    cache_dir: str | None


@dataclass(frozen=True)
class EmbedBatch:
    """Asks for the vectors of texts by a model that was loaded.

    Attributes:
        model: the model's name.
        inputs: the texts, which are still to be checked.
        normalize: whether vectors are divided by their length.
    """

    model: str
    inputs: list[Any]
    normalize: bool


Request = Ping | LoadModel | EmbedBatch


def parse_request(line: bytes) -> Request:
    """Return the request on a line.

    Raises:
        InvalidInputError: the line holds none; the message says why.
    """
    content = _decode(line)
    if not isinstance(content, dict):
        raise InvalidInputError(f"a request must be a JSON object, found {type(content).__name__}")
    _refuse_others("a request", content, _ENVELOPE)
    method, params = content.get("method"), content.get("params", {})
    if not isinstance(params, dict):
        raise InvalidInputError(f"params must be a JSON object, found {type(params).__name__}")
    if method == "ping":
        return Ping()
    if method == "load_model":
        _refuse_others("load_model", params, {"model", "cache_dir"})
        return LoadModel(_string(params, "model"), _cache_dir(params))
    if method == "embed_batch":
        _refuse_others("embed_batch", params, {"model", "inputs", "normalize"})
        return EmbedBatch(_string(params, "model"), _inputs(params), _normalize(params))
    raise InvalidInputError(f"method must be ping, load_model or embed_batch, found {reprlib.repr(method)}")


def encode_answer(status: str, message: str, **others: object) -> bytes:
    """Return an answer without vectors as a line."""
    return _dump({"status": status, "message": message, **others}) + b"\n"


def encode_batch(batch: EmbeddingBatch) -> Iterator[bytes]:
    """Return the answer to an `EmbedBatch` as a line, in pieces.

    Every reader turns the numbers back into the same float32: orjson writes the fewest digits that do so, and without
    it each is written as the float64 of the same value.

    Raises:
        InferenceError: a value is not finite.
    """
    if not np.isfinite(batch.vectors).all():  # an engine has refused such a vector before
        raise InferenceError("a vector is not finite")
    return _pieces(batch)


def _pieces(batch: EmbeddingBatch) -> Iterator[bytes]:
    opening = b'{"status":"ok","embeddings":['
    for start in range(0, len(batch.vectors), _ROWS):
        yield opening + _dump_rows(batch.vectors[start : start + _ROWS])[1:-1]
        opening = b","
    cut = sum(batch.truncated)
    others = {
        "dimension": batch.dimension,
        "count": len(batch.token_counts),
        "token_counts": batch.token_counts,
        "truncated": batch.truncated,
        **({"message": f"{cut} of {len(batch.truncated)} texts were cut to the model's limit"} if cut else {}),
    }
    yield (b"" if len(batch.vectors) else opening) + b"]," + _dump(others)[1:] + b"\n"


def _dump_rows(rows: OutputVectors) -> bytes:
    if _orjson is None:
        return _dump(rows.tolist())
    dumped: bytes = _orjson.dumps(rows, option=_orjson.OPT_SERIALIZE_NUMPY)
    return dumped


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"a request must be UTF-8: {error}") from error
    except RecursionError as error:
        raise InvalidInputError("a request is nested too deeply") from error
    except ValueError as error:
        raise InvalidInputError(f"a request must be a JSON object on one line: {error}") from error


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _refuse_others(where: str, found: dict[str, Any], known: frozenset[str] | set[str]) -> None:
    if others := sorted(set(found) - known):
        names = ", ".join(map(reprlib.repr, others[:5]))
        raise InvalidInputError(f"{where} has no key {names}; known: {', '.join(sorted(known))}")


def _string(params: dict[str, Any], name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"params.{name} must be a string that is not empty, found {reprlib.repr(value)}")
    return value


def _cache_dir(params: dict[str, Any]) -> str | None:
    if params.get("cache_dir") in (None, _CLIENT_CACHE_DIR):
        return None
    return _string(params, "cache_dir")


def _inputs(params: dict[str, Any]) -> list[Any]:
    inputs = params.get("inputs")
    if not isinstance(inputs, list):
        raise InvalidInputError(f"params.inputs must be a list of strings, found {type(inputs).__name__}")
    if len(inputs) > MAX_TEXTS:
        raise InvalidInputError(f"params.inputs has {len(inputs)} texts: send at most {MAX_TEXTS} in a request")
    return inputs


def _normalize(params: dict[str, Any]) -> bool:
    normalize = params.get("normalize", True)
    if not isinstance(normalize, bool):
        raise InvalidInputError(f"params.normalize must be true or false, found {reprlib.repr(normalize)}")
    return normalize


def _dump(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
