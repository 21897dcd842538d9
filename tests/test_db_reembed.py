"""The change of the model of all vectors, and the reranker of a query."""

import threading
from contextlib import contextmanager

import pytest

from akidb_mlx import Reranker
from embedded_db import (
    ConvergedQuery,
    DatabaseError,
    InvalidQueryError,
    InvalidRecordError,
    ModelMismatchError,
    jobs,
    reembed,
)
from tests.db_support import open_db, work_off
from tests.fake_embedder import FakeEmbedder, encode
from tests.support import GOLDENS, wait_until

pytestmark = pytest.mark.usefixtures("engine")


class Smaller(FakeEmbedder):
    """Vectors of eight values."""

    def get_model_info(self):
        return {**super().get_model_info(), "dimension": 8, "native_dimension": 8, "revision": "r" * 40}


def vectors(db):
    return {one.node.content: one.similarity_score for one in db.search_vectors(encode("abc", 8), top_k=1000)}


def fill(db, count):
    chat = db.create_chat()
    for number in range(count):
        chat.add_message(content=f"abc {number}")
    work_off(db)
    return chat


def state(db):
    """Return the models, each with the number of its vectors."""
    with db._connections.read() as tx:
        return tx.rows(
            "SELECT m.name, m.state, count(e.node_key) FROM model m LEFT JOIN embedding e ON e.model_key = m.key"
            " GROUP BY m.key ORDER BY m.key"
        )


def test_all_vectors_are_computed_again_and_switched_at_once(monkeypatch):
    monkeypatch.setattr(jobs, "BATCH", 64)
    old, new = FakeEmbedder("old"), Smaller("new")
    with open_db(embedder=old) as db:
        chat = fill(db, 150)
        seen = []
        first = db.query(text_query="0", limit=1)[0].node.id
        report = db.reembed(new, progress=lambda done, total: seen.append((done, total)))
        assert (report["vectors"], report["done"]) == (150, 0)
        assert report["model"] == f"'new'@{'r' * 40} (8 dimensions)"
        assert report["tokens"] == sum(len(f"abc {number}") for number in range(150))
        assert seen == [(64, 150), (128, 150), (150, 150)]
        assert state(db) == [("new", "active", 150)]
        assert db.get_embedding_for_node(first).vector.tolist() == encode("abc 0", 8).tolist()
        assert db.query(semantic_query={"text": "abc 7"}, limit=1)[0].node.content == "abc 7"
        later = chat.add_message(content="later")
        work_off(db)
        assert db.get_embedding_for_node(later.id).vector.size == 8
        assert (old.status, new.status) == ("ready", "ready")


def test_the_old_vectors_answer_until_the_switch():
    with open_db(embedder=FakeEmbedder("old")) as db:
        fill(db, 10)
        asked = []

        def ask(*_):
            if not asked:
                asked.extend(db.query(semantic_query={"text": "abc 7"}, limit=100))
                assert db.stats()["model"] == "'old' (16 dimensions)"
                assert db.stats()["embeddings"] == 10

        db.reembed(Smaller("new"), progress=ask)
        assert (len(asked), asked[0].node.content) == (10, "abc 7")
        assert db.stats()["model"].startswith("'new'")


def test_a_dry_run_changes_nothing_and_estimates():
    new = Smaller("new")
    with open_db(embedder=FakeEmbedder("old")) as db:
        fill(db, 300)
        report = db.reembed(new, dry_run=True)
        assert (report["vectors"], report["done"]) == (300, 0)
        exact = sum(len(f"abc {number}") for number in range(300))
        assert 0.9 * exact < report["tokens"] < 1.1 * exact
        assert report["seconds"] > 0
        assert sum(map(len, new.calls)) < 70
        assert state(db) == [("old", "active", 300)]
        assert db.reembed(FakeEmbedder("old"), dry_run=True)["vectors"] == 0


def interrupt_after(most):
    def progress(done, _):
        if done >= most:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BATCH", 64)
    with open_db(tmp_path / "a.db", embedder=FakeEmbedder("old")) as db:
        fill(db, 150)
        with pytest.raises(KeyboardInterrupt):
            db.reembed(Smaller("new"), progress=interrupt_after(64))
        assert state(db) == [("old", "active", 150), ("new", "next", 64)]
        with db._connections.read() as tx:  # no process reads the old vectors again because of the new ones
            assert tx.value("SELECT max(change) FROM embedding_change") == 150
    with open_db(tmp_path / "a.db", embedder=FakeEmbedder("old")) as db:
        assert len(db.query(semantic_query={"text": "abc"}, limit=1000)) == 150
        assert db.reembed(Smaller("new"), dry_run=True)["done"] == 64
        new = Smaller("new")
        report = db.reembed(new)
        assert (report["vectors"], report["done"], sum(map(len, new.calls))) == (86, 64, 86)
        assert state(db) == [("new", "active", 150)]
        assert len(vectors(db)) == 150


