"""Queries of the database, compared with a model of their meaning in plain Python and NetworkX."""

from __future__ import annotations

import math
import threading
import tracemalloc

import networkx
import numpy as np
import pytest
from hypothesis import strategies as st

from embedded_db import (
    ConvergedQuery,
    GraphFilter,
    InvalidQueryError,
    ModelMismatchError,
    SemanticQuery,
    StructuralFilter,
    changes,
    search,
)
from embedded_db.engine import ALL
from embedded_db.parsing import parse_query
from embedded_db.sqlite.matrix import VectorMatrix
from tests.db_support import Engine, for_examples, open_db
from tests.fake_embedder import FakeEmbedder

NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([-1.5, 0.0, 1.0, 2.5, 2.0**60]), st.just(2**60 + 1))
SCALARS = st.one_of(NUMBERS, st.booleans(), st.none(), st.sampled_from(["", "a", "b", "ab", "ä", "1", "true", "%"]))
# Also those whose squares are no float32.
VECTORS = st.tuples(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=3, max_size=3).filter(any), st.sampled_from([1.0, 1e-30, 1e30])
).map(lambda pair: [value * pair[1] for value in pair[0]])

pytestmark = pytest.mark.usefixtures("engine")
WORDS = ["rust", "python", "database", "graph"]


def has_type_of(value, other):
    """Numbers compare with numbers and strings with strings; a boolean is no number."""
    kinds = [
        bool if isinstance(one, bool) else float if isinstance(one, (int, float)) else type(one)
        for one in (value, other)
    ]
    return kinds[0] is kinds[1]


def property_of(node, path):
    if path in ("id", "type", "created_at"):
        return getattr(node, path)
    value = node.properties
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def meets(node, path, operator, value):
    found = property_of(node, path)

    def equal(one, other):
        return has_type_of(one, other) and one == other

    if operator == "Equals":
        return equal(found, value)
    if operator == "NotEquals":
        return not equal(found, value)
    if operator == "In":
        return any(equal(found, one) for one in value)
    if operator == "Contains":
        if isinstance(found, list):
            return any(equal(one, value) for one in found)
        return isinstance(found, str) and isinstance(value, str) and value in found
    if isinstance(found, bool) or found is None or not has_type_of(found, value) or isinstance(found, (list, dict)):
        return False
    return {
        "GreaterThan": found > value,
        "LessThan": found < value,
        "GreaterThanOrEqual": found >= value,
        "LessThanOrEqual": found <= value,
    }[operator]


@st.composite
def filters(draw):
    path = draw(st.sampled_from(["x", "m.x", "m.y.z", "type", "content", "created_at", "id", "no_such"]))
    operator = draw(
        st.sampled_from(
            [
                "Equals",
                "NotEquals",
                "GreaterThan",
                "LessThan",
                "GreaterThanOrEqual",
                "LessThanOrEqual",
                "In",
                "Contains",
            ]
        )
    )
    if operator == "In":
        return path, operator, draw(st.lists(SCALARS, max_size=3))
    if operator.startswith(("Greater", "Less")):
        return path, operator, draw(st.one_of(NUMBERS, st.sampled_from(["a", "ab", "n1"])))
    return path, operator, draw(SCALARS)


@st.composite
def contents(draw):
    """Nodes with properties, edges between them, and vectors of some."""
    count = draw(st.integers(1, 8))
    values = st.one_of(
        SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from("xyz"), SCALARS, max_size=2)
    )
    nodes = []
    for number in range(count):
        node = {"type": draw(st.sampled_from(["Note", "a"])), "id": f"n{number}", "created_at": draw(st.integers(0, 2))}
        node["x"] = draw(values)
        node["m"] = draw(st.one_of(st.none(), st.fixed_dictionaries({"x": values, "y": values})))
        node["content"] = draw(st.one_of(st.none(), st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)))
        nodes.append(node)
    ends = st.integers(0, count - 1).map("n{}".format)
    edges = draw(st.lists(st.tuples(ends, ends, st.sampled_from("ST")), max_size=12))
    vectors = {f"n{number}": draw(VECTORS) for number in range(count) if draw(st.booleans())}
    return nodes, edges, vectors


