"""Words of a text as tsvector and tsquery, cut as FTS5's unicode61 cuts them, whatever the server's locale is."""

from __future__ import annotations

import re
import unicodedata

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_WORD = re.compile(r"[^\W_]+")
_DIACRITIC = re.compile("[\u0300-\u036f]+")
# Limits of tsvector: a word has at most 2046 bytes, a position is below 16384, a word has at most 255 of them, and the
# words and positions take less than 1 MiB together.
_LONGEST_WORD = 500
_LAST_POSITION = 16383
_MOST_POSITIONS = 255
_MOST_BYTES = 1_000_000


def cut_words(text: str) -> list[str]:
    """Return the words of a text in lower case and without diacritics."""
    if text.isascii():
        words = _ASCII_WORD.findall(text.lower())
    else:
        plain = _DIACRITIC.sub("", unicodedata.normalize("NFD", text.lower()))
        words = _WORD.findall(unicodedata.normalize("NFC", plain))
    return [word[:_LONGEST_WORD] for word in words]


def to_tsvector(text: str) -> str:
    """Return the words of a text and their places, as PostgreSQL reads a tsvector.

    Of a text that has more than a megabyte of different words, the last ones are left out.
    """
    places: dict[str, list[int]] = {}
    for position, word in enumerate(cut_words(text), 1):
        own = places.setdefault(word, [])
        if position <= _LAST_POSITION and len(own) < _MOST_POSITIONS:
            own.append(position)
    sizes = {word: len(word.encode()) + 1 for word in places}
    if sum(sizes.values()) + sum(2 * len(own) + 3 for own in places.values()) > _MOST_BYTES:
        total, places_kept = 0, dict[str, list[int]]()
        for word, size in sizes.items():
            total += size
            if total > _MOST_BYTES:
                break
            places_kept[word] = []
        places = places_kept
    return " ".join(f"'{word}'" + (":" + ",".join(map(str, own)) if own else "") for word, own in places.items())


def to_tsquery(words: list[str]) -> str:
    """Return a query of texts that hold all words; one that punctuation cuts into several has these side by side."""
    cut = [cut_words(word) for word in words]
    return " & ".join("(" + " <-> ".join(f"'{part}'" for part in parts) + ")" for parts in cut if parts)
