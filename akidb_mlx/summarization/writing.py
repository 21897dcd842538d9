"""The interface of a language model on its owner thread, and what is common to all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from akidb_mlx.summarization.chat_model import ChatFormat

# The share of the available memory that keys and values may take.
MEMORY_SHARE = 0.5
# A model is caught in a loop where its last tokens, so many, are one short cycle over and over again.
_LOOP_TOKENS, _LONGEST_CYCLE = 48, 12


@dataclass(frozen=True)
class LanguageModelFacts:
    """A loaded model's properties, for any thread.

    Attributes:
        context_tokens: most tokens of a prompt and its answer together.
        device: "cpu" or "gpu".
        precision: type of the activations, as in "float32".
        quantization: how the checkpoint packs its weights, as in "4-bit", or None.
        weight_bytes: memory that its weights take.
        kv_bytes_per_token: memory that the keys and values of a token take.
        backend: the library that computes.
    """

    context_tokens: int
    device: str
    precision: str
    quantization: str | None
    weight_bytes: int
    kv_bytes_per_token: int
    backend: str = "mlx"


class TokenFormat(ChatFormat, Protocol):
    """The tokenizer of a model that runs in this process."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; marks of the chat template in it become control tokens."""
        ...

    def encode_from_start(self, text: str) -> list[int]:
        """Return the tokens of a text that stands at the beginning of a prompt without a template."""
        ...


class WritingModel(Protocol):
    """A loaded language model; `facts`, `tokenizer` and `computing_since` may be read on any thread."""

    facts: LanguageModelFacts
    computing_since: float | None

    @property
    def tokenizer(self) -> TokenFormat:
        """Return its tokenizer."""
        ...

    def generate(self, ids: list[int], max_tokens: int, emit: Callable[[str], bool]) -> bool:
        """Continue a prompt with the likeliest tokens, and return whether the model ended the answer itself.

        Args:
            ids: the prompt's tokens.
            max_tokens: most tokens of the answer.
            emit: takes the answer piece by piece ("" while the prompt is read), and returns whether to go on.
        """
        ...

    def release_memory(self) -> None:
        """Give back memory that is only kept for reuse."""
        ...

    def close(self) -> None:
        """Free the weights; the last call."""
        ...


def is_loop(tokens: list[int]) -> bool:
    """Return whether the last tokens are one short cycle over and over again."""
    last = tokens[-_LOOP_TOKENS:]
    return len(last) == _LOOP_TOKENS and any(last[cycle:] == last[:-cycle] for cycle in range(1, _LONGEST_CYCLE + 1))
