"""The description of a model of any kind: an embedding model, a reranker, a sparse or a multi-vector model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from akidb_mlx.checkpoint.checkpoint import Checkpoint, read_checkpoint
from akidb_mlx.checkpoint.files import read_optional_json
from akidb_mlx.checkpoint.multi_vector import read_multi_vector
from akidb_mlx.checkpoint.purpose import check_is_embedder, find_kind
from akidb_mlx.checkpoint.reranker import read_reranker
from akidb_mlx.checkpoint.sparse import read_sparse
from akidb_mlx.errors import ModelLoadError


def read_any(directory: Path) -> Checkpoint:
    """Read a model as the kind that its files state first, then as each other: a reranker may state none.

    A causal model that nothing shows to be an embedding model is read as one if it is of no other kind.

    Raises:
        ModelLoadError: it is of no kind that is supported; the reason is that of the first.
    """
    stated = find_kind(read_optional_json(directory / "config_sentence_transformers.json"))
    first: ModelLoadError | None = None
    for kind in sorted(_READERS, key=lambda kind: kind != stated):
        try:
            return _READERS[kind](directory)
        except ModelLoadError as error:
            first = first or error
    try:
        return read_checkpoint(directory)
    except ModelLoadError:
        assert first is not None
        raise first from None


def _read_embedder(directory: Path) -> Checkpoint:
    checkpoint = read_checkpoint(directory)
    check_is_embedder(checkpoint)
    return checkpoint


# By sentence-transformers' names of their classes.
_READERS: Mapping[str, Callable[[Path], Checkpoint]] = {
    "SentenceTransformer": _read_embedder,
    "CrossEncoder": read_reranker,
    "SparseEncoder": read_sparse,
    "MultiVectorEncoder": read_multi_vector,
}
