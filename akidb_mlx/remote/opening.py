"""From the arguments of an `EmbeddingService` to an embedder whose model is behind an API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.options import refuse_arguments
from akidb_mlx.remote.access import PREFIX

if TYPE_CHECKING:
    from akidb_mlx.remote.embedder import OpenAIEmbedder


def is_remote(model_name: object) -> TypeGuard[str]:
    """Return whether a model's name is that of one behind an API."""
    return isinstance(model_name, str) and model_name.startswith(PREFIX)


def open_remote(
    model_name: str,
    *,
    base_url: str | None = None,
    dimensions: int | None = None,
    backend: str | None = None,
    onnx_file: str | None = None,
    settings: Any = None,
    device: str | None = None,  # noqa: ARG001 - the other server's is not chosen here
    auto_download: bool = True,  # noqa: ARG001 - nothing is downloaded
    **unknown: Any,
) -> OpenAIEmbedder:
    """Return an embedder; see `EmbeddingService`.

    Raises:
        ConfigurationError: an argument says how this process is to compute.
        AkidbMlxError: as `OpenAIEmbedder` raises.
    """
    from akidb_mlx.remote.embedder import OpenAIEmbedder

    refuse_arguments(unknown)
    for name, value in (("backend", backend), ("onnx_file", onnx_file)):
        if value not in (None, "auto"):
            raise ConfigurationError(f"{name} is {value!r}, and another server computes {model_name}: leave it out")
    return OpenAIEmbedder(model_name, base_url=base_url, dimensions=dimensions, settings=settings)
