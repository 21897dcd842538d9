"""Links between messages, summaries of chats, and the levels of activity at which they are made."""

import pytest
from hypothesis import strategies as st

from embedded_db import InvalidRecordError
from embedded_db.links import MOST_LINKS, THRESHOLD
from tests.clocks import FakeClock
from tests.db_support import FakeSummarizer, for_examples, open_db, work_off
from tests.fake_embedder import encode
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("engine")

LINK, COVERS = "IS_SEMANTICALLY_SIMILAR_TO", "SUMMARIZES"


def edges(db, kind):
    """Return the edges of a kind as the ids of their ends, with their properties."""
    with db._connections.read() as tx:
        rows = tx.rows(
            "SELECT e.id FROM edge e WHERE e.type = :kind ORDER BY e.key",
            kind=kind,
        )
    found = [db.get_edge(edge_id) for (edge_id,) in rows]
    return {(edge.from_id, edge.to_id): edge.properties for edge in found}


def summaries(db):
    return [one.node for one in db.query([{"field": "type", "operator": "Equals", "value": "Summary"}], limit=100)]


def covered(db, summary):
    return {to for start, to in edges(db, COVERS) if start == summary.id}


def test_similar_messages_are_linked_with_their_similarity():
    with open_db() as db:
        db.set_activity_level("LowActivity")
        chat, other_chat = db.create_chat(), db.create_chat()
        first = chat.add_message(content="aaaa")
        second = other_chat.add_message(content="aaab")
        chat.add_message(content="zzzz")
        db.create_node({"type": "Note", "id": "note"})
        db.create_embedding("note", encode("aaaa"))
        work_off(db)
        similarity = float(encode("aaaa") @ encode("aaab"))
        assert similarity > THRESHOLD
        expected = {"similarity": pytest.approx(similarity, abs=1e-6)}
        assert edges(db, LINK) == {(first.id, second.id): expected, (second.id, first.id): expected}
        path = db.find_shortest_path(first.id, second.id, edge_type=LINK)
        assert path.edges[0].similarity == expected["similarity"]


def test_a_message_is_linked_to_the_three_nearest_and_of_equal_ones_to_the_oldest():
    with open_db() as db:
        db.set_activity_level("LowActivity")
        chat = db.create_chat()
        equal = [chat.add_message(content="aaaa") for _ in range(5)]
        work_off(db)
        near = chat.add_message(content="aaab")
        nearer = chat.add_message(content="aaaaaaab")
        work_off(db)
        assert {to for start, to in edges(db, LINK) if start == equal[4].id} == {one.id for one in equal[:3]}
        assert {to for start, to in edges(db, LINK) if start == near.id} == {nearer.id, equal[0].id, equal[1].id}


CONTENTS = st.sampled_from(["aaaa", "aaab", "aabb", "aaaabb", "bbbb", "bbba", "zzzz", "", " "])


@for_examples(
    40,
    st.lists(
        st.tuples(
            st.sampled_from(["add", "change", "delete", "vector", "no vector", "link", "link"]),
            st.integers(0, 5),
            CONTENTS,
        ),
        min_size=1,
        max_size=10,
    ),
)
def test_links_are_those_of_the_model(steps):
    """A message is linked when its turn comes to the nearest that have a vector; a change of one takes its links."""
    with open_db() as db:
        db.set_activity_level("LowActivity")
        chat = db.create_chat()
        texts, vectors, queued, expected = {}, {}, [], {}

        def forget(name):
            for pair in [pair for pair in expected if name in pair]:
                del expected[pair]

        def set_vector(name, vector):
            forget(name)
            vectors.pop(name, None)
            if vector is not None:
                vectors[name] = vector
            if name in queued and vector is None:
                queued.remove(name)
            if vector is not None and name not in queued:
                queued.append(name)

        begin = [("add", 0, "aaaa"), ("add", 0, "aaab"), ("add", 0, "aaaa"), ("add", 0, "bbba"), ("link", 0, "")]
        for action, number, content in begin + steps:
            names = list(texts)
            name = names[number % len(names)] if names else None
            is_new = action == "add" or (action == "change" and content != texts.get(name))
            if action == "add":
                name = chat.add_message(content=content).id
                texts[name] = content
            elif name is None:
                continue
            elif action == "change":
                db.update_node(name, {"content": content})
                if content != texts[name]:
                    set_vector(name, None)
                texts[name] = content
            elif action == "delete":
                db.delete_node(name)
                set_vector(name, None)
                del texts[name]
            elif action == "vector" and content.strip():
                db.update_embedding(name, encode(content))
                set_vector(name, encode(content))
            elif action == "no vector":
                db.delete_embedding(name)
                set_vector(name, None)
            if is_new:
                while db._weaver.work("embedding"):
                    pass
                for one, text in texts.items():
                    if one == name and text.strip() and one not in vectors:
                        set_vector(one, encode(text))
            if action == "link":
                while db._weaver.work("links"):
                    pass
                order = list(texts)
                for one in queued:
                    scores = {
                        other: float(vectors[one].astype(float) @ vectors[other].astype(float))
                        for other in order
                        if other in vectors and other != one
                    }
                    near = [other for other in scores if scores[other] >= THRESHOLD - 1e-6]
                    near.sort(key=lambda other: (-round(scores[other], 6), order.index(other)))
                    for other in near[:MOST_LINKS]:
                        expected[one, other] = {"similarity": pytest.approx(scores[other], abs=1e-6)}
                queued.clear()
            assert edges(db, LINK) == expected


