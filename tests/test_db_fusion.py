"""A page of results by meaning and words is a part of all of them, however few are asked for."""

import numpy as np
import pytest

from tests.db_support import open_db


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_a_page_is_a_part_of_all_results(threshold):
    rng = np.random.default_rng(0)
    with open_db() as db:
        # Few directions, so that many tie; the words are held by the nearest, by the farthest and by some between.
        vectors = np.add(rng.integers(-1, 2, (80, 3)), [0.0, 0.0, 0.1])
        contents = [f"number {number} " + "rust " * int(rng.integers(0, 3)) for number in range(80)]
        nodes = db.insert_nodes({"type": "Note", "content": content} for content in contents)
        db.insert_embeddings([(node.id, vector) for node, vector in zip(nodes, vectors, strict=True)], "own")
        query = {"semantic_query": {"vector": [1.0, 0.5, 0.2], "threshold": threshold}, "text_query": "rust"}
        everything = db.query(**query, limit=1000)
        assert len(everything) > 40
        assert len({one.fused_score for one in everything}) > 10
        for limit, offset in [(1, 0), (5, 0), (5, 3), (10, 20), (3, 40)]:
            assert db.query(**query, limit=limit, offset=offset) == everything[offset : offset + limit]