def test_an_interrupt_after_the_switch_leaves_the_new_model_in_use(monkeypatch):
    monkeypatch.setattr("embedded_db.enrichment_store.load_embedder", Smaller)
    with open_db(embedder=FakeEmbedder("old")) as db:
        fill(db, 3)
        monkeypatch.setattr(reembed.Reembedding, "_compute", lambda *_: 0)  # leaves all to the last transaction
        with pytest.raises(KeyboardInterrupt):
            db.reembed("some/model", progress=interrupt_after(3))
        assert state(db) == [("old", "retired", 3), ("some/model", "active", 3)]
        assert len(db.query(semantic_query={"text": "abc"})) == 3
        assert db.reembed("some/model")["vectors"] == 0
        assert state(db) == [("some/model", "active", 3)]


@pytest.mark.parametrize("name", ["other", "old"])
def test_another_model_drops_what_was_computed(name):
    with open_db(embedder=FakeEmbedder("old")) as db:
        fill(db, 100)
        with pytest.raises(KeyboardInterrupt):
            db.reembed(Smaller("new"), progress=interrupt_after(64))
        report = db.reembed(FakeEmbedder(name))
        assert report["vectors"] == (100 if name == "other" else 0)
        assert state(db) == [(name, "active", 100)]


def test_what_changes_during_the_run_is_caught_up():
    """Messages arrive, change and are deleted, and their vectors too, after the run has read them."""
    with open_db(embedder=FakeEmbedder("old")) as db:
        chat = fill(db, 100)
        nodes = {one.node.content: one.node.id for one in db.query(text_query="abc", limit=1000)}
        steps = []

        class Meddler(Smaller):
            def submit(self, texts, **options):
                texts = list(texts)
                if "abc 3" in texts and not steps:
                    steps.append(1)
                    chat.add_message(content="abc new")
                    db.update_node(nodes["abc 1"], {"content": "abc changed"})
                    db.delete_node(nodes["abc 2"])
                    db.delete_embedding(nodes["abc 3"])
                    while db._weaver.work("embedding"):
                        pass
                return super().submit(texts, **options)

        db.reembed(Meddler("new"))
        expected = {f"abc {number}" for number in range(4, 100)} | {"abc 0", "abc changed", "abc new"}
        assert set(vectors(db)) == expected
        for name in ("abc changed", "abc new"):
            (found,) = db.query([{"field": "content", "operator": "Equals", "value": name}])
            assert db.get_embedding_for_node(found.node.id).vector.tolist() == encode(name, 8).tolist()


@pytest.mark.parametrize("content", [None, "\t\n"])
def test_a_vector_without_text_that_comes_during_the_run_is_named(content):
    with open_db(embedder=FakeEmbedder("old")) as db:
        fill(db, 3)

        def add(*_):
            note = db.create_node({"type": "Note", "content": content})
            db.create_embedding(note.id, [1.0] * 16)

        with pytest.raises(InvalidRecordError, match="1 vectors belong to nodes without content"):
            db.reembed(Smaller("new"), progress=add)


@pytest.mark.parametrize(("arriving", "most_inside"), [(3, 0), (1000, 1)])
def test_the_model_computes_while_others_may_write(arriving, most_inside):
    """Only where messages arrive after every batch are the last of them embedded while other writers wait."""
    depth, inside, added = 0, [], []

    class Watched(Smaller):
        def submit(self, texts, **options):
            given = list(texts)
            inside.extend([given] * depth)
            return super().submit(given, **options)

    with open_db(embedder=FakeEmbedder("old")) as db:
        chat = fill(db, 3)
        write = db._connections.write

        @contextmanager
        def counted():
            nonlocal depth
            with write() as tx:
                depth += 1
                try:
                    yield tx
                finally:
                    depth -= 1

        def add(*_):
            if len(added) < arriving and db.stats()["model"].startswith("'old'"):
                added.append(chat.add_message(content=f"later {len(added)}"))
                work_off(db)

        db._connections.write = counted
        db.reembed(Watched("new"), progress=add)
        db._connections.write = write
        assert len(inside) <= most_inside and all(len(texts) <= 8 for texts in inside)
        assert 3 <= len(added) < 20
        assert state(db) == [("new", "active", 3 + len(added))]