def fill(db, content):
    nodes, edges, vectors = content
    created = db.insert_nodes(nodes)
    db.insert_edges([{"from_id": a, "to_id": b, "type": kind} for a, b, kind in edges])
    db.insert_embeddings(vectors.items(), "model")
    graph = networkx.MultiDiGraph()
    graph.add_nodes_from(node.id for node in created)
    for a, b, kind in edges:
        graph.add_edge(a, b, kind=kind)
    return created, graph


def reached(graph, start, direction, edge_type, depth):
    kept = networkx.MultiDiGraph()
    kept.add_nodes_from(graph)
    kept.add_edges_from((a, b) for a, b, kind in graph.edges(data="kind") if edge_type in (None, kind))
    view = {"Outbound": kept, "Inbound": kept.reverse(), "Both": kept.to_undirected()}[direction]
    return set(networkx.single_source_shortest_path_length(view, start, cutoff=depth))


def cosine(a, b):
    a, b = (np.asarray(one, np.float64) for one in (a, b))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@for_examples(
    60,
    content=contents(),
    conditions=st.lists(filters(), max_size=2),
    walk=st.one_of(
        st.none(),
        st.tuples(
            st.sampled_from(["Outbound", "Inbound", "Both"]), st.sampled_from([None, "S", "T"]), st.integers(0, 4)
        ),
    ),
    vector=st.one_of(st.none(), st.just([1.0, 1.0, 0.0]), st.just([0.0, -1.0, 0.0])),
    threshold=st.sampled_from([None, -1.0, 0.0, 0.5, 1.0]),
    words=st.lists(st.sampled_from(WORDS), max_size=2),
    page=st.tuples(st.integers(1, 9), st.integers(0, 3)),
)
def test_a_query_means_what_the_model_says(content, conditions, walk, vector, threshold, words, page):
    with open_db() as db:
        created, graph = fill(db, content)
        vectors = content[2]
        if not (conditions or walk or vector or words):
            return
        limit, offset = page
        found = db.query(
            structural_filters=[{"property": p, "operator": o, "value": v} for p, o, v in conditions],
            graph_filter=walk and {"start_node_id": "n0", "direction": walk[0], "edge_type": walk[1], "depth": walk[2]},
            semantic_query=vector and {"vector": vector, "threshold": threshold},
            text_query=" ".join(words) or None,
            limit=limit,
            offset=offset,
        )
        kept = [node for node in created if all(meets(node, *one) for one in conditions)]
        if walk:
            near = reached(graph, "n0", *walk)
            kept = [node for node in kept if node.id in near]
        by_text = [node for node in kept if words and set(words) <= set((node.properties.get("content") or "").split())]
        scores = {node.id: cosine(vectors[node.id], vector) for node in kept if vector and node.id in vectors}
        least = -2 if threshold is None else threshold - 1e-6
        scores = {name: score for name, score in scores.items() if score >= least}
        for result in found:
            assert db.get_node(result.node.id) == result.node
            assert (result.similarity_score is None) == (result.node.id not in scores)
            assert result.similarity_score is None or math.isclose(
                result.similarity_score, scores[result.node.id], abs_tol=1e-6
            )
        names = [result.node.id for result in found]
        if vector is None and not words:
            expected = sorted(kept, key=lambda node: (node.created_at, node.id))
            assert names == [node.id for node in expected][offset : offset + limit]
        elif not words:
            ordered = [node for node in kept if node.id in scores]
            ordered.sort(key=lambda node: (-round(scores[node.id], 5), node.created_at, node.id))
            assert names == [node.id for node in ordered][offset : offset + limit]
        else:
            matching = {node.id for node in by_text}
            everything = matching if vector is None else scores.keys() | (matching if threshold is None else set())
            assert set(names) <= everything
            assert len(names) == len(set(names)) == max(0, min(limit, len(everything) - offset))
            fused = [result.fused_score for result in found]
            assert fused == sorted(fused, reverse=True) if vector else fused == [None] * len(found)


