"""The embedding models of the program `llm`: `llm embed -m akidb/minilm-l6-v2 -c "a text"`.

`llm` finds this module by its entry point. Each embedding model of the catalogue is one of its models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from akidb_mlx.catalog import CATALOG
from akidb_mlx.errors import AkidbMlxError
from akidb_mlx.integrations.shared import RoleEmbedder, needs_extra

with needs_extra("llm"):
    import llm
    from click import ClickException


@llm.hookimpl
def register_embedding_models(register: Any) -> None:
    """Tell `llm` of the models; none is loaded before it is used."""
    for record in CATALOG.values():
        if record.task == "embedding":
            register(AkidbEmbeddingModel(record.name))


class AkidbEmbeddingModel(llm.EmbeddingModel):
    """A model of the catalogue."""

    batch_size = 512

    def __init__(self, name: str) -> None:
        self.model_id = f"akidb/{name}"
        self._name = name
        self._embedder: RoleEmbedder | None = None

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        """Yield the vector of each text, without a prompt: `llm` does not tell queries from documents.

        Raises:
            ClickException: the model cannot be loaded, or a text not embedded; `llm` shows the message only.
        """
        try:
            if self._embedder is None:
                self._embedder = RoleEmbedder(self._name)
            vectors: list[list[float]] = self._embedder.embed(cast("list[str]", list(items)), None).tolist()
        except AkidbMlxError as error:
            raise ClickException(str(error)) from error
        yield from vectors