def test_a_message_that_waits_for_its_vector_gets_the_new_one():
    with open_db(embedder=FakeEmbedder("old")) as db:
        chat = fill(db, 3)
        waiting = chat.add_message(content="waiting")
        db.reembed(Smaller("new"))
        assert db.get_embedding_for_node(waiting.id) is None
        work_off(db)
        assert db.get_embedding_for_node(waiting.id).model.name == "new"


def test_the_weaver_goes_on_with_the_new_model_and_another_process_waits_for_it(tmp_path):
    with (
        open_db(tmp_path / "a.db", embedder=FakeEmbedder("old"), weaver=True) as db,
        open_db(tmp_path / "a.db", embedder=FakeEmbedder("old")) as other,
    ):
        chat = db.create_chat()
        db.wait_until_enriched(chat.add_message(content="abc").id, timeout=60)
        db.reembed(Smaller("new"))
        later = chat.add_message(content="later")
        db.wait_until_enriched(later.id, timeout=60)
        assert db.get_embedding_for_node(later.id).model.name == "new"
        db._weaver.stop()
        db._weaver.join(60)
        chat.add_message(content="last")
        assert not other._weaver.work("embedding")
        assert "'new'" in other.weaver_status()["paused"]["embedding"]
        with pytest.raises(ModelMismatchError, match=r"'new'.*'old'"):
            other.query(semantic_query={"text": "abc"})
        assert len(other.search_vectors(encode("abc", 8))) == 2  # the matrix took the new vectors


def test_links_are_looked_for_anew():
    with open_db(embedder=FakeEmbedder("old")) as db:
        db.set_activity_level("LowActivity")
        chat = db.create_chat()
        for content in ("aaab", "aaac"):
            chat.add_message(content=content)
        work_off(db)

        def similarities():
            with db._connections.read() as tx:
                ids = tx.rows("SELECT id FROM edge WHERE type = 'IS_SEMANTICALLY_SIMILAR_TO'")
            return [db.get_edge(one).similarity for (one,) in ids]

        assert similarities() == [pytest.approx(0.9)] * 2

        class Same(Smaller):
            def submit(self, texts, **options):
                return super().submit(["a" for _ in texts], **options)

        db.reembed(Same("new"))
        assert similarities() == []
        work_off(db)
        assert similarities() == [pytest.approx(1.0)] * 2


def test_a_model_that_was_named_is_closed_with_the_database_and_not_before(monkeypatch):
    loaded = []

    def load(name):
        loaded.append(Smaller(name))
        return loaded[-1]

    monkeypatch.setattr("embedded_db.enrichment_store.load_embedder", load)
    db = open_db(embedder=FakeEmbedder("old"))
    fill(db, 3)
    db.reembed("some/model", dry_run=True)
    assert loaded[0].status == "closed"
    db.reembed("some/model")
    assert loaded[1].status == "ready"
    assert db.stats()["model"].startswith("'some/model'")
    assert len(db.query(semantic_query={"text": "abc"})) == 3
    db.close()
    assert loaded[1].status == "closed"


def test_two_runs_at_once_compute_the_same(tmp_path):
    first, second = Smaller("new"), Smaller("new")
    first.open.clear()
    with (
        open_db(tmp_path / "a.db", embedder=FakeEmbedder("old")) as db,
        open_db(tmp_path / "a.db", embedder=FakeEmbedder("old")) as other,
    ):
        fill(db, 100)
        errors = []

        def run():
            try:
                db.reembed(first)
            except DatabaseError as error:
                errors.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: first.calls)
        other.reembed(second)
        first.open.set()
        thread.join()
        assert len(errors) == 1
        assert "was ended by another change" in errors[0]
        assert state(db) == [("new", "active", 100)]
        assert db.reembed(first)["vectors"] == 0
        assert len(vectors(db)) == 100


def test_vectors_without_text_are_named():
    with open_db(embedder=FakeEmbedder("old")) as db:
        fill(db, 3)
        db.create_node({"type": "Note", "id": "mine"})
        db.create_embedding("mine", encode("mine"))
        for dry_run in (True, False):
            with pytest.raises(InvalidRecordError, match=r"1 vectors belong to nodes without content.* 'mine'.*delete"):
                db.reembed(Smaller("new"), dry_run=dry_run)
        db.delete_embedding("mine")
        assert db.reembed(Smaller("new"))["vectors"] == 3
        with pytest.raises(InvalidRecordError, match="model must be an Embedder"):
            db.reembed(7)


def test_an_empty_database_takes_the_new_model():
    with open_db(embedder=FakeEmbedder("old")) as db:
        assert db.reembed(Smaller("new"), dry_run=True)["vectors"] == 0
        assert db.reembed(Smaller("new"))["vectors"] == 0
        fill(db, 2)
        assert db.stats()["model"].startswith("'new'")


