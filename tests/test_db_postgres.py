"""PostgreSQL's own faults and limits: connections, roles, versions, forks, kills, the index of vectors, and words."""

import gc
import logging
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from itertools import count
from unittest import mock

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded_db import (
    DatabaseBusyError,
    DatabaseClosedError,
    DatabaseConnectionError,
    DatabaseError,
    DatabaseFileError,
    DatabaseReadOnlyError,
    EmbeddedDB,
    InvalidRecordError,
    StructuralFilter,
    jobs,
)
from embedded_db.postgres import connection, ranking, schema, text
from embedded_db.postgres.filters import Conditions
from tests.db_support import Engine, FakeExtractor, open_db
from tests.fake_embedder import FakeEmbedder
from tests.postgres_server import PASSWORD
from tests.support import GOLDENS, run_python, wait_until

NUMBERS = count()


@pytest.fixture
def databases(postgres_databases):
    Engine.databases = postgres_databases
    yield postgres_databases
    Engine.databases = None


@pytest.fixture
def admin(postgres):
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def url(databases):
    """A database that the test shares with later ones, which find it empty."""
    connections = databases.take()
    yield databases.server.url(connections.path.rsplit("/", 1)[1])
    databases.give_back(connections)


@pytest.fixture
def own_url(databases, admin):
    """A database that the test may spoil."""
    name = f"own{next(NUMBERS)}"
    yield databases.named(name)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def bare(admin):
    """A database without the schema."""
    name = f"bare{next(NUMBERS)}"
    admin.execute(f"CREATE DATABASE {name}")
    yield name
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def role(connection, name):
    connection.execute(f"DROP ROLE IF EXISTS {name}")
    connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    return name


def assert_no_password(error):
    shown = "".join(traceback.format_exception(error))
    assert PASSWORD not in shown
    assert "cr%2Fet" not in shown


# Opening


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda url: url.replace("akidb-pg", "akidb-none"), "No such file"),
        (lambda url: url.replace("owner:", "stranger:"), "authentication failed"),
        (lambda url: url.replace("/free", "/none"), "does not exist"),
    ],
)
def test_a_server_that_cannot_be_reached_is_named_without_the_password(url, change, cause, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DatabaseConnectionError, match=f"cannot be reached.*{cause}") as caught:
        open_db(change(url))
    assert_no_password(caught.value)
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://owner:{PASSWORD}@host/name",  # not escaped
        f"postgresql://host/name?no_such={PASSWORD}",
        f"postgresql://owner@host:port{PASSWORD}/name",
        "postgresql://owner:se@cr%2Fet@host/name",
        "postgresql://owner:5432/se:cr/et@host/name",
        f"postgresql://owner:{PASSWORD}\0@host/name",
        f"postgresql://owner:{PASSWORD}\udcff@host/name",
    ],
)
def test_a_url_that_cannot_be_read_is_not_shown(url):
    with pytest.raises(InvalidRecordError, match="cannot be read: it is postgresql://user:password@host") as caught:
        open_db(url)
    assert_no_password(caught.value)


def test_the_password_is_nowhere_to_be_seen(url):
    with open_db(url) as db:
        assert db.stats()["path"].startswith("postgresql://owner@/")
        assert PASSWORD not in repr(db) + str(db.stats())


def test_without_psycopg_the_extra_is_named():
    done = run_python(
        "import sys; sys.modules['psycopg'] = None\nimport embedded_db\nembedded_db.EmbeddedDB('postgresql://host/name')"
    )
    assert "pip install 'akidb-mlx[postgres]'" in done.stderr


def test_a_server_without_pgvector_says_what_to_do(postgres, bare, monkeypatch):
    monkeypatch.setattr(schema, "_EXTENSION", "no_such_extension")
    with pytest.raises(DatabaseFileError, match=r"has no pgvector: install pgvector.*CREATE EXTENSION vector"):
        open_db(postgres.url(bare))


