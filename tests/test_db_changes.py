"""The list of changed vectors, which maintenance trims, and those who are behind it."""

import numpy as np
import pytest

from embedded_db import changes
from embedded_db.engine import ALL
from embedded_db.sqlite import matrix
from tests.db_support import Engine, open_db, work_off

pytestmark = pytest.mark.usefixtures("engine")


def nearest(db):
    return [one.node.id for one in db.search_vectors([1.0, 0.0], top_k=10)]


def listed(db):
    with db._connections.read() as tx:
        return tx.rows("SELECT change, node_key FROM embedding_change ORDER BY change")


def fill(db, count):
    names = [f"n{number}" for number in range(count)]
    db.insert_nodes([{"type": "Note", "id": name} for name in names])
    db.insert_embeddings([(name, [1.0, number / 10]) for number, name in enumerate(names)], "model")
    return names


def test_one_row_is_left_of_all_that_is_gone(monkeypatch):
    monkeypatch.setattr(changes, "_TOGETHER", 3)
    with open_db() as db:
        names = fill(db, 12)
        kept = listed(db)[-2:]  # an earlier test may have had the database, and left others
        for name in names[:10]:
            db.delete_node(name)
        before = listed(db)
        changes.trim(db._connections)
        assert listed(db) == [*kept, (before[-1][0], changes.MARK)]
        changes.trim(db._connections)
        assert len(listed(db)) == 3
        db.delete_node(names[10])
        before = listed(db)
        changes.trim(db._connections)
        assert listed(db) == [kept[1], (before[-1][0], changes.MARK)]
        assert nearest(db) == names[11:]


def test_nothing_is_trimmed_of_vectors_that_are_there():
    with open_db() as db:
        changes.trim(db._connections)  # an earlier test may have had the database
        fill(db, 3)
        before = listed(db)
        changes.trim(db._connections)
        assert listed(db) == before


def test_sleep_trims_the_list():
    with open_db() as db:
        for name in fill(db, 3):
            db.delete_node(name)
        db.set_activity_level("SleepMode")
        work_off(db)
        db._weaver._tidy()
        assert [key for _, key in listed(db)] == [changes.MARK]


def test_a_process_that_is_behind_reads_all_vectors_anew(tmp_path, monkeypatch):
    """And one that has seen what is gone does not."""
    loads = []
    load = matrix.VectorMatrix._load
    monkeypatch.setattr(matrix.VectorMatrix, "_load", lambda *given: loads.append(given[0]) or load(*given))
    with open_db(tmp_path / "a.db") as here, open_db(tmp_path / "a.db") as there:
        names = fill(here, 6)
        assert nearest(here) == nearest(there) == names
        for name in names[:2]:
            here.delete_node(name)
        here.delete_embedding(names[2])
        assert nearest(here) == names[3:]
        loads.clear()
        changes.trim(here._connections)
        here.create_embedding(names[2], [1.0, 0.9], "model")
        expected = [*names[3:], names[2]]
        assert nearest(here) == expected
        assert loads == []
        assert nearest(there) == expected
        assert loads == ([there._connections.ranking] if Engine.databases is None else [])
        here.delete_node(names[5])
        assert nearest(there) == nearest(here) == [*names[3:5], names[2]]


@pytest.mark.parametrize("gone", [True, False])
def test_links_that_were_found_before_a_trim_are_looked_for_again(gone):
    """Their node may be gone, which the list does not say any more."""
    with open_db() as db:
        chat = db.create_chat()
        *_, third = (chat.add_message(content="aaaa") for _ in range(3))
        while db._weaver.work("embedding"):
            pass
        tasks = db._weaver._tasks
        compute = tasks.compute

        def interrupted(kind, claimed):
            tasks.compute = compute
            write = compute(kind, claimed)
            if gone:
                db.delete_embedding(third.id)
                changes.trim(db._connections)
            return write

        tasks.compute = interrupted
        while db._weaver.work("links"):
            pass
        with db._connections.read() as tx:
            linked = tx.value(
                "SELECT count(*) FROM edge WHERE type = 'IS_SEMANTICALLY_SIMILAR_TO' AND to_key ="
                " (SELECT key FROM node WHERE id = :id)",
                id=third.id,
            )
            assert linked == (0 if gone else 2)
            assert tx.value("SELECT count(*) FROM edge WHERE type = 'IS_SEMANTICALLY_SIMILAR_TO'") == (2 if gone else 6)


def test_a_matrix_that_is_made_after_a_trim_begins_behind_nothing():
    if Engine.databases is not None:
        pytest.skip("a server compares the vectors itself")
    with open_db() as db:
        names = fill(db, 3)
        db.delete_node(names[2])
        changes.trim(db._connections)
        late = matrix.VectorMatrix()
        with db._connections.read() as tx:
            query = np.array([1.0, 0.0], np.float32)
            assert len(late.best(tx, ALL, {}, query, 10, None)) == 2
            assert late._change == changes.last(tx)
