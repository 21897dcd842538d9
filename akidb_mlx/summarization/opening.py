"""From the name of a language model to one that can be asked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from typing_extensions import TypedDict

from akidb_mlx.backends.llama_cpp import runtime as llama_cpp
from akidb_mlx.catalog import SUMMARY_CATALOG
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.remote.opening import is_remote
from akidb_mlx.resolve import acquire_directory, acquire_gguf, is_gguf, resolve_device
from akidb_mlx.runtime.mlx_import import check_installed
from akidb_mlx.settings import Settings
from akidb_mlx.summarization.chat_model import ChatModel
from akidb_mlx.summarization.generator import TextGenerator
from akidb_mlx.summarization.remote_model import RemoteChatModel
from model_cache.names import is_commit


class ModelSource(TypedDict):
    """The origin of a language model."""

    model_name: str
    revision: str | None
    path: str


def open_chat_model(
    resources: ExitStack,
    name: str,
    *,
    base_url: str | None,
    context_tokens: int | None,
    device: str | None,
    auto_download: bool,
    settings: Settings,
) -> tuple[ChatModel, ModelSource]:
    """Return a language model, which lives until `resources` is closed, and its origin; see `Summarizer`.

    Raises:
        AkidbMlxError: as `Summarizer` raises.
    """
    if is_remote(name):
        remote = RemoteChatModel(name, base_url, context_tokens, settings)
        resources.callback(remote.close)
        return remote, {"model_name": name, "revision": None, "path": remote.address}
    if base_url is not None:
        raise InvalidInputError(f"base_url goes with a model 'openai:NAME', found {name[:100]!r}")
    if is_gguf(name):
        llama_cpp.check_installed()
        file = acquire_gguf(resources, name, settings, auto_download)
        device_name = resolve_device(device, settings)
        gguf = TextGenerator(file, device_name, context_tokens, settings.stuck_after_s, gguf=True)
        resources.callback(gguf.close)
        return gguf, {"model_name": name, "revision": _revision(file.parent), "path": str(file)}
    check_installed()
    directory = acquire_directory(resources, name, SUMMARY_CATALOG, settings, auto_download)
    generator = TextGenerator(
        directory, resolve_device(device, settings), context_tokens, settings.stuck_after_s, settings.allow_tf32
    )
    resources.callback(generator.close)
    return generator, {"model_name": name, "revision": _revision(directory), "path": str(directory)}


def _revision(directory: Path) -> str | None:
    """Return the commit that a directory of the cache is of; None for any other directory."""
    return directory.name if is_commit(directory.name) else None