def test_a_role_that_may_not_enable_pgvector_says_what_to_do(postgres, bare, admin):
    maker = role(admin, "maker")
    admin.execute(f"GRANT CREATE ON DATABASE {bare} TO {maker}")
    with pytest.raises(DatabaseFileError, match=r"this role cannot enable.*superuser"):
        open_db(postgres.url(bare, user=maker))
    with psycopg.connect(postgres.url(bare), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA elsewhere CREATE TABLE node (a int)")
        connection.execute("CREATE EXTENSION vector SCHEMA elsewhere")
        connection.execute(f"GRANT USAGE ON SCHEMA elsewhere TO {maker}")
    with open_db(postgres.url(bare, user=maker)) as db:
        assert db.create_chat().type == "Chat"


def test_an_encoding_without_all_characters_is_refused(postgres, admin):
    admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(DatabaseFileError, match="has the encoding LATIN1, and UTF8 is needed"):
        open_db(postgres.url("latin"))


def test_the_schema_of_another_program_is_refused(postgres, bare):
    with psycopg.connect(postgres.url(bare)) as connection:
        connection.execute("CREATE SCHEMA akidb CREATE TABLE theirs (a int)")
    with pytest.raises(DatabaseFileError, match="a schema akidb of another program"):
        open_db(postgres.url(bare))


def test_tables_of_other_programs_are_left_alone(postgres, bare):
    with psycopg.connect(postgres.url(bare)) as connection:
        connection.execute("CREATE TABLE node (a int)")
    with open_db(postgres.url(bare)) as db:
        db.create_chat()
    with psycopg.connect(postgres.url(bare)) as connection:
        assert connection.execute("SELECT count(*) FROM node").fetchone() == (0,)


def test_a_newer_schema_is_refused(own_url):
    with psycopg.connect(own_url) as connection:
        connection.execute("UPDATE akidb.schema_version SET version = version + 1")
    with pytest.raises(DatabaseFileError, match=r"of the schema.*update akidb-mlx"):
        open_db(own_url)


# Roles, locks and connections that end


def test_a_role_that_may_only_read(postgres, own_url, admin):
    name = own_url.split("@/")[1].split("?")[0]
    with open_db(own_url) as db:
        node = db.create_node({"type": "Note", "content": "rust"})
    reader = role(admin, f"reader{next(NUMBERS)}")
    with pytest.raises(DatabaseReadOnlyError, match=f"the role '{reader}' may not do this.*GRANT"):
        open_db(postgres.url(name, user=reader))
    with psycopg.connect(own_url) as connection:
        connection.execute(f"GRANT USAGE ON SCHEMA akidb TO {reader}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA akidb TO {reader}")
    with open_db(postgres.url(name, user=reader)) as db:
        assert db.query(text_query="rust")[0].node == node
        with pytest.raises(DatabaseReadOnlyError, match="permission denied"):
            db.create_node({"type": "Note"})
        assert db.get_node(node.id) == node


def test_a_database_that_takes_no_writes(own_url):
    with psycopg.connect(own_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with open_db(own_url) as db:
        with pytest.raises(DatabaseReadOnlyError, match="cannot be written"):
            db.create_chat()
        assert db.stats()["nodes"] == {}


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_another_writer_is_waited_for_and_then_named(url, seconds):
    with open_db(url) as other, open_db(url, lock_timeout=seconds) as db:
        with other._connections.write():
            with pytest.raises(DatabaseBusyError, match=f"another connection for more than {seconds} s"):
                db.create_chat()
            assert db.stats()["nodes"] == {}  # readers do not wait
        db.create_chat()


def test_a_writer_sees_what_was_committed_before_its_turn(own_url, admin):
    """Also where the server's default is a snapshot from the beginning of a transaction, older than the lock."""
    name = own_url.split("@/")[1].split("?")[0]
    admin.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    seen = []
    with open_db(own_url) as first, open_db(own_url) as second:

        def write():
            with second._connections.write() as tx:
                seen.append(tx.value("SELECT count(*) FROM node"))

        thread = threading.Thread(target=write)
        with first._connections.write() as tx:
            tx.run(
                "INSERT INTO node (id, type, created_at, properties) VALUES ('a', 'Note', 1, CAST('{}' AS jsonb))",
            )
            thread.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_until(lambda: admin.execute(waiting).fetchone()[0])
        thread.join()
    assert seen == [1]


def test_writers_that_wait_keep_no_reader_from_a_connection(url, monkeypatch):
    monkeypatch.setattr(connection, "_MOST_CONNECTIONS", 2)
    with open_db(url, lock_timeout=60) as db:
        threads = [threading.Thread(target=db.create_chat) for _ in range(4)]
        with db._connections.write():
            for thread in threads:
                thread.start()
            db._connections._turns._timeout_s = 0.1
            with db._connections.read() as tx:
                assert tx.value("SELECT count(*) FROM node") == 0
        for thread in threads:
            thread.join()
        assert db.stats()["nodes"] == {"Chat": 4}


def test_a_new_connection_that_cannot_begin_is_closed(url):
    with open_db(url) as db:
        opened = []
        open_one = db._connections._open
        db._connections._idle.pop().close()
        db._connections._open = lambda: opened.append(open_one()) or opened[-1]
        with pytest.raises(DatabaseError), db._connections._lend("BEGIN NONSENSE"):
            pass
        assert opened[0].closed
        db._connections._open = open_one


@pytest.mark.parametrize("skew", [-90, -5, 5, 90])
def test_clients_whose_clocks_differ_take_no_job_from_each_other(url, skew, monkeypatch):
    with open_db(url) as one, open_db(url) as other:
        one.create_chat().add_message(content="text")
        now = time.time
        with one._connections.write() as tx:
            (job,) = jobs.claim(tx, "embedding", 60)
        monkeypatch.setattr(time, "time", lambda: now() + skew)
        with other._connections.write() as tx:
            assert jobs.claim(tx, "embedding", 60) == []
            jobs.fail(tx, job, "failed")
        monkeypatch.undo()
        with one._connections.read() as tx:
            assert tx.value("SELECT due FROM job WHERE kind = 'embedding'") - now() == pytest.approx(0.5, abs=0.5)


def test_a_reader_sees_one_state(url):
    with open_db(url) as db, db._connections.read() as tx:
        assert tx.value("SELECT count(*) FROM node") == 0
        db.create_chat()
        assert tx.value("SELECT count(*) FROM node") == 0


def test_a_connection_that_ends_undoes_its_transaction_and_the_next_one_works(url, admin):
    with open_db(url) as db:
        with pytest.raises(DatabaseConnectionError, match="ended the connection"), db._connections.write() as tx:
            tx.run("INSERT INTO model (name, revision, dimension, prompt, state) VALUES ('a', '', 1, '', 'active')")
            admin.execute("SELECT pg_terminate_backend(%s)", [tx.value("SELECT pg_backend_pid()")])
            tx.value("SELECT 1")
        assert db.stats()["model"] is None
        db.create_chat()


def test_a_server_that_is_away_is_an_error_until_it_is_back(postgres, databases, url):
    with open_db(url) as db:
        db.create_node({"type": "Note", "id": "before"})
        postgres.stop()
        try:
            for use in (lambda: db.get_node("before"), lambda: db.create_chat(), lambda: open_db(url)):
                with pytest.raises(DatabaseConnectionError, match="see that the server runs") as caught:
                    use()
                assert_no_password(caught.value)
        finally:
            postgres.start()
            databases.reconnect()
        assert db.get_node("before") is not None
        db.create_node({"type": "Note", "id": "after"})


def test_a_server_that_is_away_costs_a_message_no_attempt(postgres, databases, url):
    """The results of a batch are lost with the server, and computed again."""
    embedder = FakeEmbedder()
    with open_db(url, embedder=embedder) as db:
        message = db.create_chat().add_message(content="text")
        embedder.open.clear()

        def work():
            with pytest.raises(DatabaseConnectionError):
                db._weaver.work("embedding")

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: embedder.calls)
        postgres.stop()
        try:
            embedder.open.set()
            thread.join()
        finally:
            postgres.start()
            databases.reconnect()
        db._weaver.retry_now()
        assert db._weaver.work("embedding")
        assert db.get_embedding_for_node(message.id) is not None


def test_a_weaver_outlives_its_server(postgres, databases, url):
    with open_db(url, weaver=True) as db:
        chat = db.create_chat()
        postgres.stop()
        try:
            wait_until(lambda: "cannot be reached" in (db._weaver.last_event or ""))
        finally:
            postgres.start()
            databases.reconnect()
        message = chat.add_message(content="Alice")
        db.wait_until_enriched(message.id, timeout=60)


def test_closing_leaves_no_connection_and_says_so(own_url, admin):
    def connections():
        return admin.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [name]).fetchone()[0]

    name = own_url.split("@/")[1].split("?")[0]
    db = open_db(own_url)
    db.create_chat()
    assert connections() == 1
    db.close()
    db.close()
    wait_until(lambda: connections() == 0)
    with pytest.raises(DatabaseClosedError, match="is closed"):
        db.get_node("a")
    open_db(own_url)  # dropped at once
    gc.collect()
    wait_until(lambda: connections() == 0)


