"""Faults of the file, its locks and its disk, older and newer schemas, threads, and processes that are killed."""

import gzip
import random
import shutil
import threading

import apsw
import pytest

from embedded_db import (
    DatabaseBusyError,
    DatabaseClosedError,
    DatabaseError,
    DatabaseFileError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    EmbeddedDB,
    InvalidRecordError,
)
from embedded_db.sqlite.schema import APPLICATION_ID, MIGRATIONS
from tests.db_support import open_db, work_off
from tests.fake_embedder import FakeEmbedder
from tests.support import GOLDENS, run_python


def test_what_was_written_is_there_after_reopening(tmp_path):
    with open_db(tmp_path / "a.db") as db:
        message = db.create_chat().add_message(content="text")
    with open_db(str(tmp_path / "a.db")) as db:
        assert db.get_node(message.id) == message
        assert db.weaver_status()["queue_size"] == 2


def test_the_schema_of_version_1_is_opened(tmp_path):
    """The file was written by version 1 with a chat, two messages, their vectors, an entity and a queued job."""
    path = tmp_path / "a.db"
    with gzip.open(GOLDENS / "embedded-db-v1.db.gz") as old, path.open("wb") as new:
        shutil.copyfileobj(old, new)
    with open_db(path) as db:
        first, second = db.query(text_query="rust")
        assert {first.node.id, second.node.id} == {"first", "second"}
        assert db.get_embedding_for_node("first").model.name == "fake"
        (entity,) = db.get_entities_mentioned_in("first")
        assert (entity.label, entity.entity_type, entity.start, entity.end) == ("Rust", "PERSON", 0, 4)
        assert [one.id for one in db.find_shortest_path("chat", entity.node_id).nodes] == [
            "chat",
            "first",
            entity.node_id,
        ]
        assert db.weaver_status()["queue_size"] == 2
        (found,) = db.query(
            [{"field": "chat_id", "operator": "Equals", "value": "chat"}], semantic_query={"text": "Rust"}, limit=1
        )
        assert found.node.id == "first"
        db.create_message("chat", "Python")  # after which no key was used twice
        assert db.stats()["embeddings"] == 2
    connection = apsw.Connection(str(path))
    assert connection.pragma("user_version") == len(MIGRATIONS)
    assert connection.execute("SELECT name, state FROM model").get == ("fake", "active")
    kinds = "SELECT n.id, j.kind, j.size FROM job j JOIN node n ON n.key = j.node_key ORDER BY j.key LIMIT 4"
    third = connection.execute("SELECT id FROM node WHERE key = 5").get
    assert list(connection.execute(kinds)) == [
        (third, "embedding", 6),
        (third, "entities", 6),
        ("first", "links", 0),
        ("second", "links", 0),
    ]
    assert connection.execute("SELECT count(*) FROM unsummarised").get == 4
    assert connection.pragma("foreign_key_check") is None
    assert connection.pragma("integrity_check") == "ok"
    connection.close()


@pytest.mark.parametrize("messages", [19, 20])
def test_a_chat_of_version_1_gets_its_first_summary(tmp_path, messages):
    path = tmp_path / "a.db"
    connection = apsw.Connection(str(path))
    connection.execute(MIGRATIONS[0])
    connection.execute("INSERT INTO node (id, type, created_at, properties) VALUES ('chat', 'Chat', 0, '{}')")
    connection.executemany(
        "INSERT INTO node (id, type, chat_id, content, created_at, properties) VALUES (?, ?, 'chat', ?, 0, '{}')",
        [
            *((str(number), "Message", "text") for number in range(messages)),
            ("blank", "Message", " \n"),
            ("none", "Message", None),
            ("note", "Note", "text"),
        ],
    )
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", 1)
    connection.close()
    open_db(path).close()
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT count(*), min(chat_key), max(node_key) FROM unsummarised").get == (
        messages,
        1,
        messages + 1,
    )
    assert connection.execute("SELECT count(*) FROM job WHERE kind = 'summary' AND node_key = 1").get == messages // 20
    connection.close()


