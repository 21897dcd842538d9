"""Ollama's embeddings, and its lists of models."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from math import inf, isinf
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, WithJsonSchema
from starlette.responses import Response

from akidb_mlx import __version__
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import EmbedOptions
from akidb_mlx.server.body import Body, Input
from akidb_mlx.server.calls import ServerState, embed
from akidb_mlx.server.endpoint import Endpoint, json_response, truncated_header
from akidb_mlx.server.problems import RequestError, ollama_error

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_DURATION = re.compile(rf"([-+]?)((?:{_NUMBER}(?:ns|us|µs|ms|s|m|h))+)")
# What is told of a model that is never unloaded.
_FOREVER = timedelta(days=36_500)

# Options of Ollama that cannot change a vector: what concerns the choice of words, and how the machine is used.
HARMLESS_OPTIONS = frozenset(
    {
        *("frequency_penalty", "min_p", "mirostat", "mirostat_eta", "mirostat_tau", "num_keep", "num_predict"),
        *("penalize_newline", "presence_penalty", "repeat_last_n", "repeat_penalty", "seed", "stop", "temperature"),
        *("tfs_z", "top_k", "top_p", "typical_p"),
        *("low_vram", "main_gpu", "num_batch", "num_gpu", "num_thread", "numa", "use_mlock", "use_mmap"),
    }
)


def parse_keep_alive(value: Any) -> float | None:
    """Return the seconds of a number or of a duration as Go writes it ("5m"); infinity for less than none.

    Raises:
        InvalidInputError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if value >= 0 else inf
    if isinstance(value, str):
        if re.fullmatch(r"[-+]?\d{1,12}", value):
            return parse_keep_alive(int(value))
        if len(value) < 64 and (match := _DURATION.fullmatch(value)):
            parts = re.findall(rf"{_NUMBER}(ns|us|µs|ms|s|m|h)", match[2])
            return inf if match[1] == "-" else sum(float(number) * _UNITS[unit] for number, unit in parts)
    raise InvalidInputError('keep_alive must be a number of seconds or a duration as "5m"')


def _check_options(value: Any) -> Any:
    for name, given in value.items() if isinstance(value, dict) else ():
        if given is not None and name not in HARMLESS_OPTIONS:
            raise InvalidInputError(
                f"options.{name[:40]} is not supported, and ignoring it could change the vectors: leave it out"
            )
    return value


KeepAlive = Annotated[
    float | None,
    BeforeValidator(parse_keep_alive),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]}),
]
Options = Annotated[dict[str, Any] | None, BeforeValidator(_check_options)]


class EmbedBody(Body):
    """The body of POST /api/embed."""

    model_config = ConfigDict(allow_inf_nan=True)  # a model may be kept for ever

    model: str
    input: Input
    truncate: bool | None = None
    dimensions: int | None = None
    options: Options = None
    keep_alive: KeepAlive = None


class EmbeddingsBody(Body):
    """The body of POST /api/embeddings, which is older."""

    model_config = ConfigDict(allow_inf_nan=True)  # a model may be kept for ever

    model: str
    prompt: str
    options: Options = None
    keep_alive: KeepAlive = None


class ShowBody(Body):
    """The body of POST /api/show."""

    harmless: ClassVar[Mapping[str, str]] = {"verbose": "it adds tables of the tokenizer, which have no place here"}

    model: str | None = None
    name: str | None = None


async def create_embeddings(state: ServerState, body: EmbedBody) -> Response:
    """Embed the input."""
    began = time.monotonic()
    options: EmbedOptions = {
        "on_overflow": "error" if body.truncate is False else "truncate",
        "dimensions": body.dimensions,
    }
    name = _plain_name(state, body.model)
    batch = await embed(state, name, body.input, options, field_name="input", keep_alive_s=body.keep_alive)
    return json_response(
        {
            "model": body.model,
            "embeddings": batch.vectors,
            "total_duration": int((time.monotonic() - began) * 1e9),
            "load_duration": 0,
            "prompt_eval_count": sum(batch.token_counts),
            "akidb": {"truncated": batch.truncated, "tokens": batch.token_counts},
        }
    )


