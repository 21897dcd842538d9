"""Summaries that a language model writes, of messages of any length.

Messages that do not fit the model at once are summarised window by window (map), and the summaries are summarised in
their place, again and again, until they fit (reduce).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.errors import InferenceError, InvalidInputError
from akidb_mlx.runtime.abandonment import run_until
from akidb_mlx.runtime.locks import ExclusiveLock, hold_until
from akidb_mlx.summarization.answer import until, whole_sentences, without_thinking
from akidb_mlx.summarization.chat_model import ChatModel
from akidb_mlx.summarization.messages import Message, Progress
from akidb_mlx.summarization.prompts import Prompt, as_data, summary_prompts
from akidb_mlx.summarization.reports import BackendInfo, SummarizerHealth
from akidb_mlx.summarization.sentences import SentenceSplitter

# Tokens that are allowed for each word of an answer; languages differ, and an answer is ended by its words.
_TOKENS_PER_WORD = 4
# The summary of a part is at most one part in so many of a window, so that each round leaves at most a third of them.
_SHARE = 4
# Words of a part's summary, at least, where its share of the window allows.
_PART_WORDS = 100
# Tokens of messages that a window must hold for a summary of it to mean anything.
_SMALLEST_WINDOW = 32
# The share by which a window's tokens may exceed the sum of its pieces'.
_SLACK = 1 / 32
# Messages of more characters than this, together, are tokenised on a thread that a caller with a deadline may leave.
_LONG_CHARACTERS = 1 << 14


class AbstractiveSummarizer:
    """Writes summaries with a language model; safe to call from any thread."""

    def __init__(self, model: ChatModel, split: SentenceSplitter) -> None:
        self._model = model
        self._tokenizer = model.tokenizer
        self._split = split
        # Held by callers with a deadline, so that one at most leaves its tokenising behind.
        self._long_texts = ExclusiveLock()

    def stream(
        self,
        messages: list[Message],
        max_words: int,
        progress: Progress | None = None,
        deadline: Deadline = NEVER,
    ) -> Iterator[str]:
        """Yield the summary of messages, sentence by sentence.

        Args:
            messages: in their order; nothing comes of none.
            max_words: most words of the summary.
            progress: called with how many of the model's answers are done, and how many are known to be needed.
            deadline: when the caller leaves.

        Raises:
            InvalidInputError: the model's context leaves no room for messages.
            InferenceError: the model answered with nothing.
            DeadlineExceededError: the deadline passed.
        """
        if not messages:
            return
        progress = progress or (lambda _done, _total: None)
        capacity = self._capacity(max_words)
        done = 0
        while len(windows := self._make_windows(messages, capacity, deadline)) > 1:
            parts: list[str] = []
            for window in windows:
                progress(done, done + len(windows) - len(parts) + 1)
                parts.append(
                    "".join(self._answer(window, self._part_words(max_words, capacity), capacity // _SHARE, deadline))
                )
                done += 1
            messages = [Message(part) for part in parts]
        progress(done, done + 1)
        yield from self._answer(windows[0], max_words, self._answer_tokens(max_words), deadline)
        progress(done + 1, done + 1)

    def summarize_batch(
        self,
        conversations: Sequence[list[Message]],
        max_words: int,
        progress: Progress | None = None,
        deadline: Deadline = NEVER,
    ) -> list[str]:
        """Return a summary of each conversation, made one after another; `progress` counts them."""
        progress = progress or (lambda _done, _total: None)
        summaries: list[str] = []
        for messages in conversations:
            progress(len(summaries), len(conversations))
            summaries.append("".join(self.stream(messages, max_words, deadline=deadline)))
        progress(len(summaries), len(conversations))
        return summaries

    def info(self) -> BackendInfo:
        """Report the model and how it runs, as plain types."""
        return self._model.info()

    def health(self) -> SummarizerHealth:
        """Report whether the model can be asked."""
        status, reason = self._model.health()
        return {"status": status, "reason": reason}

    def _answer(self, transcript: str, max_words: int, max_tokens: int, deadline: Deadline) -> Iterator[str]:
        """Yield the model's summary of one window, sentence by sentence."""
        deadline.check()
        for prompt in summary_prompts(transcript, max_words, self._tokenizer):
            answered = False
            for sentence in self._ask(prompt, max_words, max_tokens, deadline):
                yield sentence
                answered = True
            if answered:
                return
        raise InferenceError(
            f"the model wrote no summary within {max_tokens} tokens; use another model, more max_words, or "
            "mode='extractive'"
        )

    def _ask(self, prompt: Prompt, max_words: int, max_tokens: int, deadline: Deadline) -> Iterator[str]:
        """Yield the whole sentences that the model answers with."""
        with self._model.answer(prompt, max_tokens, deadline) as answer:
            text = until(without_thinking(answer, self._tokenizer.thinking, prompt.thinking), prompt.stops)
            known = [one[span.start : span.end] for one in prompt.examples for span in self._split(one)]
            yield from whole_sentences(text, max_words, self._split, lambda: answer.ended_itself, known)

    def _answer_tokens(self, max_words: int) -> int:
        return min(max_words * _TOKENS_PER_WORD + 32, self._model.context_tokens // _SHARE)

    def _part_words(self, max_words: int, capacity: int) -> int:
        return max(1, min(max(max_words, _PART_WORDS), capacity // _SHARE // 2))

    def _capacity(self, max_words: int) -> int:
        """Return how many tokens of messages one prompt can hold."""
        prompts = summary_prompts("", max_words, self._tokenizer)
        around = max(self._tokenizer.count([prompt.text])[0] + prompt.is_bare for prompt in prompts)
        left = self._model.context_tokens - around
        capacity = int(min(left - self._answer_tokens(max_words), left * _SHARE / (_SHARE + 1)) * (1 - _SLACK))
        if capacity < _SMALLEST_WINDOW:
            raise InvalidInputError(
                f"max_words={max_words} and the instructions leave {capacity} of the model's "
                f"{self._model.context_tokens} tokens for messages: ask for fewer words or allow more context"
            )
        return capacity

    def _make_windows(self, messages: list[Message], capacity: int, deadline: Deadline) -> list[str]:
        """Return the messages as texts of at most `capacity` tokens, in order and with nothing left out.

        The library that tokenises cannot be interrupted: where the deadline passes meanwhile, long messages are left
        to a thread, which ends after the message that it reads.
        """

        def make() -> list[str]:
            with hold_until(deadline, self._long_texts):
                return self._windows(messages, capacity, deadline)

        if deadline.left() is None or sum(len(message.text) for message in messages) <= _LONG_CHARACTERS:
            return self._windows(messages, capacity, deadline)
        return run_until(deadline, make)

    def _windows(self, messages: list[Message], capacity: int, deadline: Deadline) -> list[str]:
        pieces = [piece for message in messages for piece in self._pieces(message, capacity, deadline)]
        deadline.check()
        windows: list[list[str]] = []
        left = 0
        for piece, tokens in zip(pieces, self._tokenizer.count([f"\n{piece}" for piece in pieces]), strict=True):
            if not windows or tokens > left:
                windows.append([])
                left = capacity
            windows[-1].append(piece)
            left -= tokens
        return ["\n".join(window) for window in windows]

    def _pieces(self, message: Message, capacity: int, deadline: Deadline) -> list[str]:
        """Return a message whole, or where it is too long cut between sentences, and those between tokens."""
        deadline.check()
        label, text = as_data(message.label, self._tokenizer), as_data(message.text, self._tokenizer)
        capacity = max(capacity - self._tokenizer.count([f"\n{label} "])[0], _SMALLEST_WINDOW // 2)
        deadline.check()
        if self._tokenizer.count([text])[0] <= capacity:
            return [label + text]
        deadline.check()
        spans = list(self._split(text))
        pieces: list[str] = []
        left = 0
        # With the white space before each, which is part of its first token.
        starts = [0, *(span.end for span in spans)]
        sentences = [text[start : span.end] for start, span in zip(starts, spans, strict=False)]
        for sentence, tokens in zip(sentences, self._tokenizer.count(sentences), strict=True):
            if tokens > capacity:
                pieces += self._tokenizer.cut(sentence.lstrip(), capacity)
                left = 0
            elif tokens > left:
                pieces.append(sentence.lstrip())
                left = capacity - tokens
            else:
                pieces[-1] += sentence
                left -= tokens
        return [label + piece for piece in pieces]