def test_a_newer_schema_is_refused(tmp_path):
    open_db(tmp_path / "a.db").close()
    connection = apsw.Connection(str(tmp_path / "a.db"))
    connection.pragma("user_version", len(MIGRATIONS) + 1)
    connection.close()
    with pytest.raises(DatabaseFileError, match=r"version 3 of the schema.*update akidb-mlx"):
        open_db(tmp_path / "a.db")


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("some text\n" * 100)
    with pytest.raises(DatabaseFileError, match="is no SQLite database"):
        open_db(path)
    assert path.read_text() == "some text\n" * 100


def test_the_database_of_another_program_is_refused(tmp_path):
    connection = apsw.Connection(str(tmp_path / "a.db"))
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(DatabaseFileError, match="of another program"):
        open_db(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == before  # in the journal mode that it had


def test_a_damaged_file_is_an_error(tmp_path):
    path = tmp_path / "a.db"
    with open_db(path) as db:
        for number in range(50):
            db.create_node({"type": "Note", "id": str(number), "content": "text " * 100})
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(DatabaseFileError, match="damaged"):
        open_db(path)


def test_a_file_that_is_damaged_while_it_is_open_is_an_error(tmp_path):
    path = tmp_path / "a.db"
    with open_db(path) as db:
        db.insert_nodes([{"type": "Note", "id": str(number), "content": "text " * 100} for number in range(50)])
    with open_db(path) as db:
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
        with pytest.raises(DatabaseFileError, match="damaged"):
            db.query([{"field": "content", "operator": "Contains", "value": "text"}], limit=50)


def test_a_program_that_does_not_close_its_database_ends(tmp_path):
    """The threads of the weaver do not keep the process."""
    code = (
        "import sys; from tests.db_support import open_db\n"
        "open_db(sys.argv[1], weaver=True).create_chat().add_message(content='Alice')"
    )
    done = run_python(code, 60, str(tmp_path / "a.db"))
    assert (done.returncode, done.stderr) == (0, "")
    with open_db(tmp_path / "a.db") as db:
        assert db.stats()["nodes"]["Message"] == 1


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("", InvalidRecordError, "must name a file"),
        ("a\0b", InvalidRecordError, "must name a file"),
        ("a\udcff", InvalidRecordError, r"text in UTF-8, as SQLite takes it, found 'a\\udcff'"),
        (7, InvalidRecordError, "must be a string or a path, found 7"),
        (b"a.db", InvalidRecordError, "must be a string or a path"),
        ("mysql://host/name", InvalidRecordError, "a file or postgresql://..., found 'mysql'"),
        ("{tmp}", DatabaseFileError, "cannot be opened"),
        ("{tmp}/none/a.db", DatabaseFileError, "cannot be opened"),
    ],
)
def test_bad_paths_are_refused(tmp_path, path, error, message):
    with pytest.raises(error, match=message):
        open_db(path.replace("{tmp}", str(tmp_path)) if isinstance(path, str) else path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedder": 7}, "embedder must be"),
        ({"lock_timeout": -1}, "lock_timeout must be from 0"),
        ({"lock_timeout": "5"}, "a number"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InvalidRecordError, match=message):
        open_db(**options)


def test_the_default_path(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with EmbeddedDB.with_default_path("notes", embedder=FakeEmbedder(), weaver=False) as db:
        assert db.stats()["path"] == str(tmp_path / "akidb" / "notes.db")
    for name in ("", "../a", ".a", "a/b", "a" * 200):
        with pytest.raises(InvalidRecordError):
            EmbeddedDB.with_default_path(name)


def test_an_interrupt_within_a_transaction_leaves_no_lock(tmp_path):
    """It may come right after BEGIN, before the block of the transaction."""
    with open_db(tmp_path / "a.db") as db, open_db(tmp_path / "a.db", lock_timeout=0) as other:
        with pytest.raises(KeyboardInterrupt), db._connections._lend() as connection:
            connection.execute("BEGIN IMMEDIATE")
            raise KeyboardInterrupt
        other.create_node({"type": "Note"})
        db.create_node({"type": "Note"})


def test_each_connection_asks_for_a_full_sync(tmp_path):
    with open_db(tmp_path / "a.db") as db, db._connections._lend(), db._connections._lend() as second:
        names = ("synchronous", "fullfsync", "checkpoint_fullfsync")
        assert [second.pragma(name) for name in names] == [2, 1, 1]


def test_another_writer_is_waited_for_and_then_named(tmp_path):
    with open_db(tmp_path / "a.db", lock_timeout=0.1) as db:
        node = db.create_node({"type": "Note"})
        other = apsw.Connection(str(tmp_path / "a.db"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusyError, match=r"another process for more than 0\.1 s"):
            db.create_node({"type": "Note"})
        assert db.get_node(node.id) == node  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        db.create_node({"type": "Note"})


def test_the_full_text_is_merged_a_part_at_a_time(tmp_path, monkeypatch):
    """So other writers wait for a part only."""
    monkeypatch.setattr("embedded_db.sqlite.connection._MERGED", 2)
    turns = []
    with open_db(tmp_path / "a.db") as db:
        for number in range(40):
            words = " ".join(f"w{number}x{other}" for other in range(400))
            db.create_node({"type": "Note", "content": words})
        write = db._connections.write
        monkeypatch.setattr(db._connections, "write", lambda: turns.append(1) or write())
        db._connections.maintain()
        with db._connections.read() as tx:
            assert tx.value("SELECT count(DISTINCT segid) FROM node_text_idx") == 1
        assert len(turns) > 2
        assert len(db.query(text_query="w7x399")) == 1
        turns.clear()
        db._connections.maintain()
        assert len(turns) <= 2


def test_a_full_disk_is_an_error_and_nothing_is_lost(tmp_path):
    with open_db(tmp_path / "a.db") as db:
        node = db.create_node({"type": "Note"})
        with db._connections._lend() as connection:
            pages = connection.pragma("page_count")
            connection.pragma("max_page_count", pages)
        with pytest.raises(DatabaseFullError, match="no space is left"):
            db.create_node({"type": "Note", "content": "text " * 10000})
        assert db.get_node(node.id) == node
        with db._connections._lend() as connection:
            connection.pragma("max_page_count", 1 << 30)
        db.create_node({"type": "Note", "content": "text " * 10000})
        assert db.stats()["nodes"] == {"Note": 2}


def test_a_file_that_cannot_be_written_can_be_read(tmp_path):
    with open_db(tmp_path / "a.db") as db:
        node = db.create_node({"type": "Note"})
        with db._connections._lend() as connection:
            connection.pragma("query_only", True)
        with pytest.raises(DatabaseReadOnlyError, match="cannot be written"):
            db.create_node({"type": "Note"})
        assert db.get_node(node.id) == node


def test_a_closed_database_says_so(tmp_path):
    for path in (":memory:", tmp_path / "a.db"):
        db = open_db(path)
        db.close()
        db.close()
        with pytest.raises(DatabaseClosedError, match="is closed"):
            db.get_node("a")


@pytest.mark.parametrize("place", [":memory:", "a.db"])
def test_many_threads_write_and_ask_at_once(tmp_path, place):
    failures = []
    with open_db(place if place == ":memory:" else tmp_path / place, lock_timeout=60) as db:
        chat = db.create_chat()

        def work(worker):
            try:
                for number in range(10):
                    message = chat.add_message(content=f"text {worker} {number}")
                    db.create_embedding(message.id, [1.0, worker, number], "model")
                    assert db.search_vectors([1.0, worker, number], top_k=1)[0].similarity_score > 0.999
                    assert db.query(text_query=f"{worker}", limit=100)
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(db.search_vectors([1.0, 0.0, 0.0], top_k=1000)) == 80
        assert db.stats()["edges"] == {"CONTAINS": 80}


FORKED = """
import gc, os, sys
from embedded_db import DatabaseClosedError
from tests.db_support import open_db

path, other = sys.argv[1:]
open_db(path).close()
before = os.fork()
if not before:  # none was open at the fork
    with open_db(path) as db:
        db.create_node({"type": "Note", "id": "of the first child"})
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(before, 0)[1]) == 0

db = open_db(path)
db.create_node({"type": "Note", "id": "before"})
child = os.fork()
if not child:
    refused = 0
    for use in (lambda: db.get_node("before"), lambda: db.create_node({"type": "Note"}), lambda: open_db(path),
                lambda: open_db(other)):
        try:
            use()
        except DatabaseClosedError as error:
            refused += "forked while a database was open" in str(error) and "'spawn'" in str(error)
    db.close()
    del db
    gc.collect()
    sys.exit(refused)  # the interpreter's end closes nothing either
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
assert os.path.exists(path + "-wal") and not os.path.exists(other)
db.create_node({"type": "Note", "id": "after"})
db.close()
with open_db(path) as db:
    assert all(db.get_node(name) for name in ("of the first child", "before", "after"))
"""


def test_a_child_that_was_forked_while_a_database_was_open_is_refused(tmp_path):
    """It has its parent's table of locks: what it wrote would be lost with the log that the parent removes."""
    done = run_python(FORKED, 60, str(tmp_path / "a.db"), str(tmp_path / "b.db"))
    assert (done.returncode, done.stderr) == (0, "")


KILLED = """
import os, random, select, signal, sys, time
from tests.db_support import open_db

path, rounds, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)

def live(role, number, pipe):
    db = open_db(path, weaver=True, lock_timeout=60)
    db._weaver._lease_s = 0.2  # so that jobs of the killed are taken over in these rounds
    if role == "worker":
        db.set_activity_level("SleepMode")
        time.sleep(600)
    chat = db.get_node("chat")
    for count in range(10 ** 9):
        message = chat.add_message(content="Alice met Bob", id=f"{number}-{os.getpid()}-{count}")
        os.write(pipe, (message.id + chr(10)).encode())

for number in range(rounds):
    reading, writing = os.pipe()
    children = []
    for role in ("writer", "writer", "worker"):
        child = os.fork()  # no database is open here
        if not child:
            live(role, number, writing)
        children.append(child)
    os.close(writing)
    if number % 3:  # else perhaps while the file is being opened
        select.select([reading], [], [])
    time.sleep(chance.random() * 0.2)
    for child in children:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as acknowledged:
        sys.stdout.write(acknowledged.read())
    for child in children:
        os.waitpid(child, 0)
"""


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_what_was_acknowledged_survives_a_kill_and_is_enriched_once(tmp_path, rounds):
    """Two processes that write and enrich, and one that also links and summarises, are killed round by round."""
    path, seed = tmp_path / "a.db", random.randrange(1 << 30)
    with open_db(path) as db:
        db.create_node({"type": "Chat", "id": "chat"})
    # One thread, since the process forks.
    done = run_python(KILLED, 600, str(path), str(rounds), str(seed), OPENBLAS_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (0, ""), f"seed {seed}"
    acknowledged = done.stdout.split()
    assert len(acknowledged) >= rounds // 2
    connection = apsw.Connection(str(path))
    assert connection.pragma("integrity_check") == "ok"
    assert connection.pragma("foreign_key_check") is None
    connection.execute("UPDATE job SET leased_until = 0")  # in place of a wait for the leases of those that were killed
    connection.close()
    with open_db(path) as db:
        db.set_activity_level("SleepMode")
        work_off(db)
        while db.retry_failed():  # a job that was killed five times is given up
            work_off(db)
        for message_id in acknowledged:
            assert [one.label for one in db.get_entities_mentioned_in(message_id)] == ["Alice", "Bob"]
            assert db.get_embedding_for_node(message_id) is not None
        stats = db.stats()
        assert (stats["queue_size"], stats["failed"]) == (0, 0)
        messages, summaries = stats["nodes"]["Message"], stats["nodes"].get("Summary", 0)
        assert messages >= len(acknowledged)
        assert stats["nodes"]["Entity"] == 2
        assert stats["embeddings"] == messages
        assert summaries == messages // 20
        edges = stats["edges"]
        # All messages are equal, and at most three were linked before there were three others.
        assert 3 * (messages - 3) <= edges.pop("IS_SEMANTICALLY_SIMILAR_TO") <= 3 * messages
        assert edges.pop("SUMMARIZES", 0) == 20 * summaries
        assert edges == {"CONTAINS": messages + summaries, "MENTIONS": 2 * messages}
        with db._connections.read() as tx:
            links = "FROM edge WHERE type = 'IS_SEMANTICALLY_SIMILAR_TO'"
            assert tx.row(f"SELECT 1 {links} GROUP BY from_key HAVING count(*) > 3") is None
            assert tx.row(f"SELECT 1 {links} GROUP BY from_key, to_key HAVING count(*) > 1") is None
            covered = tx.value("SELECT count(DISTINCT to_key) FROM edge WHERE type = 'SUMMARIZES'")
        assert covered == 20 * summaries


FULL = """
import os, resource, signal, sys
from embedded_db import DatabaseFileError
from tests.db_support import open_db

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = sys.argv[1]
with open_db(path, weaver=True) as db:
    chat = db.create_chat()
    first = chat.add_message(content="Alice")
    db.wait_until_enriched(first.id)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(os.path.getsize(path), os.path.getsize(path + "-wal"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + (64 << 10), hard))
    kept = []
    try:
        for number in range(10 ** 6):
            kept.append(chat.add_message(content="Bob " * 2000).id)
    except DatabaseFileError as error:
        print(type(error).__name__, error)
    assert all(db.get_node(one) for one in kept)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    last = chat.add_message(content="Carol")
    for one in (*kept, last.id):
        db.wait_until_enriched(one, timeout=60)
    assert db.stats()["failed"] == 0
with open_db(path) as db:
    assert all(db.get_node(one) for one in (first.id, *kept, last.id))
"""


def test_a_disk_that_fills_up_costs_nothing_that_was_acknowledged(tmp_path):
    """A limit on the size of files stands for the disk; the weaver waits and goes on when there is room."""
    done = run_python(FULL, 120, str(tmp_path / "a.db"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Database"), done.stdout


READ_ONLY = """
import os, shutil, tempfile
from embedded_db import DatabaseFileError
from tests.db_support import open_db

folder = tempfile.mkdtemp(dir="/tmp")
path = os.path.join(folder, "a.db")
open_db(path).close()
for mode in (0o755, 0o555):
    os.chmod(path, 0o444)
    os.chmod(folder, mode)
    root = not os.geteuid()
    if root:
        os.seteuid(65534)  # root may write everything
    try:
        open_db(path)
    except DatabaseFileError as error:
        print(type(error).__name__, error)
    if root:
        os.seteuid(0)
os.chmod(folder, 0o755)
shutil.rmtree(folder)
"""


def test_a_file_that_may_only_be_read_is_an_error_when_it_is_opened():
    """The log beside it could not be written."""
    done = run_python(READ_ONLY, 60)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert "cannot be" in first
    assert "cannot be" in second


def test_an_error_of_sqlite_that_nobody_expects_is_one_of_the_tree():
    with open_db() as db, pytest.raises(DatabaseError, match="SQLite failed"), db._connections.read() as tx:
        tx.rows("SELECT no_such_column")