FORKED = """
import gc, os, sys
from embedded_db import DatabaseClosedError
from tests.db_support import open_db

url = sys.argv[1]
db = open_db(url)
db.create_node({"type": "Note", "id": "before"})
child = os.fork()
if not child:
    refused = 0
    for use in (lambda: db.get_node("before"), lambda: db.create_node({"type": "Note"})):
        try:
            use()
        except DatabaseClosedError as error:
            refused += "before this process was forked" in str(error)
    db.close()
    del db
    gc.collect()
    with open_db(url) as own:
        refused += own.get_node("before") is not None
    sys.exit(refused)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
db.create_node({"type": "Note", "id": "after"})
db.close()
"""


def test_a_child_that_was_forked_opens_its_own(url):
    done = run_python(FORKED, 60, url)
    assert (done.returncode, done.stderr) == (0, "")


KILLED = """
import sys
from tests.db_support import open_db
db = open_db(sys.argv[1], weaver=True)
chat = db.create_chat()
while True:
    print(chat.add_message(content="Alice met Bob", sender=sys.argv[2]).id, flush=True)
"""


@pytest.mark.parametrize("rounds", [1, pytest.param(200, marks=pytest.mark.slow)])
def test_what_was_acknowledged_survives_a_kill_and_is_enriched_once(url, rounds):
    """Two processes that write and enrich are killed at once, round by round, on the same database."""
    acknowledged = []
    for number in range(rounds):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", KILLED, url, str(name)],
                stdout=subprocess.PIPE,
                text=True,
                cwd=GOLDENS.parent.parent,
            )
            for name in range(2)
        ]
        for writer in writers:
            acknowledged += [writer.stdout.readline().strip() for _ in range(1 + number % 5)]
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            acknowledged += writer.stdout.read().split("\n")[:-1]
            writer.stdout.close()
            writer.wait()
    with psycopg.connect(url) as connection:
        # In place of a minute's wait for the leases of those that were killed.
        connection.execute("UPDATE akidb.job SET leased_until = 0")
    with EmbeddedDB(url, embedder=FakeEmbedder(), extractor=FakeExtractor()) as db:
        assert len(acknowledged) >= rounds
        wait_until(lambda: db.weaver_status()["queue_size"] == 0)
        for message_id in acknowledged:
            assert [one.label for one in db.get_entities_mentioned_in(message_id)] == ["Alice", "Bob"]
            assert db.get_embedding_for_node(message_id) is not None
        stats = db.stats()
        messages = stats["nodes"]["Message"]
        assert messages >= len(acknowledged)
        assert stats["nodes"]["Entity"] == 2
        assert stats["edges"]["CONTAINS"] == messages
        assert stats["edges"]["MENTIONS"] == 2 * messages
        assert stats["embeddings"] == messages


