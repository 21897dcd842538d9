"""Entities as records, and functions that count and merge them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from typing_extensions import TypedDict


class Span(NamedTuple):
    """The place of an entity in a text, in characters, and its label."""

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
        label: its kind, as its model calls it ("PERSON", "GPE", …).
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
        """Return text, label, start and end; `dataclasses.asdict` gives the byte offsets as well."""
        return {"text": self.text, "label": self.label, "start": self.start, "end": self.end}


@dataclass(frozen=True)
class MergedEntity:
    """One entity and all its mentions in a text.

    Attributes:
        text: the text of its first mention.
        label: its kind.
        mentions: all of them, in order.
    """

    text: str
    label: str
    mentions: tuple[Entity, ...]


def make_entities(text: str, spans: Iterable[Span]) -> list[Entity]:
    """Return the entities at spans of a text, which are in order and do not overlap."""
    entities = []
    # The same place in characters and in bytes: bytes are counted in one pass.
    position = offset = 0
    for start, end, label in spans:
        start_byte = offset + len(text[position:start].encode())
        found = text[start:end]
        position, offset = end, start_byte + len(found.encode())
        entities.append(Entity(found, label, start, end, start_byte, offset))
    return entities


def count_labels(entities: Iterable[Entity]) -> dict[str, int]:
    """Return how many entities have each label, the most frequent first."""
    return dict(Counter(entity.label for entity in entities).most_common())


def merge_entities(entities: Iterable[Entity]) -> list[MergedEntity]:
    """Group the mentions of the same entity, in the order of first mentions.

    Mentions are of the same entity if they have one label and their texts differ at most in case, white space and
    compatibility forms (NFKC).
    """
    mentions: dict[tuple[str, str], list[Entity]] = {}
    for entity in entities:
        key = " ".join(unicodedata.normalize("NFKC", entity.text).casefold().split())
        mentions.setdefault((key, entity.label), []).append(entity)
    return [MergedEntity(found[0].text, found[0].label, tuple(found)) for found in mentions.values()]
