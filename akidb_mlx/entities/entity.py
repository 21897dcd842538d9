"""What is found in a text, and what can be said of several findings."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from typing_extensions import TypedDict


class Span(NamedTuple):
    """Where an entity is in a text, in characters."""

    start: int
    end: int
    label: str


class EntityDict(TypedDict):
    """An entity as a plain dictionary, as `ml_funcs` returns it."""

    text: str
    label: str
    start: int
    end: int


@dataclass(frozen=True)
class Entity:
    """A named entity.

    Attributes:
        text: the characters themselves, `source[start:end]`.
        label: what it is, in the words of its model ("PERSON", "GPE", …).
        start: index of its first character (code point) in the source.
        end: index after its last character.
        start_byte: offset of its first byte in the source's UTF-8, for languages whose strings are bytes.
        end_byte: offset after its last byte.
    """

    text: str
    label: str
    start: int
    end: int
    start_byte: int
    end_byte: int

    def to_dict(self) -> EntityDict:
        """Text, label, start and end; `dataclasses.asdict` gives the byte offsets as well."""
        return {"text": self.text, "label": self.label, "start": self.start, "end": self.end}


@dataclass(frozen=True)
class MergedEntity:
    """One entity and all its mentions in a text.

    Attributes:
        text: as it is first mentioned.
        label: what it is.
        mentions: where, in order.
    """

    text: str
    label: str
    mentions: tuple[Entity, ...]


def entities_of(text: str, spans: Iterable[Span]) -> list[Entity]:
    """The entities at some spans of a text, which are in order and do not overlap; bytes are counted in one pass."""
    entities = []
    position = offset = 0  # the same place in characters and in bytes
    for start, end, label in spans:
        start_byte = offset + len(text[position:start].encode())
        found = text[start:end]
        position, offset = end, start_byte + len(found.encode())
        entities.append(Entity(found, label, start, end, start_byte, offset))
    return entities


def count_labels(entities: Iterable[Entity]) -> dict[str, int]:
    """How many entities have each label, the most frequent first."""
    return dict(Counter(entity.label for entity in entities).most_common())


def merge_entities(entities: Iterable[Entity]) -> list[MergedEntity]:
    """Put the mentions of the same entity together, in the order of first mentions.

    The same: one label, and texts that differ at most in case, white space and compatibility forms (NFKC).
    """
    mentions: dict[tuple[str, str], list[Entity]] = {}
    for entity in entities:
        key = " ".join(unicodedata.normalize("NFKC", entity.text).casefold().split())
        mentions.setdefault((key, entity.label), []).append(entity)
    return [MergedEntity(found[0].text, found[0].label, tuple(found)) for found in mentions.values()]