@for_examples(
    40,
    content=contents(),
    edge_type=st.sampled_from([None, "S"]),
    direction=st.sampled_from(["Outbound", "Inbound", "Both"]),
)
def test_a_shortest_path_is_one(content, edge_type, direction):
    with open_db() as db:
        created, graph = fill(db, content)
        depths = range(len(created) + 1)
        for end in created:
            path = db.find_shortest_path(start_id="n0", end_id=end.id, direction=direction, edge_type=edge_type)
            shortest = next((d for d in depths if end.id in reached(graph, "n0", direction, edge_type, d)), None)
            if shortest is None:
                assert path is None
                continue
            assert len(path.edges) == shortest == len(path.nodes) - 1
            assert (path.nodes[0].id, path.nodes[-1]) == ("n0", end)
            for before, edge, after in zip(path.nodes, path.edges, path.nodes[1:], strict=False):
                ends = (edge.from_id, edge.to_id)
                assert edge_type in (None, edge.type)
                there, back = ends == (before.id, after.id), ends == (after.id, before.id)
                assert {"Outbound": there, "Inbound": back, "Both": there or back}[direction]


@for_examples(
    60,
    st.lists(
        st.tuples(
            st.sampled_from(["put", "delete", "delete node", "trim"]),
            st.integers(0, 5),
            st.lists(st.sampled_from([-1.0, 0.5, 1.0]), min_size=3, max_size=3),
        ),
        max_size=20,
    ),
)
def test_the_matrix_follows_every_change(steps):
    """Also a matrix that is behind, as that of another process: it looks at every third state and at the last."""
    with open_db() as db:
        late = VectorMatrix()
        db.insert_nodes([{"type": "Note", "id": str(number)} for number in range(6)])
        expected, names = {}, set(map(str, range(6)))
        for count, (action, number, vector) in enumerate(steps):
            if Engine.databases is None and count % 3 == 1:
                assert ranked(db, late) == pytest.approx(ranked(db, db._connections.ranking), abs=1e-6)
            name = str(number)
            if name not in names:
                continue
            if action == "trim":
                changes.trim(db._connections)
            elif action == "put":
                db.update_embedding(name, vector, "model")
                expected[name] = vector
            else:
                db.delete_embedding(name) if action == "delete" else db.delete_node(name)
                expected.pop(name, None)
                names -= {name} if action == "delete node" else set()
            found = {one.node.id: one.similarity_score for one in db.search_vectors([1.0, 0.0, 0.0], top_k=10)}
            assert found == pytest.approx(
                {key: cosine(one, [1.0, 0.0, 0.0]) for key, one in expected.items()}, abs=1e-6
            )
        if Engine.databases is None and steps:
            assert ranked(db, late) == pytest.approx(ranked(db, db._connections.ranking), abs=1e-6)


def ranked(db, ranking, query=(1.0, 0.0, 0.0)):
    """Return the cosines of all nodes by their ids, as a ranking of the same data has them."""
    with db._connections.read() as tx:
        best = ranking.best(tx, ALL, {}, np.array(query, np.float32), 100, None)
        return {tx.value("SELECT id FROM node WHERE key = :key", key=key): score for key, score in best.items()}


def test_what_another_thread_removes_while_results_are_ranked_is_not_missing(tmp_path, monkeypatch):
    """Its transaction sees a state without it, and takes the same matrix there."""
    with open_db(tmp_path / "a.db") as db:
        db.insert_nodes([{"type": "Note", "id": name} for name in "abc"])
        db.insert_embeddings([("a", [1.0, 0.0]), ("b", [0.8, 0.6]), ("c", [0.0, 1.0])], "model")
        ranking = type(db._connections.ranking)
        similarities = ranking.similarities
        threads = []

        def remove():
            db.delete_embedding("a")
            assert [one.node.id for one in db.search_vectors([1.0, 0.0])] == ["b", "c"]

        def interrupted(*arguments):
            found = similarities(*arguments)
            if not threads:
                threads.append(threading.Thread(target=remove))
                threads[0].start()
                threads[0].join(0.5)  # it may have to wait until this is over
            return found

        monkeypatch.setattr(ranking, "similarities", interrupted)
        for parts in ({}, {"text_query": "none"}):
            found = db.query(semantic_query={"vector": [1.0, 0.0]}, limit=2, **parts)
            assert [(one.node.id, round(one.similarity_score, 6)) for one in found] == [("a", 1.0), ("b", 0.8)]
            for thread in threads:
                thread.join()
            threads.clear()
            db.update_embedding("a", [1.0, 0.0])


