"""What becomes of the text that a model writes, piece by piece, before it is a summary."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from akidb_mlx.summarization.sentences import SentenceSplitter
from akidb_mlx.summarization.words import count_words, first_words

_LIST_MARK = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s+")


def without_thinking(pieces: Iterable[str], marks: tuple[str, str], inside: bool) -> Iterator[str]:
    """Leave out what stands between the marks of thinking.

    Args:
        pieces: a text in pieces.
        marks: what begins and ends it, as in ("<think>", "</think>").
        inside: whether the text begins after a mark that the prompt ends with.
    """
    held = ""
    for piece in pieces:
        held += piece
        while (at := held.find(marks[inside])) >= 0:
            if not inside:
                yield held[:at]
            held = held[at + len(marks[inside]) :]
            inside = not inside
        keep = _overlap(held, marks[inside])
        if not inside:
            yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    if not inside:
        yield held


def until(pieces: Iterable[str], stops: tuple[str, ...]) -> Iterator[str]:
    """End a text before the first of some stops, once it has a letter; a list mark that it begins with is left out."""
    held = ""
    begun = False
    for piece in pieces:
        held += piece
        if not begun:
            if not any(map(str.isalpha, held)):
                continue
            held = _LIST_MARK.sub("", held.lstrip(), count=1)
            begun = True
        ends = [at for stop in stops if (at := held.find(stop)) >= 0]
        if ends:
            yield held[: min(ends)]
            return
        keep = max((_overlap(held, stop) for stop in stops), default=0)
        yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    yield held if begun else held.lstrip()


def whole_sentences(
    pieces: Iterable[str],
    max_words: int,
    split: SentenceSplitter,
    complete: Callable[[], bool],
    known: Iterable[str] = (),
) -> Iterator[str]:
    """A text sentence by sentence, each with the white space before it, ended where it must.

    It ends before a sentence that it holds already or that is known, and before one that would exceed `max_words`; the
    first is cut to that many words instead. What was left unfinished is dropped unless there is nothing else.

    Args:
        pieces: the text in pieces.
        max_words: most words of all sentences.
        split: finds the sentences.
        complete: whether the text, once its pieces have ended, ended by itself.
        known: sentences that it may not hold.
    """
    held = ""
    refused = set(known)
    begun = False
    left = max_words

    def take(sentence: str) -> str | None:
        """The sentence, or what may be said of it; None where the text ends before it."""
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
        held += piece
        spans = list(split(held))
        start = 0
        for span in spans[:-1]:
            sentence = take(held[start : span.end])
            if sentence is None:
                return
            yield sentence
            start = span.end
        held = held[start:]
        if count_words(held) > left:
            break
    if held.strip() and (complete() or not begun):
        sentence = take(held.rstrip())
        if sentence is not None:
            yield sentence


def _overlap(text: str, mark: str) -> int:
    """How many characters at a text's end may be the beginning of a mark."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)
