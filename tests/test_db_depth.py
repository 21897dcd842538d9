"""Graph filters of many steps: the same nodes as a plain breadth-first search, and each edge followed once."""

import itertools

import networkx
import pytest

from embedded_db import graph
from tests.db_support import open_db

NODES = 40


@pytest.fixture(scope="module")
def db():
    """A ring with a short cut from every node, on which ways of many lengths lead to each node."""
    with open_db() as opened:
        opened.insert_nodes({"type": "Topic", "id": f"n{number}"} for number in range(NODES))
        opened.insert_edges(
            {"from_id": f"n{number}", "to_id": f"n{(number + step) % NODES}", "type": f"step {step}"}
            for number, step in itertools.product(range(NODES), (1, 7))
        )
        yield opened


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize(("direction", "edge_type"), [("Outbound", None), ("Inbound", "step 1"), ("Both", "step 7")])
def test_every_depth_reaches_what_a_search_of_networkx_does(db, direction, edge_type, depth):
    steps = (1, 7) if edge_type is None else (int(edge_type.split()[1]),)
    plain = networkx.DiGraph((n, (n + step) % NODES) for n, step in itertools.product(range(NODES), steps))
    view = {"Outbound": plain, "Inbound": plain.reverse(), "Both": plain.to_undirected()}[direction]
    expected = networkx.single_source_shortest_path_length(view, 3, cutoff=depth)
    walk = {"start_node_id": "n3", "direction": direction, "edge_type": edge_type, "depth": depth}
    assert {one.node.id for one in db.query(graph_filter=walk, limit=100)} == {f"n{number}" for number in expected}


def test_a_deep_search_follows_each_edge_once(db, monkeypatch):
    """A recursive query would follow each of the 80 edges about sixty times."""
    followed = []
    real = graph._edges_from

    def counted(*arguments):
        found = real(*arguments)
        followed.extend(edge for edge, _, _ in found)
        return found

    monkeypatch.setattr(graph, "_edges_from", counted)
    found = db.query(graph_filter={"start_node_id": "n0", "depth": 64}, limit=100)
    assert len(found) == NODES
    assert len(followed) == len(set(followed)) == 2 * NODES
