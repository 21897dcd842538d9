"""Helpers of the database's tests: an extractor without a model, and databases that enrich at once."""

import re
from collections.abc import Iterable

from akidb_mlx.entities import Entity
from embedded_db import EmbeddedDB
from tests.fake_embedder import FakeEmbedder


class FakeExtractor:
    """Takes every word with a capital for a person; a text with "fault" fails, as long as `faulty` is set."""

    def __init__(self) -> None:
        self.faulty = True
        self.calls: list[list[str]] = []

    def extract_batch(self, texts: Iterable[str]) -> list[list[Entity]]:
        given = list(texts)
        self.calls.append(given)
        if self.faulty and any("fault" in text for text in given):
            raise RuntimeError("the extractor failed")
        return [
            [Entity(word[0], "PERSON", *word.span(), *word.span()) for word in re.finditer(r"[A-Z]\w+", text)]
            for text in given
        ]


def open_db(path=":memory:", **options) -> EmbeddedDB:
    return EmbeddedDB(path, **{"embedder": FakeEmbedder(), "extractor": FakeExtractor(), "weaver": False, **options})
