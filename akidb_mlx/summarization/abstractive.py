"""Summaries that a language model writes, of messages of any length.

Messages that do not fit the model at once are summarised window by window (map), and the summaries are summarised in
their place, again and again, until they fit (reduce).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from akidb_mlx.errors import InferenceError, InvalidInputError
from akidb_mlx.summarization.answer import until, whole_sentences, without_thinking
from akidb_mlx.summarization.generator import TextGenerator
from akidb_mlx.summarization.messages import Message, Progress
from akidb_mlx.summarization.prompts import Prompt, as_data, summary_prompts
from akidb_mlx.summarization.sentences import SentenceSplitter

# Tokens that a word may take, by which an answer's room is made; languages differ, and an answer ends by its words.
_TOKENS_PER_WORD = 4
# A part's summary is at most this share of a window, so that each round leaves at most a third of the windows.
_SHARE = 4
# Words of a part's summary, at least and where its share of the window allows.
_PART_WORDS = 100
# Tokens of messages that a window must hold for a summary of it to mean anything.
_SMALLEST_WINDOW = 32
# By which a window's tokens may be more than the sum of its pieces'.
_SLACK = 1 / 32


class AbstractiveSummarizer:
    """Asks a language model; safe from any thread."""

    def __init__(self, generator: TextGenerator, split: SentenceSplitter) -> None:
        self._generator = generator
        self._tokenizer = generator.tokenizer
        self._split = split

    def stream(self, messages: list[Message], max_words: int, progress: Progress | None = None) -> Iterator[str]:
        """The summary of messages, sentence by sentence.

        Args:
            messages: in their order; nothing comes of none.
            max_words: most words of the summary.
            progress: told how many of the model's answers are done, of how many that are known to be needed.

        Raises:
            InvalidInputError: the model's context leaves no room for messages.
            InferenceError: the model answered with nothing.
        """
        if not messages:
            return
        progress = progress or (lambda _done, _total: None)
        room = self._room(max_words)
        done = 0
        while len(windows := self._windows(messages, room)) > 1:
            parts: list[str] = []
            for window in windows:
                progress(done, done + len(windows) - len(parts) + 1)
                parts.append("".join(self._answer(window, self._part_words(max_words, room), room // _SHARE)))
                done += 1
            messages = [Message(part) for part in parts]
        progress(done, done + 1)
        yield from self._answer(windows[0], max_words, self._answer_tokens(max_words))
        progress(done + 1, done + 1)

    def summarize_batch(
        self, conversations: Sequence[list[Message]], max_words: int, progress: Progress | None = None
    ) -> list[str]:
        """A summary of each conversation, one after another; `progress` counts them."""
        progress = progress or (lambda _done, _total: None)
        summaries: list[str] = []
        for messages in conversations:
            progress(len(summaries), len(conversations))
            summaries.append("".join(self.stream(messages, max_words)))
        progress(len(summaries), len(conversations))
        return summaries

    def info(self) -> dict[str, Any]:
        """What the model is and how it runs, as plain types."""
        return {"backend": "mlx", **asdict(self._generator.facts), "status": self._generator.status}

    def health(self) -> dict[str, Any]:
        """Whether the model can be asked: `status` and `reason`."""
        status, reason = self._generator.health()
        return {"status": status, "reason": reason}

    def _answer(self, transcript: str, max_words: int, max_tokens: int) -> Iterator[str]:
        """The model's summary of one window."""
        for prompt in summary_prompts(transcript, max_words, self._tokenizer):
            answered = False
            for sentence in self._ask(prompt, max_words, max_tokens):
                yield sentence
                answered = True
            if answered:
                return
        raise InferenceError(
            f"the model wrote no summary within {max_tokens} tokens; use another model, more max_words, or "
            "mode='extractive'"
        )

    def _ask(self, prompt: Prompt, max_words: int, max_tokens: int) -> Iterator[str]:
        """The whole sentences that the model answers with."""
        with self._generator.generate(prompt.ids, max_tokens) as answer:
            text = until(without_thinking(answer, self._tokenizer.thinking, prompt.thinking), prompt.stops)
            known = [one[span.start : span.end] for one in prompt.examples for span in self._split(one)]
            yield from whole_sentences(text, max_words, self._split, lambda: answer.ended_itself, known)

    def _answer_tokens(self, max_words: int) -> int:
        return min(max_words * _TOKENS_PER_WORD + 32, self._generator.context_tokens // _SHARE)

    def _part_words(self, max_words: int, room: int) -> int:
        return max(1, min(max(max_words, _PART_WORDS), room // _SHARE // 2))

    def _room(self, max_words: int) -> int:
        """Tokens of messages that one prompt can hold."""
        around = max(len(prompt.ids) for prompt in summary_prompts("", max_words, self._tokenizer))
        left = self._generator.context_tokens - around
        room = int(min(left - self._answer_tokens(max_words), left * _SHARE / (_SHARE + 1)) * (1 - _SLACK))
        if room < _SMALLEST_WINDOW:
            raise InvalidInputError(
                f"max_words={max_words} and the instructions leave {room} of the model's "
                f"{self._generator.context_tokens} tokens for messages: ask for fewer words or allow more context"
            )
        return room

    def _windows(self, messages: list[Message], room: int) -> list[str]:
        """The messages as texts of at most `room` tokens, in order and nothing left out."""
        pieces = [piece for message in messages for piece in self._pieces(message, room)]
        windows: list[list[str]] = []
        left = 0
        for piece, tokens in zip(pieces, self._tokenizer.count([f"\n{piece}" for piece in pieces]), strict=True):
            if not windows or tokens > left:
                windows.append([])
                left = room
            windows[-1].append(piece)
            left -= tokens
        return ["\n".join(window) for window in windows]

    def _pieces(self, message: Message, room: int) -> list[str]:
        """A message whole, or where it is too long cut between sentences, and those between tokens."""
        label, text = as_data(message.label, self._tokenizer), as_data(message.text, self._tokenizer)
        room = max(room - len(self._tokenizer.encode(f"\n{label} ")), _SMALLEST_WINDOW // 2)
        if len(self._tokenizer.encode(text)) <= room:
            return [label + text]
        spans = list(self._split(text))
        pieces: list[str] = []
        left = 0
        # With the white space before each, which is part of its first token.
        starts = [0, *(span.end for span in spans)]
        sentences = [text[start : span.end] for start, span in zip(starts, spans, strict=False)]
        for sentence, tokens in zip(sentences, self._tokenizer.count(sentences), strict=True):
            if tokens > room:
                pieces += self._tokenizer.cut(sentence.lstrip(), room)
                left = 0
            elif tokens > left:
                pieces.append(sentence.lstrip())
                left = room - tokens
            else:
                pieces[-1] += sentence
                left -= tokens
        return [label + piece for piece in pieces]
