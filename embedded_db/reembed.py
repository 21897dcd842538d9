"""Another model for all vectors: the new ones are computed beside the old ones, which answer until a single switch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np
from typing_extensions import TypedDict

from akidb_mlx.embedder import Embedder
from akidb_mlx.vectors import EmbeddingBatch
from embedded_db import embeddings, jobs
from embedded_db.checks import parse_vector
from embedded_db.engine import Connections, Transaction
from embedded_db.errors import DatabaseError, InvalidRecordError, excerpt
from embedded_db.identities import agree, identity
from embedded_db.records import MESSAGE, SIMILAR, ModelIdentity

# Called with how many vectors are done, and how many there are.
Progress = Callable[[int, int], None]
# After so many passes, so many of the last texts, of so many characters together, are embedded while other writers
# wait, so that the run ends even while messages arrive all the time.
_PASSES, _LAST, _LAST_CHARACTERS = 5, 8, 1 << 14
# Texts that are embedded to estimate the rest, and vectors that are deleted at once.
_SAMPLE, _DELETED = 64, 500
# All characters of which `jobs.has_text` says that they are no text.
_SPACES = "".join(character for character in map(chr, range(0x3001)) if character.isspace())
# Vectors of the active model without one of the next.
_REMAINING = (
    " FROM embedding e JOIN node n ON n.key = e.node_key WHERE e.model_key = :active AND NOT EXISTS"
    " (SELECT 1 FROM embedding x WHERE x.model_key = :next AND x.node_key = e.node_key)"
)


class ReembedReport(TypedDict):
    """The work of a change of the model; with `dry_run` the work that a run would have, as far as it can be estimated.

    Attributes:
        model: the new model.
        vectors: vectors to compute.
        done: vectors that an interrupted run had computed.
        tokens: tokens of the texts.
        seconds: time without loading the model.
    """

    model: str
    vectors: int
    done: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class _Text:
    node_key: int
    content: str


class Reembedding:
    """One run of a change to another model."""

    def __init__(
        self,
        connections: Connections,
        embedder: Embedder,
        progress: Progress | None,
        take_over: Callable[[], None],
    ) -> None:
        """Keep what is needed; nothing is done yet.

        Args:
            connections: those of the database.
            embedder: the new model.
            progress: see `EmbeddedDB.reembed`.
            take_over: called as soon as the vectors of the new model answer.
        """
        self._connections = connections
        self._embedder = embedder
        self._progress = progress
        self._take_over = take_over
        self._model = identity(embedder)
        self._tokens = 0

    def estimate(self) -> ReembedReport:
        """Report the work that is left; a sample of the texts is embedded, and nothing is written."""
        with self._connections.read() as tx:
            if self._is_current(tx):
                return self._report(0, 0, 0.0)
            keys = _keys(tx, self._model)
            _check_texts(tx, keys)
            left, characters, lowest, highest = tx.rows(
                "SELECT count(*), coalesce(sum(length(n.content)), 0), min(e.node_key), max(e.node_key)" + _REMAINING,
                **keys,
            )[0]
            if not left:
                return self._report(0, _count(tx, keys["next"]), 0.0)
            sample = {
                text
                for start in np.linspace(lowest, highest, _SAMPLE).astype(int).tolist()
                for text in _remaining(tx, keys, start - 1, 1)
            }
            done = _count(tx, keys["next"])
        texts = [text.content for text in sample]
        self._embed(texts[:1])  # the first call of a model takes longer
        self._tokens, start_s = 0, time.perf_counter()
        self._embed(texts)
        share = characters / sum(map(len, texts))
        self._tokens = round(self._tokens * share)
        return self._report(left, done, (time.perf_counter() - start_s) * share)

    def run(self) -> ReembedReport:
        """Compute what is left, switch to the new vectors, and delete the old ones."""
        start_s = time.perf_counter()
        with self._connections.write() as tx:
            keys = self._begin(tx)
        if keys is None:
            self._take_over()
            delete_retired(self._connections)
            return self._report(0, 0, 0.0)
        with self._connections.read() as tx:
            done, total = _count(tx, keys["next"]), _count(tx, keys["active"])
        computed = 0
        for number in count(1):
            computed += self._compute(keys, done + computed, total)
            with self._connections.write() as tx:
                self._check_ours(tx, keys)
                last = _remaining(tx, keys, -1, _LAST + 1)
                if not last or (number >= _PASSES and _are_few(last)):
                    if last:
                        self._put(tx, keys, last, self._embed([text.content for text in last]))
                    _switch(tx, keys)
                    break
        self._take_over()
        computed += len(last)
        if last:
            self._tell(done + computed, done + computed)
        delete_retired(self._connections)
        return self._report(computed, done, time.perf_counter() - start_s)

    def _is_current(self, tx: Transaction) -> bool:
        stored = embeddings.find_model(tx)
        return stored is None or agree(stored, self._model)

    def _begin(self, tx: Transaction) -> dict[str, int] | None:
        """Return the keys of the old model and of the new one; None where they are the same."""
        planned = embeddings.find_model(tx, "next")
        if planned is not None and planned != self._model:
            tx.run("UPDATE model SET state = 'retired' WHERE state = 'next'")
        if self._is_current(tx):
            return None
        if planned != self._model:
            embeddings.insert_model(tx, self._model, "next")
        keys = _keys(tx, self._model)
        _check_texts(tx, keys)
        return keys

    def _compute(self, keys: dict[str, int], done: int, total: int) -> int:
        """Compute the vectors of one pass over the nodes that there are now, and return their number."""
        computed, last = 0, -1
        with self._connections.read() as tx:
            end = tx.value("SELECT coalesce(max(node_key), -1) FROM embedding WHERE model_key = :active", **keys)
        while last < end:
            with self._connections.read() as tx:
                batch = _bounded(_remaining(tx, keys, last, jobs.BATCH))
            if not batch:
                break
            vectors = self._embed([text.content for text in batch])
            with self._connections.write() as tx:
                self._check_ours(tx, keys)
                self._put(tx, keys, batch, vectors)
            computed, last = computed + len(batch), batch[-1].node_key
            self._tell(min(done + computed, total), total)
        return computed

    def _check_ours(self, tx: Transaction, keys: dict[str, int]) -> None:
        """Refuse to go on after another process has changed the model, or begun to."""
        if (embeddings.model_key(tx), embeddings.model_key(tx, "next")) != (keys["active"], keys["next"]):
            raise DatabaseError(f"the change to {self._model} was ended by another change of the model: call it again")

    def _embed(self, texts: list[str]) -> EmbeddingBatch:
        batch = self._embedder.embed_detailed(texts, input_type="document")
        self._tokens += sum(batch.token_counts)
        return batch

    def _put(self, tx: Transaction, keys: dict[str, int], texts: list[_Text], batch: EmbeddingBatch) -> None:
        """Store vectors, except of nodes whose text has changed or is gone."""
        rows = tx.rows(
            "SELECT n.key, n.content FROM node n JOIN embedding e ON e.node_key = n.key AND e.model_key = :active"
            f" WHERE n.key IN ({tx.each('keys')})",
            keys=[text.node_key for text in texts],
            active=keys["active"],
        )
        current = dict(rows)
        new = {
            text.node_key: parse_vector(vector)
            for text, vector in zip(texts, batch.vectors, strict=True)
            if current.get(text.node_key) == text.content
        }
        embeddings.store(tx, keys["next"], new)

    def _report(self, vectors: int, done: int, seconds: float) -> ReembedReport:
        return {
            "model": str(self._model),
            "vectors": vectors,
            "done": done,
            "tokens": self._tokens,
            "seconds": seconds,
        }

    def _tell(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)


def delete_retired(connections: Connections) -> None:
    """Delete the vectors of models that answer no more, a part at a time, so that no writer waits long."""
    while True:
        with connections.write() as tx:
            key = embeddings.model_key(tx, "retired")
            if key is None:
                return
            if not tx.run(
                "DELETE FROM embedding WHERE model_key = :key AND node_key IN"
                " (SELECT node_key FROM embedding WHERE model_key = :key ORDER BY node_key LIMIT :most)",
                key=key,
                most=_DELETED,
            ):
                tx.run("DELETE FROM model WHERE key = :key", key=key)


def _keys(tx: Transaction, model: ModelIdentity) -> dict[str, int]:
    """Return the keys of the model that answers and of the one to come; -1 where nothing of it is computed yet."""
    planned = embeddings.model_key(tx, "next") if embeddings.find_model(tx, "next") == model else None
    active = embeddings.model_key(tx)
    assert active is not None
    return {"active": active, "next": -1 if planned is None else planned}


def _count(tx: Transaction, model: int) -> int:
    count: int = tx.value("SELECT count(*) FROM embedding WHERE model_key = :model", model=model)
    return count


def _remaining(tx: Transaction, keys: dict[str, int], after: int, most: int) -> list[_Text]:
    """Return the next nodes that have an old vector and no new one.

    Raises:
        InvalidRecordError: one of them has no text, as a node may that was given a vector meanwhile.
    """
    rows = tx.rows(
        f"SELECT e.node_key, n.content{_REMAINING} AND e.node_key > :after ORDER BY e.node_key LIMIT :most",
        after=after,
        most=most,
        **keys,
    )
    if not all(jobs.has_text(content) for _, content in rows):
        _check_texts(tx, keys)
    return [_Text(key, content) for key, content in rows]


def _are_few(texts: list[_Text]) -> bool:
    """Return whether texts are soon embedded, so that other writers can wait for it."""
    return len(texts) <= _LAST and sum(len(text.content) for text in texts) <= _LAST_CHARACTERS


def _bounded(texts: list[_Text]) -> list[_Text]:
    """Return the beginning of texts that is embedded at once."""
    characters, bounded = 0, list[_Text]()
    for text in texts:
        characters += len(text.content)
        if bounded and characters > jobs.BATCH_CHARACTERS:
            break
        bounded.append(text)
    return bounded


def _check_texts(tx: Transaction, keys: dict[str, int]) -> None:
    """Refuse nodes that have a vector and no text that another could be computed of."""
    found, example = tx.rows(
        "SELECT count(*), min(n.id) FROM embedding e JOIN node n ON n.key = e.node_key WHERE e.model_key = :active"
        " AND (n.content IS NULL OR trim(n.content, :spaces) = '')",
        active=keys["active"],
        spaces=_SPACES,
    )[0]
    if found:
        raise InvalidRecordError(
            f"{found} vectors belong to nodes without content, which another model cannot embed, as "
            f"{excerpt(example)}: delete them with delete_embedding"
        )


def _switch(tx: Transaction, keys: dict[str, int]) -> None:
    """Let the new vectors answer; the links, which came of the old ones, are looked for anew."""
    tx.run("UPDATE model SET state = 'retired' WHERE key = :key", key=keys["active"])
    tx.run("UPDATE model SET state = 'active' WHERE key = :key", key=keys["next"])
    tx.run("DELETE FROM edge WHERE type = :type AND woven = 1", type=SIMILAR)
    tx.run("DELETE FROM job WHERE kind = 'links'")
    tx.run(
        "INSERT INTO job (node_key, kind) SELECT e.node_key, 'links' FROM embedding e JOIN node n ON n.key = e.node_key"
        " WHERE e.model_key = :model AND n.type = :type ORDER BY e.node_key",
        model=keys["next"],
        type=MESSAGE,
    )