async def create_embedding(state: ServerState, body: EmbeddingsBody) -> Response:
    """Embed the prompt."""
    name = _plain_name(state, body.model)
    batch = await embed(state, name, [body.prompt], {}, field_name="prompt", keep_alive_s=body.keep_alive)
    return json_response({"embedding": batch.vectors[0]}, headers=truncated_header(batch.truncated))


async def list_models(state: ServerState) -> Response:
    """List the models that may be asked for."""
    modified = datetime.fromtimestamp(state.started, timezone.utc).isoformat()
    latest = state.models.latest()
    listed = [
        {"modified_at": modified, **_describe(name, latest[name].get_model_info() if name in latest else None)}
        for name in state.models.kinds
    ]
    return json_response({"models": listed})


async def list_loaded(state: ServerState) -> Response:
    """List the models in memory."""
    loaded = await state.models.loaded()
    latest = state.models.latest()
    listed = []
    for name in loaded.keys() & latest.keys():
        left = state.models.expires_in(name)
        until = datetime.now(timezone.utc) + (_FOREVER if isinf(left) else timedelta(seconds=left))
        entry = _describe(name, latest[name].get_model_info())
        listed.append({**entry, "size_vram": entry["size"], "expires_at": until.isoformat()})
    return json_response({"models": listed})


async def show_model(state: ServerState, body: ShowBody) -> Response:
    """Describe a model, which is loaded for it."""
    given = body.model or body.name
    if given is None:
        raise RequestError(400, "invalid_value", "model is missing", "model")
    name = _plain_name(state, given)
    if name not in state.models.kinds:
        state.models.choose(name, "embedder")
    async with state.models.use(name) as model:
        info = model.get_model_info()
    architecture = info["architecture"]
    sizes = {f"{architecture}.context_length": info["max_tokens"]}
    if "native_dimension" in info:
        sizes[f"{architecture}.embedding_length"] = info["native_dimension"]
    return json_response(
        {
            "details": _describe(name, info)["details"],
            "model_info": {"general.architecture": architecture, **sizes},
            "capabilities": ["embedding"] if state.models.kinds[name] == "embedder" else ["rerank"],
        }
    )


async def show_version(_: ServerState) -> Response:
    """Tell the version of this server."""
    return json_response({"version": __version__})


def _plain_name(state: ServerState, name: str) -> str:
    """Return a model's name without the tag that Ollama's clients add."""
    return name if name in state.models.kinds else name.removesuffix(":latest")


def _describe(name: str, info: dict[str, Any] | None) -> dict[str, Any]:
    """Describe a model as far as is known; it is known once it was loaded."""
    family = info["architecture"] if info else ""
    return {
        "name": name,
        "model": name,
        "size": info["weight_bytes"] if info else 0,
        "digest": (info["revision"] or "") if info else "",
        "details": {
            "parent_model": "",
            "format": "safetensors",
            "family": family,
            "families": [family] if family else [],
            "parameter_size": "",
            "quantization_level": (info["quantization"] or info["precision"]) if info else "",
        },
    }


ENDPOINTS = (
    Endpoint("POST", "/api/embed", "Embed texts.", ollama_error, create_embeddings, (EmbedBody,)),
    Endpoint("POST", "/api/embeddings", "Embed a text.", ollama_error, create_embedding, (EmbeddingsBody,)),
    Endpoint("GET", "/api/tags", "List the models.", ollama_error, list_models),
    Endpoint("GET", "/api/ps", "List the models in memory.", ollama_error, list_loaded),
    Endpoint("POST", "/api/show", "Describe a model.", ollama_error, show_model, (ShowBody,)),
    Endpoint("GET", "/api/version", "Tell the version.", ollama_error, show_version),
)
