"""A language model's tokenizer, which keeps messages from becoming tokens that steer the model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from akidb_mlx.errors import ModelLoadError


class ChatTokenizer:
    """A tokenizer with the model's chat template; safe to use from any thread.

    Attributes:
        has_template: whether the model has a chat template; one that was not trained to answer has none.
        stop_ids: the tokens that end an answer: the model's end of text, and every special token but those of thinking.
        thinking: the marks before and after the thoughts of a model that thinks before it answers.
    """

    def __init__(self, wrapper: Any) -> None:
        """Take over a tokenizer that mlx_lm loaded.

        Args:
            wrapper: mlx_lm's TokenizerWrapper.

        Raises:
            ModelLoadError: its template cannot be used.
        """
        self._wrapper = wrapper
        # Used directly: transformers' own calls set truncation and padding, which is not safe under threads.
        self._tokenizer = wrapper.backend_tokenizer
        added = self._tokenizer.get_added_tokens_decoder()
        self._control_ids = {token for token, one in added.items() if one.special or one.content.strip(" \t\r\n▁")}
        self.thinking: tuple[str, str] = (wrapper.think_start or "<think>", wrapper.think_end or "</think>")
        self.stop_ids: frozenset[int] = frozenset(wrapper.eos_token_ids) | {
            token for token, one in added.items() if one.special and one.content not in self.thinking
        }
        self.has_template: bool = wrapper.has_chat_template
        bos = wrapper.bos_token_id
        self._begins_with = [bos] if bos is not None and bos in self._tokenizer.encode("a").ids[:1] else []
        if self.has_template:
            self.render("a")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; marks of the chat template in it become control tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_from_start(self, text: str) -> list[int]:
        """Return the tokens of a text that stands at the beginning of a prompt without a template."""
        return self._begins_with + self.encode(text)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has."""
        return [len(one) for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def cut(self, text: str, tokens: int) -> list[str]:
        """Cut a text into pieces of at most about so many tokens, which together are the text."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        borders = [0, *(start for start, _ in offsets[tokens::tokens]), len(text)]
        return [text[start:end] for start, end in pairwise(borders) if end > start]

    def inert(self, text: str) -> str:
        """Change a text so that no part of it becomes a control token: "<|im_end|>" to "< |im_end|>"."""
        while spans := self._control_spans(text):
            parts, position = [], 0
            for start, end in spans:
                # A space after its first character breaks a token up; one of a single character is left out.
                parts += [text[position:start], text[start : start + 1] + " " if end - start > 1 else " "]
                position = start + 1
            text = "".join(parts) + text[position:]
        return text

    def render(self, content: str) -> str:
        """Render a conversation in which the user says `content`, up to the model's answer; thinking is switched off.

        Raises:
            ModelLoadError: the model's template fails on it.
        """
        try:
            rendered: str = self._wrapper.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        except Exception as error:
            raise ModelLoadError(
                f"the model's chat template failed: {type(error).__name__}: {error}; use another model"
            ) from error
        return rendered

    def _control_spans(self, text: str) -> list[tuple[int, int]]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = zip(encoding.ids, encoding.offsets, strict=True)
        return sorted({(start, end) for token, (start, end) in offsets if token in self._control_ids and end > start})
