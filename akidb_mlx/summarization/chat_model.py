"""The interface of a language model that writes summaries, wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from akidb_mlx.deadline import Deadline

if TYPE_CHECKING:
    from akidb_mlx.summarization.generator import Answer
    from akidb_mlx.summarization.prompts import Prompt
    from akidb_mlx.summarization.reports import BackendInfo


class ChatFormat(Protocol):
    """The way from texts to the prompts of a model, and the measure of them; safe to use from any thread."""

    @property
    def has_template(self) -> bool:
        """Return whether the model takes conversations; one that was not trained to answer only continues texts."""
        ...

    @property
    def thinking(self) -> tuple[str, str]:
        """Return the marks before and after the thoughts of a model that thinks before it answers."""
        ...

    def render(self, content: str) -> str:
        """Return the prompt in which the user says `content`.

        Raises:
            ModelLoadError: the model's template fails on it.
        """
        ...

    def inert(self, text: str) -> str:
        """Change a text so that no part of it steers the model as its template does."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has."""
        ...

    def cut(self, text: str, tokens: int) -> list[str]:
        """Cut a text into pieces of at most about so many tokens, which together are the text."""
        ...


class ChatModel(Protocol):
    """A language model that any thread may ask."""

    @property
    def tokenizer(self) -> ChatFormat:
        """Return the way to its prompts."""
        ...

    @property
    def context_tokens(self) -> int:
        """Return the most tokens of a prompt and its answer together."""
        ...

    def answer(self, prompt: Prompt, max_tokens: int, deadline: Deadline) -> Answer:
        """Ask for the answer to a prompt.

        Raises:
            ServiceClosedError: the model is closed.
            ReentrantCallError: this is a thread that may not wait.
        """
        ...

    def info(self) -> BackendInfo:
        """Report the model and how it runs, as plain types."""
        ...

    def health(self) -> tuple[Literal["ok", "degraded", "failed"], str]:
        """Report the state and its reason; never raises or waits."""
        ...

    def close(self) -> None:
        """End what is being written, and free the model. Idempotent."""
        ...
