"""Helpers of the database's tests: an extractor without a model, and databases on either engine."""

import hashlib
import re
import weakref
from collections.abc import Iterable

from akidb_mlx.entities import Entity
from embedded_db import EmbeddedDB
from tests.fake_embedder import FakeEmbedder
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
    """Where `open_db` opens databases: in files, or in `databases` of a server while there are some."""

    databases: Databases | None = None


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
    url = Engine.databases.take()
    db = EmbeddedDB(url, **options)
    db.close = _Close(db, Engine.databases, url)
    return db


class _Close:
    """Closes a database in memory and gives the server's back that stands for it; keeps neither."""

    def __init__(self, db: EmbeddedDB, databases: Databases, url: str) -> None:
        self._db, self._databases, self._url = weakref.ref(db), databases, url
        self._done = False

    def __call__(self) -> None:
        if not self._done:
            with self._db()._connections.write() as tx:
                tx.run("DELETE FROM node")
                tx.run("DELETE FROM model")
            self._databases.give_back(self._url)
        self._done = True
        EmbeddedDB.close(self._db())
