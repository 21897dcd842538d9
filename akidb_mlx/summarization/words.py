"""Counting of words, in every script.

A word is a run of characters between white space; each Chinese character and Japanese kana is a word, as word
processors count them, and so are every four letters of Thai, Lao, Khmer and Burmese, which put no spaces between words
either. A run of more than 64 characters counts as several words, so that a bound in words is one in characters too.
"""

from __future__ import annotations

import re
from itertools import islice

# Most words of a summary unless its caller says otherwise.
DEFAULT_MAX_WORDS = 120

# Kana, Han with its extensions, and their half-width forms; then Thai and Lao, Burmese, Khmer.
_EACH = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
_BY_FOUR = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = re.compile(rf"[{_EACH}]|[{_BY_FOUR}]{{1,4}}|[^\s{_EACH}{_BY_FOUR}]{{1,64}}")


def count_words(text: str) -> int:
    """Return how many words a text has."""
    return sum(1 for _ in _WORD.finditer(text))


def has_more_words(text: str, count: int) -> bool:
    """Return whether a text has more than so many words."""
    return next(islice(_WORD.finditer(text), count, None), None) is not None


def first_words(text: str, count: int) -> str:
    """Return the beginning of a text with at most so many words, verbatim."""
    for number, word in enumerate(_WORD.finditer(text), 1):
        if number > count:
            return text[: word.start()].rstrip()
    return text.rstrip()