def test_an_error_that_nobody_expects_is_one_of_the_tree(url):
    with open_db(url) as db, pytest.raises(DatabaseError, match="PostgreSQL failed"), db._connections.read() as tx:
        tx.rows("SELECT no_such_column")


# The index of vectors


INDEX = (
    "CREATE INDEX ON akidb.unit_vector USING hnsw ((unit::vector({dimension})) vector_ip_ops) WHERE model_key = {model}"
)


def filled(db, vectors):
    db.insert_nodes([{"type": "Note", "id": name, "even": int(name) % 2 == 0, "created_at": 1} for name in vectors])
    db.insert_embeddings(vectors.items(), "model")


def create_index(url, dimension):
    with psycopg.connect(url) as connection:
        (model,) = connection.execute("SELECT key FROM akidb.model WHERE state = 'active'").fetchone()
        connection.execute(INDEX.format(dimension=dimension, model=model))


@pytest.fixture
def looks(monkeypatch):
    """The results of the index, None where all were looked at."""
    found = []
    original = ranking._nearest_by_index

    def record(*arguments):
        found.append(original(*arguments))
        return found[-1]

    monkeypatch.setattr(ranking, "_nearest_by_index", record)
    return found


def test_an_index_serves_queries_without_filters_and_no_others(own_url, looks):
    with open_db(own_url) as db:
        filled(db, {f"{number:03}": [1.0, number / 300] for number in range(300)})
        expected = [f"{number:03}" for number in range(10)]
        assert [one.node.id for one in db.search_vectors([1.0, 0.0])] == expected
        assert looks.pop() is None
        create_index(own_url, 2)
        assert [one.node.id for one in db.search_vectors([1.0, 0.0])] == expected
        assert len(looks.pop()) == 10 + ranking._SPARE
        # The index would stop before the thirtieth even one.
        even = {"property": "even", "operator": "Equals", "value": True}
        found = db.query([even], semantic_query={"vector": [1.0, 0.0]}, limit=150)
        assert [one.node.id for one in found] == [f"{number:03}" for number in range(0, 300, 2)]
        assert looks == []
        # More than the index looks at.
        assert len(db.search_vectors([1.0, 0.0], top_k=300)) == 300
        assert looks.pop() is None
        reaching = db.query(semantic_query={"vector": [1.0, 0.0], "threshold": 0.9999}, limit=20)
        assert [one.node.id for one in reaching] == [f"{number:03}" for number in range(5)]
        assert len(looks.pop()) == 20 + ranking._SPARE


