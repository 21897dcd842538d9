"""A bound on how much longer a tokenizer.json may make a text, checked before any of it runs.

The library cannot be interrupted, and even reading the file normalises the added tokens. Forty replacements of a
character by two fit in 2 kB and make a terabyte of one letter.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.tokenization.files import Description
from akidb_mlx.errors import ModelLoadError

# Most characters that one may become. The most of a real tokenizer, ALBERT's by this count, is about 2000.
_MAX_GROWTH = 1 << 12
# Most normalisers and pre-tokenizers that run one after another.
_MAX_STAGES = 1024

# Most characters that one becomes, by kind. Of Unicode's normal forms NFKC makes 18 of U+FDFA; a byte-level stage makes
# one of each byte, and perhaps a space before them.
_NORMALIZERS = {
    "BertNormalizer": 12,
    "ByteLevel": 4,
    "Lowercase": 3,
    "NFC": 3,
    "NFD": 4,
    "NFKC": 18,
    "NFKD": 18,
    "Nmt": 1,
    "Strip": 1,
    "StripAccents": 1,
}
_PRE_TOKENIZERS = {
    "BertPreTokenizer": 1,
    "ByteLevel": 5,
    "CharDelimiterSplit": 1,
    "Digits": 1,
    "FixedLength": 1,
    "Metaspace": 2,
    "Punctuation": 1,
    "Split": 1,
    "UnicodeScripts": 1,
    "Whitespace": 1,
    "WhitespaceSplit": 1,
}
# Regular expressions that cannot match an empty string: characters and classes, each perhaps repeated.
_CONSUMING = re.compile(
    r"""(?:
        (?: \\[sSdDwWnrt] | \\[^0-9A-Za-z] | \[[^\]\[\\&]+\] | [^\\\[\](){}*+?|^$] )
        (?: \+ | \{[1-9][0-9]*(?:,[0-9]*)?\} )?
    )+""",
    re.VERBOSE,
)


def check_growth(path: Path, description: Description) -> None:
    """Refuse a tokenizer.json that may make a text very much longer.

    Args:
        path: the file.
        description: its content.

    Raises:
        ModelLoadError: a character may become more than `_MAX_GROWTH`, there are too many stages, or one is unknown.
    """
    stages = [
        *_flatten(path, description.get("normalizer"), "normalizers"),
        *_flatten(path, description.get("pre_tokenizer"), "pretokenizers"),
    ]
    if len(stages) > _MAX_STAGES:
        raise ModelLoadError(f"{path} has {len(stages)} normalisers and pre-tokenizers, and at most {_MAX_STAGES} run")
    growth = _Growth()
    for members, stage in reversed(stages):
        growth.go_before(path, members, stage)
    if growth.most > _MAX_GROWTH:
        raise ModelLoadError(
            f"{path}: the normalizer and pre_tokenizer may make {growth.most:.3g} characters of one, and at most "
            f"{_MAX_GROWTH} are allowed"
        )


class _Growth:
    """The most characters that each character becomes by the end, seen from a stage; the last stage comes first."""

    def __init__(self) -> None:
        self._of: dict[str, float] = {}
        self._of_others = 1.0

    @property
    def most(self) -> float:
        return max(self._of_others, *self._of.values()) if self._of else self._of_others

    def go_before(self, path: Path, members: str, stage: dict[str, Any]) -> None:
        """Take one more stage into account, which runs before those so far."""
        kind = stage["type"]
        if members == "normalizers" and kind == "Replace":
            self._go_before_replacing(path, stage)
        elif members == "normalizers" and kind == "Prepend":
            self._multiply(1 + len(str(stage.get("prepend"))))
        elif members == "normalizers" and kind == "Precompiled":
            self._multiply(_longest_replacement(path, stage))
        else:
            factors = _NORMALIZERS if members == "normalizers" else _PRE_TOKENIZERS
            if kind not in factors:
                raise ModelLoadError(f"{path}: {kind!r} in {members} is not supported ({', '.join(factors)})")
            self._multiply(factors[kind])

    def _multiply(self, factor: float) -> None:
        self._of, self._of_others = {}, self.most * factor

    def _go_before_replacing(self, path: Path, stage: dict[str, Any]) -> None:
        pattern, content = stage.get("pattern"), stage.get("content")
        if not isinstance(pattern, dict) or len(pattern) != 1 or not isinstance(content, str):
            raise ModelLoadError(f"{path}: a Replace normalizer must have a pattern and a content")
        ((kind, text),) = pattern.items()
        if kind == "String" and isinstance(text, str):
            replacement = sum(self._of.get(character, self._of_others) for character in content)
            for character in text:
                here = self._of.get(character, self._of_others)
                self._of[character] = max(here, replacement / len(text))
        elif isinstance(text, str) and _CONSUMING.fullmatch(text):
            self._multiply(max(1, len(content)))
        else:  # may match between any two characters
            self._multiply(1 + len(content))


def _flatten(path: Path, part: Any, members: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the stages of a normalizer or pre-tokenizer in order, each with the name of its kind's list."""
    waiting = [] if part is None else [part]
    while waiting:
        stage = waiting.pop()
        if not isinstance(stage, dict) or not isinstance(stage.get("type"), str):
            raise ModelLoadError(f"{path}: each of the {members} must be an object with a type")
        if stage["type"] != "Sequence":
            yield members, stage
        elif isinstance(stage.get(members), list):
            waiting += reversed(stage[members])
        else:
            raise ModelLoadError(f"{path}: a Sequence must list its {members}")


def _longest_replacement(path: Path, stage: dict[str, Any]) -> int:
    """Return the length of the longest string in a SentencePiece character map.

    It holds the size of an index, the index, and the strings, each ended by a zero byte.
    """
    try:
        content = base64.b64decode(stage["precompiled_charsmap"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ModelLoadError(f"{path}: precompiled_charsmap is not base64: {error}") from error
    strings = content[4 + int.from_bytes(content[:4], "little") :]
    return max(1, *(len(string.decode("utf-8", "replace")) for string in strings.split(b"\0")))
