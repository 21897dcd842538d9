"""The texts that models are compared on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.texts import check_string

_DEFAULT = Path(__file__).with_name("texts.json")
# Languages whose sentences make up a text of a few hundred tokens.
_LONG_STEP = 3
_MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class TextSet:
    """Texts that models are compared on.

    Attributes:
        name: the name of the set, or of its file.
        licence: the licence of the texts; None where nobody stated it.
        texts: the texts.
        languages: the language of each, "" where it is not known.
    """

    name: str
    licence: str | None
    texts: tuple[str, ...]
    languages: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Return a hash of the texts, which tells two sets of one name apart."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()


@cache
def default_texts() -> TextSet:
    """Return the texts of this package: sentences in thirty languages, English ones of many kinds, and long texts."""
    content = json.loads(_DEFAULT.read_text(encoding="utf-8"))
    sentences: dict[str, list[str]] = content["sentences"]
    pairs = [(text, language) for language, texts in sentences.items() for text in texts]
    pairs += [(text, "en") for text in content["others"]]
    pairs += [(" ".join(texts), language) for language, texts in sentences.items()]
    languages = list(sentences)
    for start in range(0, len(languages), _LONG_STEP):
        pairs.append((" ".join(text for one in languages[start : start + _LONG_STEP] for text in sentences[one]), ""))
    texts, of = zip(*pairs, strict=True)
    return TextSet(content["name"], content["licence"], texts, of)


def read_texts(path: Path) -> TextSet:
    """Read a file of texts: one on each line, or a JSON array of strings in a file that ends in .json.

    Raises:
        InvalidInputError: it cannot be read, or holds fewer than two texts, or something that is no text.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InvalidInputError(f"{path} has more than {_MAX_FILE_BYTES >> 20} MiB")
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error
    texts = _parse_array(path, content) if path.suffix == ".json" else [line for line in content.split("\n") if line]
    if len(texts) < 2:
        raise InvalidInputError(f"{path} holds {len(texts)} texts, at least 2 are needed")
    for index, text in enumerate(texts):
        check_string(f"text {index} of {path}", text)
    return TextSet(path.name, None, tuple(texts), ("",) * len(texts))


def _parse_array(path: Path, content: str) -> list[str]:
    try:
        texts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError(f"{path} must hold a JSON array of strings")
    return texts