def test_an_index_is_not_asked_where_vectors_tie_or_are_gone(own_url, looks):
    with open_db(own_url) as db:
        names = [f"{number:03}" for number in range(100)]
        filled(db, {name: [1.0, 2.0] for name in names})
        create_index(own_url, 2)
        assert [one.node.id for one in db.search_vectors([1.0, 0.0])] == names[:10]
        assert looks.pop() is None
        for name in names[5:]:
            db.delete_node(name)
        assert [one.node.id for one in db.search_vectors([1.0, 0.0])] == names[:5]
        assert looks.pop() is None


# Words, strings and numbers


ASCII = st.text(st.sampled_from("aAbB1_-.'\"@/:&|!()<>*\\% \t\n"), max_size=30)


@settings(max_examples=40, deadline=None)
@given(contents=st.lists(ASCII, min_size=1, max_size=5), query=ASCII.filter(lambda text: any(map(str.isalnum, text))))
def test_words_of_ascii_are_the_same_on_both_engines(postgres_databases, contents, query):
    found = []
    for databases in (None, postgres_databases):
        with mock.patch.object(Engine, "databases", databases), open_db() as db:
            db.insert_nodes({"type": "Note", "id": str(key), "content": text} for key, text in enumerate(contents))
            found.append({one.node.id for one in db.query(text_query=query, limit=10)})
    assert found[0] == found[1]


@pytest.mark.usefixtures("databases")
def test_a_text_may_have_more_words_than_a_tsvector():
    long = "x" * 5000
    many = " ".join(f"w{number:06x}" for number in range(300_000))
    with open_db() as db:
        db.create_node({"type": "Note", "id": "many", "content": f"first {long} {many}"})
        for query in ("first", long, "first w000007"):
            assert [one.node.id for one in db.query(text_query=query)] == ["many"]
        db.create_node({"type": "Note", "id": "long", "content": "a b " * 100_000 + "rare don't"})
        for query in ("rare", "b a", "don"):
            assert [one.node.id for one in db.query(text_query=query)] == ["long"]


