"""Summaries made of the messages' own sentences: those closest to the whole that differ from each other.

A sentence's centrality is its cosine to the mean of all sentence vectors, which ranks sentences as their mean cosine to
all of them does (Radev et al. 2004, "Centroid-based summarization of multiple documents"; degree centrality in Erkan
and Radev 2004, "LexRank"). They are chosen one after another by maximal marginal relevance (Carbonell and Goldstein
1998): the greatest λ·centrality - (1 - λ)·max cosine to a sentence already chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.embedder import Embedder
from akidb_mlx.errors import DeadlineExceededError
from akidb_mlx.summarization.messages import Message, Progress
from akidb_mlx.summarization.reports import BackendInfo, SummarizerHealth
from akidb_mlx.summarization.sentences import SentenceSplitter
from akidb_mlx.summarization.words import count_words, first_words, has_more_words
from akidb_mlx.vectors import Vectors

# The weight λ of centrality against diversity.
_RELEVANCE = 0.7
# Sentences with fewer words ("Yes.", a heading) say little on their own.
_FEW_WORDS = 4
# The most by which equal cosines differ.
_ROUNDING = 1e-5
# Characters after a sentence that are searched for a line feed.
_LONGEST_GAP = 64
# Sentences embedded in one call: enough to sort by length with profit, few enough for progress to be seen.
_SLICE = 1024


@dataclass(frozen=True)
class _Sentence:
    """A sentence of a conversation.

    Attributes:
        message: index of its message.
        text: its text.
        gap: the text between it and a sentence that follows it in the same message.
    """

    message: int
    text: str
    gap: str


class ExtractiveSummarizer:
    """Chooses sentences by the vectors of an embedder; safe to call from any thread."""

    def __init__(self, embedder: Embedder, split: SentenceSplitter) -> None:
        self._embedder = embedder
        self._split = split

    def summarize_batch(
        self,
        conversations: Sequence[list[Message]],
        max_words: int,
        progress: Progress | None = None,
        deadline: Deadline = NEVER,
    ) -> list[str]:
        """Return a summary of each conversation, "" of one without messages.

        The sentences of all are embedded together, equal ones once.

        Args:
            conversations: messages in their order.
            max_words: most words of a summary, speakers' names included.
            progress: called with how many sentences are embedded, and how many there are.
            deadline: when the caller leaves.

        Raises:
            DeadlineExceededError: the deadline passed.
        """
        long = [index for index, one in enumerate(conversations) if has_more_words(_whole(one), max_words)]
        sentences = {index: self._sentences(conversations[index], deadline) for index in long}
        distinct = list(dict.fromkeys(sentence.text for of_one in sentences.values() for sentence in of_one))
        vectors = self._embed(distinct, progress or (lambda _done, _total: None), deadline)
        rows = {text: row for row, text in enumerate(distinct)}
        return [
            _summarize(one, sentences[index], rows, vectors, max_words, deadline) if index in sentences else _whole(one)
            for index, one in enumerate(conversations)
        ]

    def stream(
        self,
        messages: list[Message],
        max_words: int,
        progress: Progress | None = None,
        deadline: Deadline = NEVER,
    ) -> Iterator[str]:
        """Yield the summary of one conversation, as one piece."""
        yield from self.summarize_batch([messages], max_words, progress, deadline)

    def info(self) -> BackendInfo:
        """Report the embedder and how it runs, as plain types."""
        info = self._embedder.get_model_info()
        return {
            "model_name": info["model_name"],
            "backend": info["backend"],
            "device": info["device"],
            "precision": info["precision"],
            "quantization": info["quantization"],
            "revision": info["revision"],
            "path": info["path"],
            "weight_bytes": info["weight_bytes"],
            "status": info["status"],
        }

    def health(self) -> SummarizerHealth:
        """Report whether the embedder takes calls."""
        health = self._embedder.health_check()
        return {"status": health["status"], "reason": health["reason"]}

    def _sentences(self, messages: list[Message], deadline: Deadline) -> list[_Sentence]:
        sentences = []
        for number, message in enumerate(messages):
            for span in self._split(message.text):
                deadline.check()
                text = message.text[span.start : span.end]
                sentences.append(_Sentence(number, text, _gap(message.text, span.end)))
        return sentences

    def _embed(self, texts: list[str], progress: Progress, deadline: Deadline) -> Vectors:
        parts = []
        for start in range(0, len(texts), _SLICE):
            progress(start, len(texts))
            if (left := deadline.left()) == 0:
                raise deadline.error()
            try:
                part = self._embedder.embed_array(texts[start : start + _SLICE], on_overflow="chunk", timeout=left)
            except DeadlineExceededError:
                raise deadline.error() from None  # with the seconds of the whole call
            parts.append(part)
        progress(len(texts), len(texts))
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def choose(
    vectors: Vectors,
    weights: NDArray[np.float32],
    words: NDArray[np.int64],
    max_words: int,
    deadline: Deadline = NEVER,
) -> list[int]:
    """Choose the sentences of a summary, by maximal marginal relevance.

    Args:
        vectors: (sentences, dimension), each of length 1.
        weights: (sentences,), how often each occurs.
        words: (sentences,), how many words each has.
        max_words: most words of all chosen ones; one that does not fit is passed over.
        deadline: when the caller leaves.

    Returns:
        Their indices, the best first; none where not even one fits. Those of fewer than four words, and those less
        central than the average, are left out where others fit: a summary is not filled up with irrelevant ones.
    """
    centroid = weights @ vectors
    centrality = vectors @ (centroid / max(float(np.linalg.norm(centroid)), np.finfo(np.float32).tiny))
    redundancy = np.zeros(len(vectors), np.float32)
    chosen: list[int] = []
    fits, wordy = words <= max_words, words >= _FEW_WORDS
    central = centrality >= centrality.mean() - _ROUNDING
    free = next((mask for mask in (fits & wordy & central, fits & wordy) if mask.any()), fits)
    left = max_words
    while (free := free & (words <= left)).any():
        deadline.check()
        scores = _RELEVANCE * centrality - (1 - _RELEVANCE) * redundancy
        best = int(np.argmax(np.where(free, scores, -np.inf)))
        similarity = vectors @ vectors[best]
        redundancy = np.maximum(redundancy, similarity) if chosen else similarity
        chosen.append(best)
        free[best] = False
        left -= int(words[best])
    return chosen


def _summarize(
    messages: list[Message],
    sentences: list[_Sentence],
    rows: dict[str, int],
    vectors: Vectors,
    max_words: int,
    deadline: Deadline,
) -> str:
    """Return a summary of a conversation: some of its sentences, in their order."""
    labels = _labels(messages)
    first: dict[str, int] = {}
    counts: dict[str, int] = {}
    for position, sentence in enumerate(sentences):
        first.setdefault(sentence.text, position)
        counts[sentence.text] = counts.get(sentence.text, 0) + 1
    candidates = list(first.values())
    own = vectors[[rows[text] for text in first]]
    words = np.array([count_words(labels[sentences[at].message] + sentences[at].text) for at in candidates])
    weights = np.array(list(counts.values()), np.float32)
    chosen = choose(own, weights, words, max_words, deadline)
    if not chosen:  # not one sentence is short enough: the beginning of the most central
        best, *_ = choose(own, weights, np.minimum(words, 1), 1)
        return first_words(sentences[candidates[best]].text, max_words)
    summary = ""
    before: _Sentence | None = None
    for at in sorted(candidates[index] for index in chosen):
        sentence = sentences[at]
        if before is None or before.message != sentence.message:
            summary += ("\n" if before else "") + labels[sentence.message]
        else:
            summary += before.gap
        summary += sentence.text
        before = sentence
    return summary


def _gap(text: str, end: int) -> str:
    """Return the text between a sentence that ends there and another: a line feed where one followed, else a space.

    It is empty in scripts that put no space between sentences.
    """
    after = text[end : end + _LONGEST_GAP]
    space = after[: len(after) - len(after.lstrip())]
    if "\n" in space:
        return "\n"
    return " " if space or east_asian_width(text[end - 1]) not in ("W", "F") else ""


def _labels(messages: list[Message]) -> list[str]:
    """Return for each message the words that name its speaker; none where nobody else speaks."""
    several = len({message.speaker for message in messages}) > 1
    return [message.label if several else "" for message in messages]


def _whole(messages: list[Message]) -> str:
    """Return all messages, a line each."""
    return "\n".join(label + message.text for label, message in zip(_labels(messages), messages, strict=True))
