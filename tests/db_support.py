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


class FakeSummarizer:
    """Joins the first words of messages."""

    def __init__(self) -> None:
        self.calls: list[list[dict]] = []

    def summarize(self, messages: Iterable[dict]) -> str:
        given = list(messages)
        self.calls.append(given)
        return " ".join(one["content"].split()[0] for one in given)


def work_off(db: EmbeddedDB) -> None:
    """Do all jobs of the present level of activity on this thread."""
    for kind in db._activity.kinds():
        while db._weaver.work(kind):
            pass


def open_db(path=":memory:", **options) -> EmbeddedDB:
    fakes = {"embedder": FakeEmbedder(), "extractor": FakeExtractor(), "summarizer": FakeSummarizer()}
    return EmbeddedDB(path, **{**fakes, "weaver": False, **options})