def test_the_words_of_a_text():
    assert text.cut_words("Über-naïve ÉCOLE x_y Ångström 日本 don't") == [
        *("uber", "naive", "ecole", "x", "y", "angstrom", "日本", "don", "t"),
    ]
    assert text.to_tsvector("b a B") == "'b':1,3 'a':2"
    assert text.to_tsquery(["don't", "'&", "Rust"]) == "('don' <-> 't') & ('rust')"


STRINGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(
    FLOATS,
    st.integers(-(2**63), 2**63 - 1),
    STRINGS,
    st.sampled_from([1e16, 1e300, 5e-324, 2.0**60, "1e+300", '"1e+300', "\\"]),
    st.lists(FLOATS, max_size=2),
    st.dictionaries(STRINGS, FLOATS, max_size=2),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "ä", "1e+300", "' %s :v0"]), VALUES, max_size=4))
def test_properties_come_back_as_they_were(postgres_databases, properties):
    with mock.patch.object(Engine, "databases", postgres_databases), open_db() as db:
        node = db.create_node({**properties, "type": "Note"})
        found = db.get_node(node.id)
        assert found == node
        for name, value in node.properties.items():
            assert type(found.properties[name]) is type(value)


@pytest.mark.usefixtures("databases")
def test_strings_are_ordered_by_their_bytes():
    names = ["ä", "b", "A", "a", "Z", "\U0001f600", "\uffff", "é"]
    with open_db() as db:
        db.insert_nodes({"type": "Note", "id": name, "created_at": 1, "x": name} for name in names)
        found = db.query([{"field": "type", "operator": "Equals", "value": "Note"}])
        assert [one.node.id for one in found] == sorted(names)
        for field in ("id", "x"):
            found = db.query([{"field": field, "operator": "GreaterThan", "value": "b"}])
            assert [one.node.id for one in found] == sorted(name for name in names if name > "b")


def test_strings_are_ordered_by_their_bytes_in_any_collation(url):
    """A server without locales cannot show it, so what asks for it is looked at."""
    columns = (
        "SELECT attname, collname FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation"
        " WHERE attrelid IN ('akidb.node'::regclass, 'akidb.edge'::regclass) AND attname <> 'content'"
    )
    with psycopg.connect(url) as connection:
        assert {collation for _, collation in connection.execute(columns)} == {"C"}
    assert 'COLLATE "C" < CAST(:v' in Conditions().of(StructuralFilter("x", "LessThan", "a"))


@pytest.mark.usefixtures("databases")
def test_a_step_of_a_property_is_no_index_of_a_list():
    with open_db() as db:
        db.create_node({"type": "Note", "m": ["a"], "n": {"0": "a"}})
        for field, times in (("m.0", 0), ("n.0", 1), ("m.-1", 0)):
            assert len(db.query([{"field": field, "operator": "Equals", "value": "a"}])) == times


def test_an_index_of_another_dimension_does_not_stop_a_new_model(own_url):
    """As soon as all vectors are deleted, those of any model may come."""
    with open_db(own_url) as db:
        filled(db, {"1": [1.0, 0.0], "2": [0.0, 1.0]})
        create_index(own_url, 2)
        for name in "12":
            db.delete_embedding(name)
        db.insert_embeddings([("1", [1.0, 0.0, 0.0])], "other")
        assert [one.node.id for one in db.search_vectors([1.0, 0.0, 0.0])] == ["1"]


@pytest.mark.usefixtures("databases")
def test_a_vector_that_pgvector_cannot_hold_is_refused():
    with open_db() as db:
        node = db.create_node({"type": "Note"})
        with pytest.raises(InvalidRecordError, match="up to 16000 values, found 16001"):
            db.create_embedding(node.id, [1.0] * 16001, "model")
        assert db.stats()["embeddings"] == 0
        db.create_embedding(node.id, [1.0] * 16000, "model")
        assert db.search_vectors([1.0] * 16000)[0].node == node


@pytest.mark.usefixtures("databases")
def test_a_long_label_is_an_entity():
    word = "A" + random.Random(0).randbytes(10_000).hex()  # which cannot be compressed to fit a page
    with open_db() as db:
        message = db.create_chat().add_message(content=word)
        assert db._weaver.work("entities")
        (entity,) = db.get_entities_mentioned_in(message.id)
        assert entity.label == word