def test_newer_nodes_take_no_places_of_those_that_a_query_sees(tmp_path):
    with open_db(tmp_path / "a.db") as db:
        db.insert_nodes([{"type": "Note", "id": name} for name in "abc"])
        db.insert_embeddings([("a", [0.8, 0.6]), ("b", [0.6, 0.8]), ("c", [0.0, 1.0])], "model")
        vector = np.array([1.0, 0.0], np.float32)
        with db._connections.read() as tx:
            assert tx.value("SELECT count(*) FROM node") == 3
            db.insert_nodes([{"type": "Note", "id": name} for name in "xyz"])
            db.insert_embeddings([(name, [1.0, 0.0]) for name in "xyz"], "model")
            assert {one.node.id for one in db.search_vectors(vector, 3)} == set("xyz")
            for parts in ({}, {"text_query": "none"}):
                query = parse_query(ConvergedQuery(semantic_query=SemanticQuery(vector=vector), limit=2, **parts))
                found = search.search(tx, db._connections.ranking, query, vector)
                assert [one.node.id for one in found] == ["a", "b"]


@pytest.mark.parametrize("error", [-8e-6, 8e-6])
def test_the_threshold_of_a_fused_query_is_one_of_exact_cosines(error, monkeypatch):
    with open_db() as db:
        db.insert_nodes([{"type": "Note", "id": name, "content": "rust"} for name in "ab"])
        db.insert_embeddings([("a", [0.8, 0.6]), ("b", [0.799995, math.sqrt(1 - 0.799995**2)])], "model")
        ranking = type(db._connections.ranking)
        similarities = ranking.similarities

        def rounded(*arguments):
            keys, scores = similarities(*arguments)
            return keys, scores + np.float32(error)

        monkeypatch.setattr(ranking, "similarities", rounded)
        found = db.query(semantic_query={"vector": [1.0, 0.0], "threshold": 0.8}, text_query="rust")
        assert [one.node.id for one in found] == ["a"]


def test_a_vector_that_moved_into_a_gap_is_still_found():
    """The last row of the matrix fills that of a removed vector, and the next vector takes the last row."""
    with open_db() as db:
        db.insert_nodes([{"type": "Note", "id": name} for name in "abc"])
        db.insert_embeddings([("a", [1.0, 1.0]), ("b", [1.0, 0.0])], "model")
        assert len(db.search_vectors([1.0, 0.0])) == 2
        db.delete_node("a")
        assert len(db.search_vectors([1.0, 0.0])) == 1
        db.create_embedding("c", [0.0, 1.0])
        scores = {one.node.id: one.similarity_score for one in db.search_vectors([1.0, 0.0])}
        assert scores == pytest.approx({"b": 1.0, "c": 0.0})


def test_another_process_sees_the_changes(tmp_path):
    """Each `EmbeddedDB` has a matrix of its own, as each process has."""
    with open_db(tmp_path / "a.db") as one, open_db(tmp_path / "a.db") as other:
        one.insert_nodes([{"type": "Note", "id": name} for name in "abc"])
        one.insert_embeddings([("a", [1.0, 0.0]), ("b", [0.0, 1.0])], "model")
        assert [result.node.id for result in other.search_vectors([1.0, 0.1])] == ["a", "b"]
        one.delete_node("a")
        one.create_embedding("c", [1.0, 0.0])
        assert [result.node.id for result in other.search_vectors([1.0, 0.1])] == ["c", "b"]


