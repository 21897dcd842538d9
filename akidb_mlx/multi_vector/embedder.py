"""MultiVectorEmbedder, which loads a multi-vector model (ColBERT) into this process."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from os import PathLike

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict, Unpack

from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.multi_vector import read_multi_vector
from akidb_mlx.checkpoint.multi_vector_head import MultiVector, Role
from akidb_mlx.checkpoint.tokenizer import TextTokenizer, TokenizedText
from akidb_mlx.deadline import Deadline
from akidb_mlx.embedder import wait_async, wait_for
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.errors import InferenceError, InvalidInputError, ModelLoadError
from akidb_mlx.multi_vector.vectors import MultiVectorBatch, max_similarity
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.settings import Settings
from akidb_mlx.text_model import TextModel, check_text_options
from akidb_mlx.vectors import TokenIds, Vectors

logger = logging.getLogger(__name__)

_POLICIES = ("truncate", "error")


class MultiVectorOptions(TypedDict, total=False):
    """The keyword options that every call for the vectors of tokens takes.

    Attributes:
        prompt: a string to put before each text, in place of the model's prompt for queries or documents; "" for none.
        on_overflow: how a text is treated that is longer than the model takes. "truncate" (default) cuts it and says
            so in `truncated`; "error" refuses it.
        timeout: seconds that the whole call may take, as in `EmbedOptions`. None (default) waits.
    """

    prompt: str | None
    on_overflow: OverflowPolicy
    timeout: float | None


class MultiVectorEmbedder(TextModel[MultiVectorBatch]):
    """Turns texts into a vector for each token with one model; safe to call from any thread.

        with MultiVectorEmbedder("answerai-colbert-small-v1") as colbert:
            documents = colbert.embed_documents(["Berlin is the capital of Germany.", "The museum opens at nine."])
            scores = colbert.similarity(colbert.embed_queries(["capital of Germany"]), documents)

    The model runs as an `EmbeddingService`'s does: on a thread of its own, in batches that the calls of all threads
    share.
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
            ModelLoadError: its files are damaged, not supported, or not a multi-vector model's.
            ConfigurationError: a setting is not usable, or there is no such device or backend.
            InvalidInputError: another argument is not usable.
        """
        super().__init__(
            model_name,
            "multi-vector",
            read_multi_vector,
            device=device,
            backend=backend,
            auto_download=auto_download,
            settings=settings,
        )

    def embed_queries(self, texts: Iterable[str], **options: Unpack[MultiVectorOptions]) -> MultiVectorBatch:
        """Return the vectors of queries' tokens; see `embed_documents`."""
        return wait_for(partial(self.submit, texts, "query", **options), options.get("timeout"))

    def embed_documents(self, texts: Iterable[str], **options: Unpack[MultiVectorOptions]) -> MultiVectorBatch:
        """Return the vectors of documents' tokens.

        Args:
            texts: strings; an empty collection gives an empty result.
            options: see `MultiVectorOptions`.

        Raises:
            InvalidInputError: a text or an option is not usable; `index` holds which text.
            InferenceError: the model computed something that is not a vector.
            DeadlineExceededError: `timeout` passed.
            ServiceOverloadedError: the queue is full; `retry_after_s` says when to try again.
            ServiceClosedError: the embedder takes no more calls.
            ReentrantCallError: the call would wait for the thread that it was made on.
        """
        return wait_for(partial(self.submit, texts, "document", **options), options.get("timeout"))

    async def aembed_queries(self, texts: Iterable[str], **options: Unpack[MultiVectorOptions]) -> MultiVectorBatch:
        """Do the same as `embed_queries` without blocking the event loop; a task that is cancelled drops its texts."""
        return await wait_async(partial(self.submit, texts, "query", **options))

    async def aembed_documents(self, texts: Iterable[str], **options: Unpack[MultiVectorOptions]) -> MultiVectorBatch:
        """Do the same as `embed_documents` without blocking the event loop."""
        return await wait_async(partial(self.submit, texts, "document", **options))

    def submit(
        self, texts: Iterable[str], role: Role, **options: Unpack[MultiVectorOptions]
    ) -> Future[MultiVectorBatch]:
        """Check and tokenise texts now, while the first of them may already run; see `embed_documents`.

        Args:
            texts: strings.
            role: "query" or "document".
            options: see `MultiVectorOptions`.

        Returns:
            A future, as of `EmbeddingService.submit`.
        """
        if options.get("on_overflow") == "chunk":
            raise InvalidInputError(
                "on_overflow='chunk' is not supported for the vectors of tokens: windows overlap, and would give some "
                "twice; use 'truncate' or 'error', or embed the parts of a text as documents of their own"
            )
        check_text_options(options, MultiVectorOptions.__annotations__, _POLICIES)

        def finish(rows: list[Vectors], read: list[TokenizedText], first: int) -> list[Vectors]:
            texts = zip(rows, read, strict=True)
            return [self._finish(row, text.windows[0], role, index) for index, (row, text) in enumerate(texts, first)]

        return self._submit(texts, role, finish, self._combine, options)

    def similarity(self, queries: Iterable[Vectors], documents: Iterable[Vectors]) -> Vectors:
        """Return the score of each document for each query, (queries, documents) float32.

        It is MaxSim: the largest dot product of each of a query's tokens with a document's tokens, added up. A model
        whose files name `meanmaxsim` has their mean.

        Args:
            queries: a batch, or matrices of vectors.
            documents: likewise.
        """
        return max_similarity(queries, documents, self._head.similarity == "meanmaxsim")

    def _prepare(self) -> None:
        """Load the tokenizer, and find the ids of the tokens that are appended and left out."""
        assert self._checkpoint.multi_vector is not None
        self._head: MultiVector = self._checkpoint.multi_vector
        tokenizer = TextTokenizer(self._checkpoint)
        self._tokenizers = {role: tokenizer.limited(limit) for role, limit in self._head.limits.items()}
        self._skipped = self._skipped_tokens(tokenizer)
        self._appended = self._appended_token(tokenizer)

    def _skipped_tokens(self, tokenizer: TextTokenizer) -> TokenIds:
        numbers = {word: tokenizer.number(word) for word in self._head.skiplist}
        if unknown := [word for word, number in numbers.items() if number is None]:
            logger.warning(
                "%s: the tokenizer has no token %s of the skip list, which is passed over",
                self._model_name,
                cut(" ".join(unknown)),
            )
        return np.array([number for number in numbers.values() if number is not None], np.int32)

    def _appended_token(self, tokenizer: TextTokenizer) -> int:
        """Return the token that expands queries; 0 where none does."""
        expansion = self._head.expansion
        if expansion is None:
            return 0
        if expansion.token is not None:
            number = tokenizer.number(expansion.token)
        else:
            number = tokenizer.special.get("mask_token", tokenizer.special.get("eos_token"))
        if number is None:
            raise ModelLoadError(
                f"{self._directory}: the tokenizer has no token {cut(expansion.token or 'mask_token or eos_token')!r}, "
                "by which queries are expanded"
            )
        return number

    def _read(
        self, texts: list[str], prompt: str, role: Role, on_overflow: OverflowPolicy, first: int, deadline: Deadline
    ) -> tuple[list[TokenizedText], BatchKey]:
        read = self._tokenizers[role](texts, prompt, on_overflow, first, deadline)
        expansion = self._head.expansion
        if role == "document" or expansion is None:
            return read, BatchKey()
        if not expansion.attend:  # no token sees padding, and the model computes its vectors too
            return read, BatchKey(padding=self._appended, floor=expansion.length)
        return [
            TokenizedText((self._expanded(text.windows[0]),), text.token_count, text.truncated) for text in read
        ], BatchKey()

    def _expanded(self, ids: TokenIds) -> TokenIds:
        """Return the tokens of a query with those that are appended to it."""
        expansion = self._head.expansion
        missing = 0 if expansion is None else max(expansion.length - len(ids), 0)
        return np.concatenate([ids, np.full(missing, self._appended, np.int32)])

    def _finish(self, row: Vectors, ids: TokenIds, role: Role, index: int) -> Vectors:
        """Return the vectors of a text that count, of all that the model computed.

        Raises:
            InferenceError: one of them is not finite; the text's index is named.
        """
        tokens = self._expanded(ids) if role == "query" else ids
        vectors: Vectors = row[: len(tokens)]
        if role in self._head.skip_roles:
            vectors = vectors[~np.isin(tokens, self._skipped)]
        vectors = np.array(vectors)  # without the padding, which a view would keep
        if not np.isfinite(vectors).all():
            raise InferenceError(
                f"the model's vectors for text {index} are not finite; the weights may be damaged, or the precision "
                "too narrow for this text (try precision float32)",
                index,
            )
        return vectors

    def _combine(
        self, parts: list[list[NDArray[np.float32]]], token_counts: list[int], truncated: list[bool]
    ) -> MultiVectorBatch:
        return MultiVectorBatch(
            vectors=[vectors for part in parts for vectors in part],
            dimension=self._facts.dimension,
            token_counts=token_counts,
            truncated=truncated,
            model=self._model_name,
        )