def test_vectors_of_a_retired_model_are_deleted_in_the_end(monkeypatch):
    """Also those of a process that was killed after the switch."""
    with open_db(embedder=FakeEmbedder("old")) as db:
        fill(db, 5)
        monkeypatch.setattr(reembed, "_DELETED", 2)
        with monkeypatch.context() as patch:
            patch.setattr(reembed, "delete_retired", lambda _: None)
            db.reembed(Smaller("new"))
        assert state(db) == [("old", "retired", 5), ("new", "active", 5)]
        assert db.stats()["embeddings"] == len(vectors(db)) == 5
        reembed.delete_retired(db._connections)
        assert state(db) == [("new", "active", 5)]


class LongestFirst:
    """A reranker that takes the longest text for the best."""

    def __init__(self):
        self.calls = []

    def rerank(self, query, documents, top_k=None):
        documents = list(documents)
        self.calls.append((query, len(documents)))
        order = sorted(range(len(documents)), key=lambda index: (-len(documents[index]), index))
        return [(index, len(documents[index]) / 100) for index in order][:top_k]


def test_a_reranker_orders_the_best_results():
    with open_db() as db:
        for number in range(130):
            note = {"type": "Note", "id": f"{number:03}", "created_at": number}
            db.create_node({**note, "content": "rust" + "!" * number})
        ranker = LongestFirst()
        everything = [{"field": "type", "operator": "Equals", "value": "Note"}]
        found = db.query(everything, text_query="rust", rerank=ranker, limit=3)
        assert [one.node.id for one in found] == ["099", "098", "097"]  # of the first hundred
        assert found[0].rerank_score == 1.03
        query = ConvergedQuery(everything, text_query="rust", rerank=ranker, limit=2, offset=1)
        assert [one.node.id for one in db.execute_query(query)] == ["098", "097"]
        last = db.query(text_query="rust", rerank=ranker, limit=2, offset=119)
        assert [one.node.id for one in last] == ["110", "109"]  # of the second
        assert ranker.calls == [("rust", 100), ("rust", 100), ("rust", 30)]
        pages = [db.query(text_query="rust", rerank=ranker, limit=7, offset=start) for start in range(0, 140, 7)]
        assert sorted(one.node.id for page in pages for one in page) == [f"{number:03}" for number in range(130)]
        assert db.query(text_query="none", rerank=ranker) == []


def test_results_without_content_come_last_and_the_text_of_meaning_is_the_question():
    with open_db() as db:
        for name, content in (("a", None), ("b", "bb"), ("c", " "), ("d", "dddd")):
            db.create_node({"type": "Note", "id": name, "content": content})
            db.create_embedding(name, encode(name))
        ranker = LongestFirst()
        found = db.query(semantic_query={"text": "meaning"}, text_query="bb", rerank=ranker)
        assert [one.node.id for one in found][:2] == ["d", "b"]
        assert [one.rerank_score for one in found] == [0.04, 0.02, None, None]
        assert ranker.calls == [("meaning", 2)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"text_query": "a", "rerank": 7}, "rerank must be a Reranker, found 7"),
        ({"semantic_query": {"vector": [1.0]}, "rerank": LongestFirst()}, "rerank needs a question"),
        ({"graph_filter": {"start_node_id": "a"}, "rerank": LongestFirst()}, "rerank needs a question"),
    ],
)
def test_bad_reranking_is_refused(query, message):
    with open_db() as db, pytest.raises(InvalidQueryError, match=message):
        db.query(**query)


def test_a_real_reranker_orders_the_results():
    """Results have the scores that it gives their contents by hand, and what has no content comes last."""
    texts = ["rust is fast", "we should use rust for performance", "rust never sleeps", "trains at night"]
    with Reranker(GOLDENS / "reranker-bert", device="cpu") as ranker, open_db() as db:
        by_hand = ranker.rerank("rust performance", texts)
        chat = db.create_chat()
        for text in texts:
            chat.add_message(content=text)
        work_off(db)
        db.create_embedding(chat.id, encode("rust performance"))
        found = db.query(semantic_query={"text": "rust performance"}, rerank=ranker)
        assert [one.node.content for one in found[:-1]] == [texts[index] for index, _ in by_hand]
        assert [one.rerank_score for one in found[:-1]] == pytest.approx([score for _, score in by_hand], abs=1e-5)
        assert (found[-1].node.id, found[-1].rerank_score) == (chat.id, None)
        best = db.query(text_query="rust", rerank=ranker, limit=1)
        assert best[0].node.content == texts[ranker.rerank("rust", texts[:3])[0][0]]
