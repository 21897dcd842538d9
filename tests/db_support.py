"""Helpers of the database's tests: an extractor without a model, and databases on either engine."""

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from unittest import mock

from hypothesis import given, settings

from akidb_mlx.entities import Entity
from embedded_db import DatabaseClosedError, EmbeddedDB
from tests.fake_embedder import FakeEmbedder

if TYPE_CHECKING:
    from tests.postgres_server import Databases


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


class Engine:
    """Holds the databases of a server while `open_db` opens those, and not files."""

    databases: "Databases | None" = None


def location(path) -> str:
    """Return what to open for the path of a file: itself, or the URL of a database of the same name."""
    if Engine.databases is None or str(path).startswith("postgres"):
        return path
    return Engine.databases.named("db" + hashlib.sha256(str(path).encode()).hexdigest()[:16])


def open_db(path=":memory:", **options) -> EmbeddedDB:
    fakes = {"embedder": FakeEmbedder(), "extractor": FakeExtractor(), "summarizer": FakeSummarizer()}
    options = {**fakes, "weaver": False, **options}
    if Engine.databases is None or path != ":memory:":
        return EmbeddedDB(location(path), **options)
    lent = LentConnections(Engine.databases)
    with mock.patch("embedded_db.database.connect", lambda *_: lent):
        return EmbeddedDB(lent.path, **options)


def for_examples(most: int, *strategies, **named):
    """Run a test of properties on the engine of its module; on a server, where each example takes longer, for fewer."""

    def decorate(check):
        def test(engine):
            few = most if engine == "sqlite" else most // 3
            settings(max_examples=few, deadline=None)(given(*strategies, **named)(check))()

        test.__doc__ = check.__doc__
        return test

    return decorate


class LentConnections:
    """Connections to an empty database, for the time that one in memory would be open; new ones take longer."""

    def __init__(self, databases: "Databases") -> None:
        self._databases, self._kept = databases, databases.take()
        self.path, self.ranking, self.maintain = self._kept.path, self._kept.ranking, self._kept.maintain
        self._closed = False

    def read(self):
        self._check()
        return self._kept.read()

    def write(self):
        self._check()
        return self._kept.write()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._databases.give_back(self._kept)

    def _check(self) -> None:
        if self._closed:
            raise DatabaseClosedError("the database is closed: open it again")
