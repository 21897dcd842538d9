"""Nodes, edges and vectors of the database, and the bad input that it refuses."""

import copy
import pickle

import numpy as np
import pytest

import embedded_db
from akidb_mlx.errors import AkidbMlxError
from embedded_db import (
    Chat,
    DatabaseError,
    EdgeNotFoundError,
    InvalidRecordError,
    ModelIdentity,
    ModelMismatchError,
    NodeNotFoundError,
    errors,
)
from embedded_db.identities import canonical_name
from tests.db_support import open_db
from tests.fake_embedder import FakeEmbedder
from tests.support import run_python

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def db():
    with open_db() as one:
        yield one


def test_the_errors_hang_in_the_tree_of_the_package():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not AkidbMlxError]
    assert len(kinds) == 13
    assert all(issubclass(kind, DatabaseError) and issubclass(kind, AkidbMlxError) for kind in kinds)
    assert all(kind.__name__ in errors.__doc__ for kind in kinds)
    assert {kind.__name__ for kind in kinds} <= set(embedded_db.__all__)


def test_importing_brings_in_no_model():
    done = run_python(
        "import embedded_db, sys; print([m for m in ('mlx', 'spacy', 'tokenizers', 'torch') if m in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_without_apsw_the_extra_is_named():
    done = run_python("import sys; sys.modules['apsw'] = None\nimport embedded_db")
    assert "pip install 'akidb-mlx[db]'" in done.stderr


def test_a_chat_and_its_messages(db):
    chat = db.create_chat(title="Project Discussion", topic="Rust Database")
    assert (chat.type, chat.title, chat.topic) == ("Chat", "Project Discussion", "Rust Database")
    message = chat.add_message(sender="Alice", content="We should use Rust", role="user", metadata={"priority": 2})
    assert (message.chat_id, message.sender, message.content, message.role) == (
        chat.id,
        "Alice",
        "We should use Rust",
        "user",
    )
    assert message.metadata == {"priority": 2}
    assert db.get_node(message.id) == message
    again = db.get_node(chat.id)
    assert isinstance(again, Chat)
    assert again == chat
    second = again.add_message(content="Yes")
    (edge,) = db.find_shortest_path(chat.id, second.id).edges
    assert (edge.from_id, edge.to_id, edge.type) == (chat.id, second.id, "CONTAINS")
    with pytest.raises(AttributeError, match="no_such"):
        _ = message.no_such


def test_records_can_be_copied_and_pickled(db):
    message = db.create_node({"type": "Note", "content": "text", "tags": ["a"]})
    assert copy.deepcopy(message) == pickle.loads(pickle.dumps(message)) == message


def test_nodes_are_created_changed_and_deleted(db):
    node = db.create_node({"type": "Note", "id": "n", "created_at": 5, "a": 1, "b": [1, {"c": None}], "gone": None})
    assert (node.id, node.created_at, node.properties) == ("n", 5.0, {"a": 1, "b": [1, {"c": None}]})
    changed = db.update_node("n", {"a": None, "c": "ä"})
    assert changed.properties == {"b": [1, {"c": None}], "c": "ä"}
    assert db.get_node("n") == changed
    db.delete_node("n")
    assert db.get_node("n") is None


def test_deleting_a_chat_takes_its_messages_along(db):
    chat, other = db.create_chat(), db.create_chat()
    messages = [chat.add_message(content=str(number)) for number in range(3)]
    kept = other.add_message(content="kept")
    db.create_edge(messages[0].id, kept.id, "REPLIES_TO")
    db.delete_node(chat.id)
    assert [db.get_node(message.id) for message in messages] == [None] * 3
    assert db.get_node(kept.id) == kept
    assert db.stats()["edges"] == {"CONTAINS": 1}


def test_edges_are_created_changed_and_deleted(db):
    a, b = (db.create_node({"type": "Note", "id": name}) for name in "ab")
    edge = db.create_edge(a.id, b.id, "KNOWS", {"since": 3})
    assert (edge.from_id, edge.to_id, edge.type, edge.since) == ("a", "b", "KNOWS", 3)
    assert db.get_edge(edge.id) == edge
    assert db.update_edge(edge.id, {"since": None, "for": "ever"}).properties == {"for": "ever"}
    db.delete_edge(edge.id)
    assert db.get_edge(edge.id) is None
    edge = db.create_edge("a", "b", "KNOWS")
    db.delete_node("b")
    assert db.get_edge(edge.id) is None


def test_vectors_are_created_changed_and_deleted(db):
    db.create_node({"type": "Note", "id": "a"})
    model = ModelIdentity("m", "r", 3, "document")
    stored = db.create_embedding("a", [1, 2, 3], model)
    assert (stored.model, stored.vector.tolist(), stored.vector.dtype) == (model, [1, 2, 3], np.float32)
    assert db.get_embedding("a").model == model
    assert db.update_embedding("a", [3, 2, 1]).model == model
    assert db.get_embedding_for_node("a").vector.tolist() == [3, 2, 1]
    assert not db.get_embedding_for_node("a").vector.flags.writeable
    with pytest.raises(InvalidRecordError, match="has a vector already"):
        db.create_embedding("a", [1, 1, 1])
    db.delete_embedding("a")
    assert db.get_embedding_for_node("a") is None


def test_vectors_of_another_model_are_refused_by_name(db):
    db.insert_nodes([{"type": "Note", "id": name} for name in "ab"])
    db.create_embedding("a", [1, 2, 3], "one")
    with pytest.raises(ModelMismatchError, match=r"'one' \(3 dimensions\).*'other'"):
        db.create_embedding("b", [1, 2, 3], "other")
    with pytest.raises(ModelMismatchError, match="4 dimensions"):
        db.create_embedding("b", [1, 2, 3, 4], "one")
    with pytest.raises(InvalidRecordError, match="have 3 values, found 2"):
        db.create_embedding("b", [1, 2])
    db.delete_embedding("a")
    assert db.create_embedding("b", [1, 2, 3, 4], "other").model.name == "other"


def test_many_are_written_in_one_transaction_or_not_at_all(db):
    with pytest.raises(InvalidRecordError, match="there is a node 'b' already"):
        db.insert_nodes([{"type": "Note", "id": name} for name in "abb"])
    assert db.stats()["nodes"] == {}
    db.insert_nodes([{"type": "Note", "id": name} for name in "ab"])
    with pytest.raises(NodeNotFoundError, match="'c'"):
        db.insert_edges([{"from_id": "a", "to_id": to, "type": "T"} for to in "bc"])
    with pytest.raises(NodeNotFoundError, match="'c'"):
        db.insert_embeddings([("a", [1.0]), ("c", [1.0])], "m")
    assert (db.stats()["edges"], db.stats()["embeddings"], db.stats()["model"]) == ({}, 0, None)
    assert len(db.insert_edges([{"from_id": "a", "to_id": "b", "type": "T"}])) == 1


def test_unknown_ids(db):
    assert db.get_node("x") is db.get_edge("x") is db.get_embedding_for_node("x") is None
    assert db.get_entities_mentioned_in("x") == []
    node = db.create_node({"type": "Note"}).id
    for write in (
        lambda: db.update_node("x", {}),
        lambda: db.delete_node("x"),
        lambda: db.create_edge(node, "x", "T"),
        lambda: db.create_edge("x", node, "T"),
        lambda: db.create_embedding("x", [1.0]),
        lambda: db.update_embedding("x", [1.0]),
        lambda: db.delete_embedding("x"),
        lambda: db.create_message(chat_id="x", content="a"),
        lambda: db.wait_until_enriched("x"),
        lambda: db.find_shortest_path("x", node),
        lambda: db.find_shortest_path(node, "x"),
        lambda: db.query(graph_filter={"start_node_id": "x"}),
    ):
        with pytest.raises(NodeNotFoundError, match="'x'"):
            write()
    for write in (lambda: db.update_edge("x", {}), lambda: db.delete_edge("x")):
        with pytest.raises(EdgeNotFoundError, match="'x'"):
            write()


DEEP: list = []
for _ in range(100):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("text", "a node must be a dictionary"),
        ({}, "a node needs a type"),
        ({"type": ""}, "type must have 1 to 512 characters, found 0"),
        ({"type": None}, "type must be a string"),
        ({"type": "T", "id": 7}, "id must be a string, found 7"),
        ({"type": "T", "id": "x" * 600}, "found 600"),
        ({"type": "T", "created_at": float("nan")}, "created_at must be a finite number"),
        ({"type": "T", "created_at": "now"}, "created_at must be a number"),
        ({"type": "T", "content": "a\0b"}, "content holds a NUL at character 1"),
        ({"type": "T", "content": "a\ud800"}, r"content holds a lone surrogate, U\+D800 at character 1"),
        ({"type": "T", "content": 7}, "content must be a string"),
        ({"type": "T", "content": "x" * (100 << 20)}, "content has 104857600 bytes, and at most 16777216"),
        ({"type": "T", "content": "é" * (9 << 20)}, "content has 18874368 bytes"),
        ({"type": "T", "m": {"a": ["\0"]}}, r"m.a\[0\] holds a NUL"),
        ({"type": "T", "m": {"\ud800": 1}}, "a key of m holds a lone surrogate"),
        ({"type": "T", "m": {1: 1}}, "a key of m must be a string"),
        ({"type": "T", "m": float("inf")}, "m must be a finite number"),
        ({"type": "T", "m": 2**63}, "m must be an integer of 64 bits"),
        ({"type": "T", "m": b"bytes"}, "m must be a string, number"),
        ({"type": "T", "m": DEEP}, "nested more than 64 deep"),
        ({"type": "T", "m": ["x" * (9 << 20)] * 4}, "the properties have"),
        ({"type": "T", 7: 1}, "the name of a property must be a string"),
        ({"type": "T", "properties": {}}, "'properties' cannot be a property"),
        ({"type": "T", "__class__": 1}, "'__class__' cannot be a property"),
        ({"type": "T", "a.b": 1}, "has no dot, quote, backslash or control character.* found 'a.b'"),
        ({"type": "T", 'a"': 1}, "has no dot, quote"),
        ({"type": "T", "a\\": 1}, "has no dot, quote"),
        ({"type": "T", "a\n": 1}, "has no dot, quote"),
        ({"type": "Chat", "chat_id": "c"}, "a Chat belongs to no chat"),
    ],
)
def test_bad_nodes_are_refused(db, node, message):
    with pytest.raises(InvalidRecordError, match=message) as caught:
        db.create_node(node)
    assert len(str(caught.value)) < 400
    assert isinstance(caught.value, ValueError)
    assert db.stats()["nodes"] == {}


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1, float("nan")], "value 1 of the vector must be a finite float32, found nan"),
        ([1e300], "value 0 of the vector must be a finite float32"),
        ([0, 0], "all values of the vector are 0"),
        ([], "at least one value"),
        ([[1, 2]], r"shape \(1, 2\)"),
        ("text", "must be a list of numbers"),
        (None, "must be a list of numbers"),
        (["1", "2"], "must be a list of numbers, found a list of the type <U1"),
        ([1, 2j], "must be a list of numbers, found a list of the type complex128"),
        (np.array([1 + 2j]), "of the type complex128"),
        ([True, False], "of the type bool"),
        ([10**400], "of the type object"),
        ({1: 2}, "must be a list of numbers"),
        ([1, "a"], "must be a list of numbers"),
        ([1, [2]], "must be a list of numbers"),
    ],
)
def test_bad_vectors_are_refused(db, vector, message):
    db.create_node({"type": "Note", "id": "a"})
    with pytest.raises(InvalidRecordError, match=message):
        db.create_embedding("a", vector)
    with pytest.raises(errors.InvalidQueryError, match=message if vector is not None else "either text or vector"):
        db.search_vectors(vector)


