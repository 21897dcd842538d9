"""The tokenizer that a GGUF file holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from akidb_mlx.backends.llama_cpp.runtime import LoadedGguf
from akidb_mlx.backends.llama_cpp.vocabulary import Vocabulary
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.tokenizer import TextTokenizer, Token
from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.vectors import TokenIds

# A text whose tokens are looked for between the special ones.
_SAMPLE = "a"


class GgufTokenizer(TextTokenizer):
    """llama.cpp's tokenizer, by which control tokens in texts stay texts.

    Attributes:
        vocabulary: the tokens of the file.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Load the vocabulary of a file.

        Raises:
            ModelLoadError: it cannot be loaded, or leaves no room for texts.
            ConfigurationError: llama-cpp-python is not installed.
        """
        self.vocabulary = Vocabulary(LoadedGguf(checkpoint.directory, "cpu", vocabulary_only=True))
        self.max_tokens = checkpoint.max_tokens
        self.keeps_end = False
        self.pair_frame = None
        self._without_vector = {}
        self._prefixes: dict[str, TokenIds] = {}
        self._before, self._after = self._read_frame(checkpoint)
        if self._capacity < 1:
            raise ModelLoadError(
                f"{checkpoint.directory}: {self.max_tokens} tokens leave no room beside the special tokens"
            )

    def encode(self, texts: list[str], deadline: Deadline = NEVER) -> list[TokenIds]:
        """Return the token ids of each text, without special tokens; may be called from any thread."""
        encoded: list[TokenIds] = []
        for text in texts:
            deadline.check()
            encoded.append(self.vocabulary.tokenize(text))
        return encoded

    def tokens(self, *_: Any, **__: Any) -> list[list[Token]]:
        """Refuse to list tokens with their places in the texts, which llama.cpp does not tell.

        Raises:
            InvalidInputError: always.
        """
        raise InvalidInputError(
            "llama.cpp does not tell where a text has its tokens: those of GGUF files are not listed"
        )

    def _read_frame(self, checkpoint: Checkpoint) -> tuple[TokenIds, TokenIds]:
        """Return the special tokens before and after a text."""
        bare, framed = (self.vocabulary.tokenize(_SAMPLE, add_special=special).tolist() for special in (False, True))
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                after = framed[start + len(bare) :]
                return np.array(framed[:start], np.int32), np.array(after, np.int32)
        raise ModelLoadError(f"{checkpoint.directory}: its tokenizer changes a text beside the special tokens")
