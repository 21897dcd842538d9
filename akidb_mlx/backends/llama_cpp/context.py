"""The memory in which llama.cpp computes: a batch of texts, or a text that it continues."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from akidb_mlx.backends.llama_cpp.runtime import LoadedGguf, complaint, import_llama_cpp
from akidb_mlx.errors import InferenceError
from akidb_mlx.vectors import TokenIds, Vectors

# Tokens that a context has room for at first; it grows with its batches.
_FIRST_TOKENS = 512
# Most sequences of one context, llama.cpp's own limit.
_MAX_SEQUENCES = 64
# GGML's number for float32, in which keys and values are kept, so that they are as exact as the rest.
_FLOAT32 = 0
_NO_FLASH_ATTENTION = 0


class EmbeddingContext:
    """A context of a model; for one thread at a time."""

    def __init__(self, model: LoadedGguf, threads: int) -> None:
        """Prepare one.

        Args:
            model: the model.
            threads: how many compute a batch; 0 lets llama.cpp choose.
        """
        self._library = import_llama_cpp()
        self._model = model
        self._threads = threads
        self._room = 0
        self._context: Any = None

    def embed(self, sequences: Sequence[TokenIds]) -> Vectors:
        """Return the pooled vectors of sequences, (sequences, dimension) float32.

        Raises:
            InferenceError: llama.cpp cannot compute them.
        """
        parts: list[Vectors] = []
        for first in range(0, len(sequences), _MAX_SEQUENCES):
            parts.append(self._run(sequences[first : first + _MAX_SEQUENCES]))
        return np.concatenate(parts)

    def close(self) -> None:
        """Free it. Idempotent."""
        if self._context:
            self._library.llama_free(self._context)
            self._context = None
        self._room = 0

    def _run(self, sequences: Sequence[TokenIds]) -> Vectors:
        library = self._library
        lengths = [len(ids) for ids in sequences]
        tokens = sum(lengths)
        self._make_room(tokens)
        arrays = (
            np.concatenate(sequences).astype(np.int32),
            np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            np.ones(tokens, np.int32),
            np.repeat(np.arange(len(sequences), dtype=np.int32), lengths),
            np.ones(tokens, np.int8),
        )
        ids, positions, counts, numbers, wanted = (array.ctypes.data for array in arrays)
        # llama.cpp takes a list of sequences for each token: the addresses of lists of one number.
        lists = numbers + 4 * np.arange(tokens, dtype=np.uintp)
        types = dict(library.llama_batch._fields_)
        batch = library.llama_batch(
            tokens,
            ctypes.cast(ids, types["token"]),
            None,
            ctypes.cast(positions, types["pos"]),
            ctypes.cast(counts, types["n_seq_id"]),
            ctypes.cast(lists.ctypes.data, types["seq_id"]),
            ctypes.cast(wanted, types["logits"]),
        )
        memory = library.llama_get_memory(self._context)
        if memory:  # a decoder keeps keys and values, those of earlier batches too
            library.llama_memory_clear(memory, True)
            status = library.llama_decode(self._context, batch)
        else:
            status = library.llama_encode(self._context, batch)
        if status != 0:
            raise InferenceError(f"llama.cpp cannot compute a batch of {tokens} tokens: {complaint() or status}")
        vectors = np.empty((len(sequences), library.llama_model_n_embd_out(self._model.handle)), np.float32)
        for number in range(len(sequences)):
            found = library.llama_get_embeddings_seq(self._context, number)
            if not found:
                raise InferenceError("llama.cpp computed no vector for a sequence")
            vectors[number] = np.ctypeslib.as_array(found, (vectors.shape[1],))
        return vectors

    def _make_room(self, tokens: int) -> None:
        """Replace the context by a larger one where a batch has more tokens than it takes."""
        if tokens <= self._room:
            return
        self.close()
        library = self._library
        room = max(_FIRST_TOKENS, 1 << (tokens - 1).bit_length())
        parameters = library.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = room
        parameters.n_seq_max = _MAX_SEQUENCES
        parameters.embeddings = True
        parameters.kv_unified = True
        parameters.flash_attn_type = _NO_FLASH_ATTENTION
        parameters.type_k = parameters.type_v = _FLOAT32
        if self._threads:
            parameters.n_threads = parameters.n_threads_batch = self._threads
        self._context = library.llama_init_from_model(self._model.handle, parameters)
        if not self._context:
            raise InferenceError(f"llama.cpp cannot make room for {room} tokens: {complaint() or 'out of memory?'}")
        self._room = room


class GenerationContext:
    """The memory of one text that a model reads and continues; for one thread at a time."""

    def __init__(self, model: LoadedGguf, threads: int) -> None:
        """Prepare one; `threads` compute each step."""
        self._library = import_llama_cpp()
        self._model = model
        self._threads = threads
        self._tokens: int = self._library.llama_vocab_n_tokens(model.vocabulary)
        self._room = 0
        self._context: Any = None

    def begin(self, tokens: int) -> None:
        """Forget the text before, and make room for one of so many tokens.

        Raises:
            InferenceError: llama.cpp cannot make room.
        """
        if tokens > self._room:
            self.close()
            room = max(_FIRST_TOKENS, 1 << (tokens - 1).bit_length())
            parameters = self._library.llama_context_default_params()
            parameters.n_ctx = room
            parameters.n_batch = parameters.n_ubatch = min(room, _FIRST_TOKENS)
            parameters.n_threads = parameters.n_threads_batch = self._threads
            self._context = self._library.llama_init_from_model(self._model.handle, parameters)
            if not self._context:
                raise InferenceError(f"llama.cpp cannot make room for {room} tokens: {complaint() or 'out of memory?'}")
            self._room = room
        memory = self._library.llama_get_memory(self._context)
        if not memory:
            raise InferenceError("the model in this GGUF file continues no texts: name a chat model")
        self._library.llama_memory_clear(memory, True)

    def read(self, ids: Sequence[int]) -> None:
        """Read the next tokens of the text.

        Raises:
            InferenceError: llama.cpp cannot compute them.
        """
        if min(ids) < 0 or max(ids) >= self._tokens:
            raise InferenceError(f"a text holds the tokens {min(ids)} to {max(ids)}, and the model has {self._tokens}")
        array = (ctypes.c_int32 * len(ids))(*ids)
        status = self._library.llama_decode(self._context, self._library.llama_batch_get_one(array, len(ids)))
        if status != 0:
            raise InferenceError(f"llama.cpp cannot compute {len(ids)} tokens: {complaint() or status}")

    def likeliest(self, without: Collection[int]) -> int:
        """Return the likeliest next token, which is none of some.

        Raises:
            InferenceError: the model computed something that is not finite.
        """
        logits = np.ctypeslib.as_array(self._library.llama_get_logits_ith(self._context, -1), (self._tokens,))
        if not np.isfinite(logits).all():
            raise InferenceError("the model computed values that are not finite: its weights are damaged")
        if without:
            logits = logits.copy()
            logits[list(without)] = -np.inf
        return int(logits.argmax())

    def close(self) -> None:
        """Free the memory. Idempotent."""
        if self._context:
            self._library.llama_free(self._context)
            self._context = None
        self._room = 0