def test_names_that_are_refused_now_can_be_kept_and_removed(db):
    """A file of version 1 may hold them."""
    db.create_node({"type": "Note", "id": "a", "b": 1})
    db.create_edge("a", "a", "T", id="e")
    with db._connections.write() as tx:
        tx.run("UPDATE node SET properties = :properties", properties='{"a.b":1,"c.d":2}')
        tx.run("UPDATE edge SET properties = :properties", properties='{"a.b":1}')
    assert db.update_node("a", {"e": 3}).properties == {"a.b": 1, "c.d": 2, "e": 3}
    assert db.update_edge("e", {"e": 3}).properties == {"a.b": 1, "e": 3}
    with pytest.raises(InvalidRecordError, match=r"has no dot"):
        db.update_node("a", {"a.b": 2})


def test_a_model_has_one_identity_whatever_it_is_called(db, tmp_path):
    """A name of the catalogue is its repository, also at a revision, and a name alone says nothing against one."""
    db.insert_nodes([{"type": "Note", "id": name} for name in "abcd"])
    revision = "c" * 40
    full = ModelIdentity("sentence-transformers/all-MiniLM-L6-v2", revision, 3, "")
    assert db.create_embedding("a", [1, 2, 3], "minilm-l6-v2").model == ModelIdentity("minilm-l6-v2", "", 3, "")
    assert db.create_embedding("b", [1, 2, 3], full).model == ModelIdentity("minilm-l6-v2", revision, 3, "")
    db.create_embedding("c", [1, 2, 3], "sentence-transformers/all-MiniLM-L6-v2@main")
    assert {db.get_embedding(name).model.revision for name in "abc"} == {revision}
    with pytest.raises(ModelMismatchError, match=r"'minilm-l6-v2'@ccc.*'minilm-l6-v2'@ddd"):
        db.create_embedding("d", [1, 2, 3], ModelIdentity("minilm-l6-v2", "d" * 40, 3, ""))
    with db._connections.write() as tx:  # as version 1 kept it
        tx.run("UPDATE model SET name = 'sentence-transformers/all-MiniLM-L6-v2'")
    db.create_embedding("d", [1, 2, 3], "minilm-l6-v2")
    assert db.get_embedding("d").model == ModelIdentity("minilm-l6-v2", revision, 3, "")
    (tmp_path / "m").mkdir()
    assert canonical_name(str(tmp_path / "m" / ".." / "m")) == str(tmp_path / "m")


