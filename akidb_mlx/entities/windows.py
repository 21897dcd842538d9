"""Cutting of long texts into windows, and packing of windows into batches, which bounds memory.

spaCy takes 3 kB for each character that it works on at once (1 000 000 characters, its `max_length`: 3 GB).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from akidb_mlx.entities.entity import Span

# Characters in one window or batch. At most 48 000 bytes of UTF-8, since the Japanese tokenizer refuses 49 150.
LONGEST = 12_000
# Characters of context before and after those that a window answers for; its model looks at a few words.
MARGIN = 1_000
# Short texts in one batch; more are not faster (docs/entities.md).
BATCH_TEXTS = 128

# The end of a sentence: of Latin, Greek and Cyrillic texts, with quotation marks and brackets after it; of Chinese and
# Japanese texts; and a line feed.
_SENTENCE_END = re.compile("[.!?\u2026][\"'\u201d\u2019\xbb)\\]]*\\s+|[\u3002\uff01\uff1f\uff61]|\n")
_SPACE = re.compile(r"\s")
_JOINER = "\u200d"


@dataclass(frozen=True)
class Window:
    """A part of a text: `text[start:stop]` is read, and the entities that begin in `text[first:last]` are taken."""

    index: int
    start: int
    first: int
    last: int
    stop: int

    def take(self, inside: Iterable[Span], found: list[Span]) -> None:
        """Add the entities that begin between `first` and `last` to those of the windows before.

        Args:
            inside: entities in the window, by their places in it.
            found: entities of the text, by their places in the text.
        """
        for start, end, label in inside:
            start, end = self.start + start, self.start + end
            if self.first <= start < self.last and (not found or start >= found[-1].end):
                found.append(Span(start, end, label))


def windows(texts: Iterable[tuple[int, str]], longest: int = LONGEST, margin: int = MARGIN) -> Iterator[Window]:
    """Cut numbered texts into windows, each character between `first` and `last` of one; blank texts have none."""
    for index, text in texts:
        if not text or text.isspace():
            continue
        start = first = 0
        while len(text) - start > longest:
            last = _cut(text, first + 1, start + longest - margin)
            stop = _cut(text, last, start + longest)
            yield Window(index, start, first, last, stop)
            start, first = _cut(text, last - margin, last - margin // 2), last
        yield Window(index, start, first, len(text), len(text))


def batches(parts: Iterable[Window]) -> Iterator[list[Window]]:
    """Pack windows, in order, into batches that are computed together."""
    batch: list[Window] = []
    size = 0
    for part in parts:
        size += part.stop - part.start
        if batch and (len(batch) == BATCH_TEXTS or size > LONGEST):
            yield batch
            batch, size = [], part.stop - part.start
        batch.append(part)
    if batch:
        yield batch


def _cut(text: str, low: int, high: int) -> int:
    """Return where to cut a text, from `low` to `high`: after a sentence, else white space, else between characters.

    Only the last quarter is searched for the end of a sentence and for white space.
    """
    near = max(low, high - (high - low) // 4)
    for boundary in (_SENTENCE_END, _SPACE):
        ends = [match.end() for match in boundary.finditer(text, near, high)]
        if ends:
            return ends[-1]
    while high > near and _continues(text, high):
        high -= 1
    return high


def _continues(text: str, at: int) -> bool:
    """Return whether the character at an index is displayed as one with the character before it."""
    return unicodedata.category(text[at])[0] == "M" or _JOINER in text[at - 1 : at + 1]