def test_the_first_query_needs_little_more_memory_than_the_matrix(engine):
    if engine == "postgres":
        pytest.skip("PostgreSQL needs no matrix")
    rows, dimension = 10_000, 256
    with open_db() as db:
        db.insert_nodes([{"type": "Note", "id": str(number)} for number in range(rows)])
        vectors = np.random.default_rng(0).standard_normal((rows, dimension), np.float32)
        db.create_embedding("0", vectors[0], "model")
        with db._connections.write() as tx:
            stored = [{"key": key + 1, "vector": vectors[key].tobytes()} for key in range(1, rows)]
            tx.run_many("INSERT INTO embedding VALUES (:key, 1, :vector, 0)", stored)
        tracemalloc.start()
        (found,) = db.search_vectors(vectors[7], top_k=1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.node.id == "7"
        assert peak < 1.6 * vectors.nbytes


def test_a_filtered_query_is_never_short():
    """Candidates are intersected before they are ranked: the ten wanted ones are the least similar of all."""
    with open_db() as db:
        db.insert_nodes([{"type": "Note", "id": f"{number:03}", "wanted": number >= 490} for number in range(500)])
        db.insert_embeddings([(f"{number:03}", [1.0, number / 100]) for number in range(500)], "model")
        found = db.query(
            [{"field": "wanted", "operator": "Equals", "value": True}], semantic_query={"vector": [1.0, 0.0]}
        )
        assert [result.node.id for result in found] == [str(number) for number in range(490, 500)]


def test_equal_vectors_are_ordered_by_time_and_id():
    with open_db() as db:
        rng = np.random.default_rng(0)
        vector = rng.standard_normal(50)
        names = [f"{number:03}" for number in range(97)]
        db.insert_nodes([{"type": "Note", "id": name, "created_at": int(name) % 2} for name in names])
        db.insert_embeddings([(name, vector) for name in names], "model")
        found = db.search_vectors(rng.standard_normal(50), top_k=60)
        assert [one.node.id for one in found] == sorted(names, key=lambda name: (int(name) % 2, name))[:60]
        assert len({one.similarity_score for one in found}) == 1


def test_an_identical_vector_reaches_a_threshold_of_one():
    with open_db() as db:
        rng = np.random.default_rng(1)
        for number in range(20):
            db.create_node({"type": "Note", "id": str(number)})
            vector = rng.standard_normal(384) * 1e30
            db.create_embedding(str(number), vector, "model")
            (found,) = db.query(semantic_query={"vector": vector, "threshold": 1.0})
            assert found.node.id == str(number)


def test_ranks_of_meaning_and_text_are_fused():
    """A message that is second by both is before those that are first by one and far behind by the other."""
    with open_db() as db:
        texts = {"meaning": "graph", "both": "graph rust rust", "text": "rust rust rust rust", "neither": "graph graph"}
        db.insert_nodes([{"type": "Note", "id": name, "content": text} for name, text in texts.items()])
        vectors = {"meaning": [1.0, 0.0], "both": [1.0, 0.1], "neither": [1.0, 0.5], "text": [0.0, 1.0]}
        db.insert_embeddings(vectors.items(), "model")
        found = db.query(semantic_query={"vector": [1.0, 0.0]}, text_query="rust")
        assert found[0].node.id == "both"
        assert found[0].fused_score == pytest.approx(1 / 62 + 1 / 62)
        assert {one.node.id: one.fused_score for one in found}["text"] == pytest.approx(1 / 61 + 1 / 64)
        assert [one.node.id for one in found][2:] == ["meaning", "neither"]
        kept = db.query(semantic_query={"vector": [1.0, 0.0], "threshold": 0.5}, text_query="rust")
        assert {one.node.id for one in kept} == {"both", "meaning", "neither"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("Rust", {"a"}),
        ('rust "fast', {"a"}),
        ("rust AND slow", set()),
        ("don't", {"b"}),
        ("NEAR(", {"b"}),
        ("near OR", set()),
        ("uber", {"b"}),
        ("naive* -", {"b"}),
        ("-rust", {"a"}),
    ],
)
def test_words_are_never_operators(query, found):
    with open_db() as db:
        db.create_node({"type": "Note", "id": "a", "content": "Rust is fast"})
        db.create_node({"type": "Note", "id": "b", "content": "I don't know: über, near, naïve"})
        assert {one.node.id for one in db.query(text_query=query)} == found