@pytest.mark.parametrize(
    "model", [ModelIdentity(7, "", 2, ""), ModelIdentity("a", None, 2, ""), ModelIdentity("a", "", "2", "")]
)
def test_bad_identities_are_refused(db, model):
    db.create_node({"type": "Note", "id": "a"})
    with pytest.raises(InvalidRecordError, match="the model's"):
        db.create_embedding("a", [1, 2], model)


def test_vectors_of_no_named_model_are_those_of_the_embedder_that_is_not_loaded_yet(tmp_path, monkeypatch):
    class Pinned(FakeEmbedder):
        def get_model_info(self):
            return {**super().get_model_info(), "revision": "c" * 40}

    monkeypatch.setattr("embedded_db.models.load_embedder", Pinned)
    with open_db(tmp_path / "a.db", embedder="some/model") as db:
        db.create_node({"type": "Note", "id": "a"})
        assert db.create_embedding("a", [1.0] * 16).model.name == "some/model"
        message = db.create_chat().add_message(content="text")
        assert db._weaver.work("embedding")
        assert db.get_embedding_for_node("a").model == db.get_embedding_for_node(message.id).model
        assert db.get_embedding_for_node("a").model.revision == "c" * 40


def test_other_bad_arguments_are_refused(db):
    chat = db.create_chat()
    note = db.create_node({"type": "Note"})
    for write, message in (
        (lambda: db.create_message(chat_id=note.id, content="a"), "chat_id must name a Chat"),
        (lambda: db.create_message(chat_id=chat.id, content=None), "a message needs content"),
        (lambda: chat.add_message(sender="A"), "a message needs content"),
        (lambda: db.update_node(note.id, {"chat_id": chat.id}), "chat_id cannot be changed"),
        (lambda: db.update_node(note.id, {"id": "a"}), "'id' cannot be a property"),
        (lambda: db.update_node(note.id, "a"), "properties must be a dictionary"),
        (lambda: db.create_edge(note.id, note.id, ""), "type must have 1 to 512"),
        (lambda: db.create_edge(note.id, note.id, "T", {"from_id": "a"}), "it is the id of an end"),
        (lambda: db.insert_edges([{"from": "a"}]), "an edge has no 'from'"),
        (lambda: db.get_node(None), "node_id must be a string"),
        (lambda: db.get_node("\0"), "NUL"),
        (lambda: db.create_embedding(note.id, [1.0], 7), "model must be a ModelIdentity"),
    ):
        with pytest.raises(InvalidRecordError, match=message):
            write()
    db.create_edge(note.id, note.id, "T", id="e")
    with pytest.raises(InvalidRecordError, match="there is an edge 'e' already"):
        db.create_edge(note.id, note.id, "T", id="e")
