"""Filters that make a summary of the text that a model writes, piece by piece."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from akidb_mlx.summarization.sentences import SentenceSplitter
from akidb_mlx.summarization.words import count_words, first_words

_LIST_MARK = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s+")


def without_thinking(pieces: Iterable[str], marks: tuple[str, str], inside: bool) -> Iterator[str]:
    """Leave out the text between the marks of thinking.

    Args:
        pieces: a text in pieces.
        marks: the texts that begin and end it, as in ("<think>", "</think>").
        inside: whether the text begins after a mark that the prompt ends with.
    """
    pending = ""
    for piece in pieces:
        pending += piece
        while (at := pending.find(marks[inside])) >= 0:
            if not inside:
                yield pending[:at]
            pending = pending[at + len(marks[inside]) :]
            inside = not inside
        keep = _overlap(pending, marks[inside])
        if not inside:
            yield pending[: len(pending) - keep]
        pending = pending[len(pending) - keep :]
    if not inside:
        yield pending


def until(pieces: Iterable[str], stops: tuple[str, ...]) -> Iterator[str]:
    """Yield a text up to the first of some stops after its first letter, without a list mark at its beginning."""
    pending = ""
    begun = False
    for piece in pieces:
        pending += piece
        if not begun:
            if not any(map(str.isalpha, pending)):
                continue
            pending = _LIST_MARK.sub("", pending.lstrip(), count=1)
            begun = True
        ends = [at for stop in stops if (at := pending.find(stop)) >= 0]
        if ends:
            yield pending[: min(ends)]
            return
        keep = max((_overlap(pending, stop) for stop in stops), default=0)
        yield pending[: len(pending) - keep]
        pending = pending[len(pending) - keep :]
    yield pending if begun else pending.lstrip()


def whole_sentences(
    pieces: Iterable[str],
    max_words: int,
    split: SentenceSplitter,
    complete: Callable[[], bool],
    known: Iterable[str] = (),
) -> Iterator[str]:
    """Yield a text sentence by sentence, each with the white space before it.

    The text ends before a sentence that it holds already or that is known, and before one that would exceed
    `max_words`; a first sentence that would is cut to that many words. An unfinished last sentence is dropped unless
    it is the only one.

    Args:
        pieces: the text in pieces.
        max_words: most words of all sentences.
        split: finds the sentences.
        complete: returns, once the pieces have ended, whether the text ended by itself.
        known: sentences that end it.
    """
    pending = ""
    refused = set(known)
    begun = False
    left = max_words

    def take(sentence: str) -> str | None:
        """Return the sentence, cut if it is the first and too long; None where the text ends before it."""
        nonlocal begun, left
        words = count_words(sentence)
        if sentence.strip() in refused or (words > left and begun):
            return None
        begun = True
        refused.add(sentence.strip())
        sentence = first_words(sentence, left)
        left = max(0, left - words)
        return sentence

    for piece in pieces:
        pending += piece
        spans = list(split(pending))
        start = 0
        for span in spans[:-1]:
            sentence = take(pending[start : span.end])
            if sentence is None:
                return
            yield sentence
            start = span.end
        pending = pending[start:]
        if count_words(pending) > left:
            break
    if pending.strip() and (complete() or not begun):
        sentence = take(pending.rstrip())
        if sentence is not None:
            yield sentence


def _overlap(text: str, mark: str) -> int:
    """Return how many characters at a text's end may be the beginning of a mark."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)
