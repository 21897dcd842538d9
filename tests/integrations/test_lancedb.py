"""LanceDB: a search in a table, which finds its function again when it is opened."""

import numpy as np
import pytest

lancedb = pytest.importorskip("lancedb")

from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector

import akidb_mlx.integrations.lancedb  # noqa: F401 - registers the function


def test_a_table_is_searched_and_opened_again(model, service, texts, tmp_path):
    function = get_registry().get("akidb-mlx").create(name=model)

    class Row(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

    table = lancedb.connect(tmp_path).create_table("texts", schema=Row)
    table.add([{"text": text} for text in texts])
    documents = service.embed_array(texts, input_type="document")
    stored = table.to_arrow()["vector"].to_pylist()
    assert np.allclose(stored, documents, atol=1e-6)

    opened = lancedb.connect(tmp_path).open_table("texts")
    found = opened.search("stocks").limit(len(texts)).to_list()
    distances = ((documents - service.embed_array(["stocks"], input_type="query")[0]) ** 2).sum(axis=1)
    assert [row["text"] for row in found] == [texts[index] for index in np.argsort(distances)]


def test_dimensions(model):
    function = get_registry().get("akidb-mlx").create(name=model, dimensions=8)
    assert function.ndims() == 8
    assert np.shape(function.compute_source_embeddings(["a", "b"])) == (2, 8)
