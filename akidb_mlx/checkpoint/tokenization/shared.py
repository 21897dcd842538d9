"""Tokenizers of the library that threads share, which it does not allow by itself.

It cannot be interrupted either, so a long text has a tokenizer of its own, which a caller may leave to it.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Encoding, Tokenizer

from akidb_mlx.deadline import Deadline
from akidb_mlx.errors import InferenceError
from akidb_mlx.runtime.abandonment import run_until
from akidb_mlx.runtime.locks import ExclusiveLock, Latch, hold_until


class LockedTokenizer:
    """A tokenizer that one thread uses at a time; those of `tokenizers` may fail when several do."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = ExclusiveLock()

    def encode(self, texts: list[str], deadline: Deadline, offsets: bool = False) -> list[Encoding]:
        """Return the encoding of each text, without special tokens; its tokens' places only with `offsets`.

        Raises:
            InferenceError: the tokenizer failed.
            DeadlineExceededError: the deadline passed while another thread used the tokenizer.
        """
        with hold_until(deadline, self._lock):
            return _encode(self._tokenizer, texts, offsets)


class LongTexts:
    """Tokenises long texts one after another, on a tokenizer of its own that is loaded for the first of them.

    The library cannot be interrupted. A caller whose deadline passes leaves, and the tokenizer is left to the thread
    that still uses it; the next caller gets another. Only callers with a deadline wait for such a thread to end, so
    that there is one at most.
    """

    def __init__(self, load: Callable[[], Tokenizer]) -> None:
        self._load = load
        self._tokenizer: Tokenizer | None = None
        self._abandoned: Latch | None = None
        self._lock = ExclusiveLock()

    def encode(self, texts: list[str], deadline: Deadline, offsets: bool = False) -> list[Encoding]:
        """Return the encoding of each text; takes and raises what `LockedTokenizer.encode` does."""
        while True:
            if (
                deadline.left() is not None
                and self._abandoned is not None
                and not self._abandoned.wait(deadline.left())
            ):
                raise deadline.error()
            with hold_until(deadline, self._lock):
                if deadline.left() is None:
                    self._tokenizer = self._tokenizer or self._load()
                    return _encode(self._tokenizer, texts, offsets)
                if self._abandoned is not None and not self._abandoned.wait(0):
                    continue  # left behind by a caller for whose turn this one waited
                return self._encode_until(texts, deadline, offsets)

    def _encode_until(self, texts: list[str], deadline: Deadline, offsets: bool) -> list[Encoding]:
        """Tokenise on another thread, and leave it with its tokenizer when the deadline passes."""
        kept, load = self._tokenizer, self._load

        def work() -> tuple[Tokenizer, list[Encoding]]:
            tokenizer = kept or load()
            return tokenizer, _encode(tokenizer, texts, offsets)

        def leave(done: Latch) -> None:
            self._tokenizer, self._abandoned = None, done

        self._tokenizer, encodings = run_until(deadline, work, leave)
        return encodings


def _encode(tokenizer: Tokenizer, texts: list[str], offsets: bool) -> list[Encoding]:
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    try:
        return list(encode(texts, add_special_tokens=False))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a native panic is no Exception
        raise InferenceError(f"the tokenizer failed: {type(error).__name__}: {error}") from error
