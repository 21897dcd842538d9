"""The tokens of a model of llama.cpp's."""

from __future__ import annotations

import ctypes

import numpy as np

from akidb_mlx.backends.llama_cpp.runtime import LoadedGguf, import_llama_cpp
from akidb_mlx.vectors import TokenIds

_LONGEST_PIECE = 64


class Vocabulary:
    """Texts to tokens and back; safe to use from any thread."""

    def __init__(self, model: LoadedGguf) -> None:
        self._library = import_llama_cpp()
        self._model = model  # which is kept while this is used
        self.size: int = self._library.llama_vocab_n_tokens(model.vocabulary)

    def tokenize(self, text: str, *, add_special: bool = False, control: bool = False) -> TokenIds:
        """Return the token ids of a text.

        Args:
            text: the text.
            add_special: whether the special tokens around it are added as the file says.
            control: whether control tokens that are written in it become such; otherwise they stay texts.
        """
        written = text.encode()
        size = len(written) + 16
        while True:
            ids: TokenIds = np.empty(size, np.int32)
            place = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = self._library.llama_tokenize(
                self._model.vocabulary, written, len(written), place, size, add_special, control
            )
            if count >= 0:
                found: TokenIds = ids[:count].copy()
                return found
            size = -count

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes that a token stands for; of a control token its name if `special`, else none."""
        size = _LONGEST_PIECE
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._library.llama_token_to_piece(self._model.vocabulary, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def control_tokens(self) -> dict[int, str]:
        """Return the tokens by their numbers that a text may hold and that steer a model: all that show something."""
        library, vocabulary = self._library, self._model.vocabulary
        marks = library.LLAMA_TOKEN_ATTR_CONTROL | library.LLAMA_TOKEN_ATTR_USER_DEFINED
        steering = [token for token in range(self.size) if library.llama_vocab_get_attr(vocabulary, token) & marks]
        texts = {token: self.piece(token, special=True).decode(errors="replace") for token in steering}
        return {token: text for token, text in texts.items() if text.strip(" \t\r\n\u2581")}

    def is_control(self, token: int) -> bool:
        """Return whether a token stands for no text."""
        return bool(self._library.llama_vocab_is_control(self._model.vocabulary, token))

    def ends_answer(self, token: int) -> bool:
        """Return whether a model ends its answer by a token."""
        return bool(self._library.llama_vocab_is_eog(self._model.vocabulary, token))

    def first(self) -> list[int]:
        """Return the token that stands at the beginning of every text, if the file asks for one."""
        if not self._library.llama_vocab_get_add_bos(self._model.vocabulary):
            return []
        return [int(self._library.llama_vocab_bos(self._model.vocabulary))]

    def name(self, kind: str) -> str:
        """Return the name of the special token "bos" or "eos", "" where there is none."""
        token = int(getattr(self._library, f"llama_vocab_{kind}")(self._model.vocabulary))
        return "" if token < 0 else self.piece(token, special=True).decode(errors="replace")