def test_changed_text_is_found_and_the_old_one_is_not():
    with open_db() as db:
        db.create_node({"type": "Note", "id": "a", "content": "before"})
        db.update_node("a", {"content": "after"})
        assert db.query(text_query="before") == []
        assert len(db.query(text_query="after")) == 1
        db.update_node("a", {"content": None})
        assert db.query(text_query="after") == []


def test_the_text_of_a_query_is_embedded():
    embedder = FakeEmbedder()
    with open_db(embedder=embedder) as db:
        assert db.query(semantic_query={"text": "abc"}) == []
        assert embedder.calls == []
        db.insert_nodes([{"type": "Note", "id": name} for name in ("abc", "xyz")])
        for name in ("abc", "xyz"):
            db.create_embedding(name, embedder.embed([name])[0])
        (found,) = db.query(semantic_query={"text": "abc", "threshold": 0.9})
        assert (found.node.id, round(found.similarity_score, 5)) == ("abc", 1)
        assert len(db.execute_query(ConvergedQuery(semantic_query=SemanticQuery(text="abc")))) == 2


def test_a_query_of_another_model_is_refused_by_name():
    with open_db(embedder=FakeEmbedder("other")) as db:
        db.create_node({"type": "Note", "id": "a"})
        db.create_embedding("a", [1.0] * 16, "mine")
        with pytest.raises(ModelMismatchError, match=r"'mine'.*'other'"):
            db.query(semantic_query={"text": "a"})
        with pytest.raises(InvalidQueryError, match=r"'mine'.*found one of 3 values"):
            db.search_vectors([1.0, 2.0, 3.0])


