"""The steps that all adapters take: from a model's name to an embedder, and from texts to vectors by their role."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from akidb_mlx.embedder import Embedder, wait_async
from akidb_mlx.options import EmbedOptions, OverflowPolicy

if TYPE_CHECKING:
    from akidb_mlx.quantized import OutputVectors
    from akidb_mlx.vectors import EmbeddingBatch

logger = logging.getLogger(__name__)

# The embedders that adapters of this process use now; two adapters of one model share its weights.
_embedders: weakref.WeakValueDictionary[tuple[str, str | None], Embedder] = weakref.WeakValueDictionary()
_lock = threading.Lock()


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Say which extra is missing where an import fails.

    Raises:
        ImportError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}: run `pip install 'akidb-mlx[{name}]'`") from error


def shared_embedder(model: str, device: str | None) -> Embedder:
    """Return the embedder of a model, loaded once for all adapters.

    Raises:
        AkidbMlxError: it cannot be loaded.
    """
    from akidb_mlx.service import EmbeddingService

    with _lock:
        embedder = _embedders.get((model, device))
        if embedder is None or embedder.get_model_info()["status"] in ("closed", "failed"):
            _embedders[model, device] = embedder = EmbeddingService(model, device=device)
    return embedder


class RoleEmbedder:
    """Embeds queries and documents, each with its own prompt where the model has one."""

    def __init__(
        self,
        model: str | Embedder,
        *,
        device: str | None = None,
        dimensions: int | None = None,
        on_overflow: OverflowPolicy = "truncate",
    ) -> None:
        """Load a model, or take an embedder.

        Args:
            model: as `EmbeddingService` takes it, or an embedder, whose owner closes it.
            device: "auto", "gpu" or "cpu"; the settings' if None.
            dimensions: how many values a vector has; the model's default if None.
            on_overflow: how a text is treated that is longer than the model takes.

        Raises:
            AkidbMlxError: the model cannot be loaded, or an option does not fit it.
        """
        self.embedder = model if isinstance(model, Embedder) else shared_embedder(str(model), device)
        self._options: EmbedOptions = {"dimensions": dimensions, "on_overflow": on_overflow}
        self.dimension = self.embedder.parse_options(self._options).dimensions

    def embed(self, texts: Sequence[str], input_type: str | None) -> OutputVectors:
        """Return the vectors of texts, (texts, dimension) float32; see `Embedder.embed_detailed`."""
        return self._vectors(self.embedder.embed_detailed(texts, **self._for(input_type)))

    async def aembed(self, texts: Sequence[str], input_type: str | None) -> OutputVectors:
        """Return the vectors of texts without blocking the event loop; see `embed`."""
        return self._vectors(await wait_async(partial(self.embedder.submit, texts, **self._for(input_type))))

    def _for(self, input_type: str | None) -> EmbedOptions:
        return {**self._options, "input_type": input_type}

    def _vectors(self, batch: EmbeddingBatch) -> OutputVectors:
        """Return the vectors of a batch, and warn of texts that were cut, for which frameworks have no place."""
        if cut := sum(batch.truncated):
            limit = self.embedder.max_tokens
            logger.warning(
                "%d of %d texts were cut to %d tokens, the limit of %s", cut, len(batch.truncated), limit, batch.model
            )
        return batch.vectors