def test_a_vector_that_changes_while_links_are_looked_for_is_not_linked_by_the_old_one(monkeypatch):
    from embedded_db import links

    with open_db() as db:
        db.set_activity_level("LowActivity")
        chat = db.create_chat()
        first, second = chat.add_message(content="aaaa"), chat.add_message(content="aaab")
        while db._weaver.work("embedding"):
            pass
        find = links.find_links

        def find_and_change(*arguments):
            found = find(*arguments)
            monkeypatch.setattr(links, "find_links", find)
            changes.append(found)
            return found

        changes = []
        monkeypatch.setattr(links, "find_links", find_and_change)
        write = links.write_links

        def change_and_write(tx, job, nearest, seen):
            if changes:
                changes.clear()
                tx.run("UPDATE embedding SET created_at = 0 WHERE node_key = :key", key=nearest[0][0])
            write(tx, job, nearest, seen)

        monkeypatch.setattr(links, "write_links", change_and_write)
        assert db._weaver.work("links")
        assert (first.id, second.id) not in edges(db, LINK)
        assert db._weaver.work("links")
        assert (first.id, second.id) in edges(db, LINK)


def test_twenty_messages_make_a_summary():
    summarizer = FakeSummarizer()
    with open_db(summarizer=summarizer) as db:
        db.set_activity_level("SleepMode")
        chat, other = db.create_chat(), db.create_chat()
        messages = [chat.add_message(content=f"w{number} text", sender="Ann", role="user") for number in range(19)]
        chat.add_message(content=" ")
        db.create_node({"type": "Note", "chat_id": chat.id, "content": "no message"})
        db.create_node({"type": "Message", "content": "in no chat"})
        other.add_message(content="elsewhere")
        work_off(db)
        assert summaries(db) == []
        messages.append(chat.add_message(content="w19 text", role="user", sender=7))
        assert db.weaver_status()["queue_size"] == 3
        work_off(db)
        (summary,) = summaries(db)
        assert summary.content == " ".join(f"w{number}" for number in range(20))
        assert summary.chat_id == chat.id
        assert covered(db, summary) == {message.id for message in messages}
        assert db.find_shortest_path(chat.id, summary.id).edges[0].type == "CONTAINS"
        assert summarizer.calls[0][0] == {"name": "Ann", "content": "w0 text"}
        assert summarizer.calls[0][19] == {"name": "user", "content": "w19 text"}
        assert db.query(text_query="w7 w8")[0].node == summary
        for number in range(45):
            chat.add_message(content=f"v{number} text")
        work_off(db)
        assert [one.content.split()[0] for one in summaries(db)] == ["w0", "v0", "v20"]
        assert len(summarizer.calls) == 3
        db.delete_node(chat.id)
        assert summaries(db) == []


def test_a_summary_follows_its_messages():
    """Its text is gone at once, and written anew when its turn comes; it goes with its last message."""
    summarizer = FakeSummarizer()
    with open_db(summarizer=summarizer) as db:
        db.set_activity_level("SleepMode")
        chat = db.create_chat()
        messages = [chat.add_message(content=f"w{number} secret") for number in range(20)]
        work_off(db)
        (summary,) = summaries(db)
        db.update_node(messages[0].id, {"content": "changed text"})
        assert db.get_node(summary.id).properties == {"chat_id": chat.id}
        assert db.query(text_query="w0") == []
        work_off(db)
        assert db.get_node(summary.id).content.startswith("changed w1 ")
        db.delete_node(messages[1].id)
        db.update_node(messages[2].id, {"content": ""})
        work_off(db)
        assert db.get_node(summary.id).content.startswith("changed w3 ")
        db.update_node(messages[2].id, {"content": "back"})
        work_off(db)
        assert len(covered(db, summary)) == 18
        for message in messages:
            if message is not messages[1]:
                db.delete_node(message.id)
        assert summaries(db) == []