def test_all_names_of_a_property_and_typed_filters():
    with open_db() as db:
        db.create_node({"type": "Note", "id": "a", "metadata": {"n": 1}})
        for key in ("property", "property_name", "field"):
            one = {key: "metadata.n", "operator": "LessThan", "value": 2}
            assert len(db.query(structural_filters=[one])) == 1
        assert len(db.query([StructuralFilter("metadata.n", "Equals", 1)], GraphFilter("a"))) == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "asks for nothing"),
        ({"structural_filters": {"property": "a"}}, "structural_filters must be a list"),
        ({"structural_filters": [{"property": "a"}]}, "needs property, operator and value, found 'property'"),
        ({"structural_filters": [{"property": "a", "field": "b", "operator": "Equals", "value": 1}]}, "needs property"),
        ({"structural_filters": [{"property": "a", "operator": "Like", "value": 1}]}, "one of Equals.* found 'Like'"),
        ({"structural_filters": [{"property": "a", "operator": [], "value": 1}]}, "one of Equals"),
        ({"structural_filters": [{"property": "a", "operator": np.array(["Equals"] * 2), "value": 1}]}, "one of Eq"),
        ({"structural_filters": [{"property": "a", "operator": "In", "value": iter([1])}]}, "found a list_iterator"),
        (
            {"structural_filters": [{"property": "a", "operator": "Equals", "value": np.array([1, 2])}]},
            "found a ndarray",
        ),
        ({"structural_filters": [{"property": 'a"', "operator": "Equals", "value": 1}]}, "without quotes"),
        ({"structural_filters": [{"property": "a..b", "operator": "Equals", "value": 1}]}, "joined by dots"),
        ({"structural_filters": [{"property": "", "operator": "Equals", "value": 1}]}, "1 to 512"),
        ({"structural_filters": [{"property": "a", "operator": "Equals", "value": [1]}]}, "found a list"),
        ({"structural_filters": [{"property": "a", "operator": "Equals", "value": math.nan}]}, "a finite number"),
        ({"structural_filters": [{"property": "a", "operator": "Equals", "value": 2**64}]}, "64 bits"),
        ({"structural_filters": [{"property": "a", "operator": "Equals", "value": "\ud800"}]}, "lone surrogate"),
        ({"structural_filters": [{"property": "a", "operator": "In", "value": "abc"}]}, "must be a list"),
        ({"structural_filters": [{"property": "a", "operator": "LessThan", "value": True}]}, "number or a string"),
        ({"structural_filters": [{"property": "a", "operator": "Equals", "value": 1, "x": 1}]}, "has no 'x'"),
        ({"graph_filter": {"depth": 1}}, "needs start_node_id"),
        ({"graph_filter": {"start_node_id": "a", "direction": "Up"}}, "one of Outbound, Inbound, Both, found 'Up'"),
        ({"graph_filter": {"start_node_id": "a", "direction": {}}}, "one of Outbound"),
        ({"graph_filter": {"start_node_id": "a", "direction": np.array(["Both", "Both"])}}, "one of Outbound"),
        ({"graph_filter": {"start_node_id": "a", "depth": -1}}, "depth must be an integer of 0 or more, found -1"),
        ({"graph_filter": {"start_node_id": "a", "depth": 65}}, "at most 64"),
        ({"graph_filter": {"start_node_id": "a", "hops": 1}}, "has no 'hops'"),
        ({"graph_filter": {"start_node_id": 7}}, "must be a string"),
        ({"graph_filter": "a"}, "must be a dictionary"),
        ({"semantic_query": {}}, "either text or vector"),
        ({"semantic_query": {"text": "a", "vector": [1.0]}}, "either text or vector"),
        ({"semantic_query": {"text": " "}}, "is blank"),
        ({"semantic_query": {"text": "a", "threshold": 1.5}}, "from -1 to 1, found 1.5"),
        ({"semantic_query": {"text": "a", "threshold": "high"}}, "threshold must be a number"),
        ({"semantic_query": {"text": "a\0"}}, "NUL"),
        ({"text_query": " - "}, "holds no word"),
        ({"text_query": 7}, "must be a string"),
        ({"text_query": "a", "limit": 0}, "limit must be an integer of 1 or more, found 0"),
        ({"text_query": "a", "limit": True}, "limit must be"),
        ({"text_query": "a", "offset": 1.0}, "offset must be"),
    ],
)
def test_bad_queries_are_refused(query, message):
    with open_db() as db, pytest.raises(InvalidQueryError, match=message) as caught:
        db.query(**query)
    assert isinstance(caught.value, ValueError)


def test_filters_may_come_from_a_generator_and_numbers_from_numpy():
    with open_db() as db:
        db.insert_nodes([{"type": "Note", "rank": rank} for rank in range(3)])
        query = ConvergedQuery({"field": "rank", "operator": "In", "value": np.arange(rank)} for rank in (2, 3))
        assert [[one.node.rank for one in db.execute_query(query)] for _ in range(2)] == [[0, 1]] * 2
        (found,) = db.query([{"field": "rank", "operator": "GreaterThan", "value": np.float32(1.5)}])
        assert found.node.rank == 2


@pytest.mark.parametrize("field", ["rank", "id", "created_at"])
def test_in_takes_thousands_of_values_and_keeps_their_types(field):
    with open_db() as db:
        for name, rank in (("a", 1), ("b", "1"), ("c", 2.5), ("d", True), ("e", None)):
            db.create_node({"type": "Note", "id": name, "created_at": 2.0, "rank": rank})

        def found(*values):
            return {one.node.id for one in db.query([{"field": field, "operator": "In", "value": list(values)}])}

        many = [*range(3, 5000), *(f"x{number}" for number in range(5000))]
        if field == "rank":
            assert found(*many, 1) == {"a"}
            assert found(*many, "1") == {"b"}
            assert found(*many, 2.5, True) == {"c", "d"}
            assert found(*many, None) == {"e"}
        elif field == "id":
            assert found(*many, "a", True) == {"a"}
        else:
            assert found(*many, 2) == {"a", "b", "c", "d", "e"}
            assert found(*many, "2") == set()
