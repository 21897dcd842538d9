"""SparseEmbedder, which loads a sparse model (SPLADE) into this process."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from numbers import Integral
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict, Unpack

from akidb_mlx.checkpoint.files import read_optional_json
from akidb_mlx.checkpoint.multi_vector_head import Role
from akidb_mlx.checkpoint.prompts import choose_route
from akidb_mlx.checkpoint.sparse import read_sparse
from akidb_mlx.checkpoint.sparse_head import Splade, TokenWeights
from akidb_mlx.checkpoint.tokenizer import TextTokenizer, TokenizedText
from akidb_mlx.deadline import Deadline
from akidb_mlx.embedder import wait_async, wait_for
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import OVERFLOW_POLICIES, OverflowPolicy, is_number
from akidb_mlx.settings import Settings
from akidb_mlx.sparse.vectors import SparseBatch, SparseVector, finish_rows, similarity
from akidb_mlx.text_model import TextModel, check_text_options
from akidb_mlx.vectors import SPARSE, Vectors


class SparseOptions(TypedDict, total=False):
    """The keyword options that every call for sparse vectors takes.

    Attributes:
        prompt: a string to put before each text, in place of the model's prompt for queries or documents; "" for none.
        on_overflow: how a text is treated that is longer than the model takes. "truncate" (default) cuts it and says
            so in `truncated`; "error" refuses it; "chunk" reads all of it in overlapping windows and takes the largest
            weight of each token.
        timeout: seconds that the whole call may take, as in `EmbedOptions`. None (default) waits.
        max_active_dims: keep this many of the largest weights of a text; what the model's files say if not given, and
            all where they are silent.
    """

    prompt: str | None
    on_overflow: OverflowPolicy
    timeout: float | None
    max_active_dims: int | None


class SparseEmbedder(TextModel[SparseBatch]):
    """Turns texts into sparse vectors with one model; safe to call from any thread.

        with SparseEmbedder("opensearch-project/opensearch-neural-sparse-encoding-v2-distill") as sparse:
            documents = sparse.embed_documents(["Berlin is the capital of Germany.", "The museum opens at nine."])
            scores = sparse.similarity(sparse.embed_queries(["capital of Germany"]), documents)

    A vector has a weight for each token of the model's vocabulary, most of them zero. The model runs as an
    `EmbeddingService`'s does: on a thread of its own, in batches that the calls of all threads share.
    """

    def __init__(
        self,
        model_name: str | PathLike[str],
        *,
        device: str | None = None,
        backend: str = "auto",
        auto_download: bool = True,
        settings: Settings | None = None,
    ) -> None:
        """Find, check and load a model; returns when it is ready.

        Args:
            model_name: a catalogue name, "org/repo" or "org/repo@revision" on the Hub, or a local directory.
            device: "auto", "gpu" or "cpu"; the settings' if None.
            backend: the library that computes: "mlx", or "auto" to choose.
            auto_download: whether a model that is not on this machine may be downloaded.
            settings: instead of those from the environment and the TOML file.

        Raises:
            ModelNotFoundError: the model is not on this machine and was not downloaded.
            ModelLoadError: its files are damaged, not supported, or not a sparse model's.
            ConfigurationError: a setting is not usable, or there is no such device or backend.
            InvalidInputError: another argument is not usable.
        """
        super().__init__(
            model_name,
            "sparse",
            read_sparse,
            device=device,
            backend=backend,
            auto_download=auto_download,
            settings=settings,
        )

    def embed_queries(self, texts: Iterable[str], **options: Unpack[SparseOptions]) -> SparseBatch:
        """Return the vectors of queries; see `embed_documents`."""
        return wait_for(partial(self.submit, texts, "query", **options), options.get("timeout"))

    def embed_documents(self, texts: Iterable[str], **options: Unpack[SparseOptions]) -> SparseBatch:
        """Return the vectors of documents.

        Args:
            texts: strings; an empty collection gives an empty result.
            options: see `SparseOptions`.

        Raises:
            InvalidInputError: a text or an option is not usable; `index` holds which text.
            InferenceError: the model computed something that is not a weight.
            DeadlineExceededError: `timeout` passed.
            ServiceOverloadedError: the queue is full; `retry_after_s` says when to try again.
            ServiceClosedError: the embedder takes no more calls.
            ReentrantCallError: the call would wait for the thread that it was made on.
        """
        return wait_for(partial(self.submit, texts, "document", **options), options.get("timeout"))

    async def aembed_queries(self, texts: Iterable[str], **options: Unpack[SparseOptions]) -> SparseBatch:
        """Do the same as `embed_queries` without blocking the event loop; a task that is cancelled drops its texts."""
        return await wait_async(partial(self.submit, texts, "query", **options))

    async def aembed_documents(self, texts: Iterable[str], **options: Unpack[SparseOptions]) -> SparseBatch:
        """Do the same as `embed_documents` without blocking the event loop."""
        return await wait_async(partial(self.submit, texts, "document", **options))

    def submit(self, texts: Iterable[str], role: Role, **options: Unpack[SparseOptions]) -> Future[SparseBatch]:
        """Check and tokenise texts now, while the first of them may already run; see `embed_documents`.

        Args:
            texts: strings.
            role: "query" or "document".
            options: see `SparseOptions`.

        Returns:
            A future, as of `EmbeddingService.submit`.
        """
        check_text_options(options, SparseOptions.__annotations__, OVERFLOW_POLICIES)
        head = self._heads[choose_route(self._checkpoint.routes, role)]
        if options.get("on_overflow") == "chunk" and isinstance(head, Splade) and head.strategy == "sum":
            raise InvalidInputError(
                "on_overflow='chunk' takes the largest weight of a text's windows, and this model adds weights up; use "
                "'truncate' or 'error'"
            )
        most = _parse_most("max_active_dims", options.get("max_active_dims"))
        most = self._max_active_dims if most is None else most

        def finish(rows: list[NDArray[Any]], read: list[TokenizedText], first: int) -> list[NDArray[Any]]:
            return finish_rows(rows, [len(text.windows) for text in read], most, first)

        return self._submit(texts, role, finish, self._combine, options)

    def similarity(self, queries: SparseBatch, documents: SparseBatch) -> Vectors:
        """Return the dot product of each query with each document, (queries, documents) float32.

        A model whose files name the cosine as its similarity has that.
        """
        return similarity(queries, documents, self._similarity)

    def decode(
        self, vectors: SparseBatch | SparseVector, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """Return the tokens of a vector with their weights, the largest first; for a batch a list of such lists.

        Args:
            vectors: one or several.
            top_k: how many tokens of a vector to return at most; None for all.
        """
        most = _parse_most("top_k", top_k)
        if isinstance(vectors, SparseBatch):
            return [self._decode(vector, most) for vector in vectors]
        if not isinstance(vectors, SparseVector):
            raise InvalidInputError(f"decode takes a SparseBatch or a SparseVector, found {type(vectors).__name__}")
        return self._decode(vectors, most)

    def _decode(self, vector: SparseVector, most: int | None) -> list[tuple[str, float]]:
        order = np.argsort(-vector.values, kind="stable")[:most]
        tokenizer = self._tokenizers["document"]
        return [(tokenizer.token(int(vector.indices[i])) or "", float(vector.values[i])) for i in order]

    def _prepare(self) -> None:
        """Load the tokenizer of each role, and what the model's files say of results."""
        checkpoint = self._checkpoint
        assert checkpoint.sparse is not None
        self._heads = checkpoint.sparse
        model = read_optional_json(self._directory / "config_sentence_transformers.json")
        listed = (self._directory / "modules.json").is_file()
        self._max_active_dims: int | None = model.get("max_active_dims") if listed else None
        self._similarity = (model.get("similarity_fn_name") if listed else None) or "dot"
        framed = TextTokenizer(checkpoint)
        self._tokenizers: dict[Role, TextTokenizer] = {"query": framed, "document": framed}
        for role in self._tokenizers:
            head = self._heads[checkpoint.routes[role]] if role in checkpoint.routes else None
            if isinstance(head, TokenWeights):
                self._tokenizers[role] = TextTokenizer(
                    replace(checkpoint, directory=head.folder, lower_case=False), framed=False
                )

    def _read(
        self, texts: list[str], prompt: str, role: Role, on_overflow: OverflowPolicy, first: int, deadline: Deadline
    ) -> tuple[list[TokenizedText], BatchKey]:
        read = self._tokenizers[role](texts, prompt, on_overflow, first, deadline)
        return read, BatchKey(route=choose_route(self._checkpoint.routes, role))

    def _combine(self, parts: list[list[NDArray[Any]]], token_counts: list[int], truncated: list[bool]) -> SparseBatch:
        rows = [row for part in parts for row in part]
        entries = np.concatenate([np.empty(0, SPARSE), *rows])
        return SparseBatch(
            indices=np.ascontiguousarray(entries["index"]),
            values=np.ascontiguousarray(entries["value"]),
            offsets=np.cumsum([0, *map(len, rows)], dtype=np.int64),
            dimension=self._facts.dimension,
            token_counts=token_counts,
            truncated=truncated,
            model=self._model_name,
        )


def _parse_most(name: str, value: Any) -> int | None:
    """Return how many entries are wanted at most; None for all.

    Raises:
        InvalidInputError: it is no number of 1 or more.
    """
    if value is None:
        return None
    if not is_number(value, Integral) or value < 1:
        raise InvalidInputError(f"{name} must be an integer of 1 or more, or None, found {reprlib.repr(value)}")
    return int(value)