def test_messages_that_change_while_they_are_summarised_are_summarised_again():
    class Meddler(FakeSummarizer):
        def summarize(self, messages):
            if not self.calls:
                db.update_node(first.id, {"content": "changed"})
            return super().summarize(messages)

    with open_db(summarizer=Meddler()) as db:
        db.set_activity_level("SleepMode")
        chat = db.create_chat()
        first = chat.add_message(content="first")
        for number in range(19):
            chat.add_message(content=str(number))
        work_off(db)
        (summary,) = summaries(db)
        assert summary.content.startswith("changed 0 1")


def test_the_default_summary_is_sentences_of_the_messages():
    with open_db(summarizer=None) as db:
        db.set_activity_level("SleepMode")
        chat = db.create_chat()
        contents = [f"This is sentence number {number} of the chat." for number in range(20)]
        for content in contents:
            chat.add_message(content=content, sender="Ann " * 100)
        work_off(db)
        (summary,) = summaries(db)
        assert any(content in summary.content for content in contents)
        assert db.weaver_status()["failed"] == 0


def test_what_is_done_at_which_level(monkeypatch):
    clock = FakeClock(monkeypatch, "embedded_db.activity.time")
    with open_db() as db:
        chat = db.create_chat()
        for _ in range(20):
            chat.add_message(content="aaaa")

        def now():
            status = db.weaver_status()
            return status["activity_level"], status["queue_size"], status["deferred"]

        assert now() == ("HighActivity", 40, 1)
        work_off(db)
        assert now() == ("HighActivity", 0, 21)
        clock.advance(299)
        assert now() == ("HighActivity", 0, 21)
        clock.advance(1)  # five minutes after the last jobs of new messages
        assert now() == ("LowActivity", 20, 1)
        work_off(db)
        assert now() == ("LowActivity", 0, 1)
        assert edges(db, COVERS) == {}
        clock.advance(1499)
        assert now() == ("LowActivity", 0, 1)
        clock.advance(1)
        assert now() == ("SleepMode", 1, 0)
        work_off(db)
        assert now() == ("SleepMode", 0, 0)
        db.get_node(chat.id)
        assert now()[0] == "HighActivity"
        db.set_activity_level("SleepMode")
        db.get_node(chat.id)
        assert now()[0] == "SleepMode"
        db.set_activity_level(None)
        assert now()[0] == "HighActivity"
        with pytest.raises(
            InvalidRecordError, match="one of HighActivity, LowActivity, SleepMode or None, found 'Low'"
        ):
            db.set_activity_level("Low")
        with pytest.raises(InvalidRecordError, match="found a list"):
            db.set_activity_level([])


def test_messages_of_another_process_are_an_activity(tmp_path, monkeypatch):
    clock = FakeClock(monkeypatch, "embedded_db.activity.time")
    with open_db(tmp_path / "a.db") as worker, open_db(tmp_path / "a.db") as db:
        clock.advance(300)
        assert worker.weaver_status()["activity_level"] == "LowActivity"
        db.create_chat().add_message(content="text")
        work_off(worker)
        assert worker.weaver_status()["activity_level"] == "HighActivity"


def test_the_threads_link_summarise_and_maintain_once_when_they_may(tmp_path, monkeypatch, engine):
    maintained = []
    with open_db(tmp_path / "a.db", weaver=True) as db:
        maintain = db._connections.maintain
        monkeypatch.setattr(db._connections, "maintain", lambda: maintained.append(maintain()))
        chat = db.create_chat()
        for _ in range(20):
            chat.add_message(content="aaaa")
        wait_until(lambda: db.weaver_status()["queue_size"] == 0)
        assert (db.weaver_status()["deferred"], edges(db, LINK), maintained) == (21, {}, [])
        db.set_activity_level("SleepMode")
        wait_until(lambda: db.weaver_status()["queue_size"] == 0 and maintained)
        assert len(summaries(db)) == 1
        assert len(edges(db, LINK)) == 60
        chat.add_message(content="aaaa")
        wait_until(lambda: len(edges(db, LINK)) == 63)
        assert maintained == [None]
        assert engine == "postgres" or (tmp_path / "a.db-wal").stat().st_size < 1 << 20
