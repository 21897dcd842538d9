"""Chroma: a search in a collection, which finds its function again when it is opened."""

import numpy as np
import pytest

chromadb = pytest.importorskip("chromadb")

from akidb_mlx.integrations.chroma import AkidbEmbeddingFunction


def test_a_collection_is_searched_and_opened_again(model, service, texts, tmp_path):
    texts = texts[:-1]
    client = chromadb.PersistentClient(str(tmp_path))
    collection = client.create_collection("texts", embedding_function=AkidbEmbeddingFunction(model))
    collection.add(ids=[str(index) for index in range(len(texts))], documents=texts)
    documents = service.embed_array(texts, input_type="document")
    stored = collection.get(include=["embeddings"])
    order = [int(one) for one in stored["ids"]]
    assert np.allclose(stored["embeddings"], documents[order], atol=1e-6)

    # Without a function: the one that the collection has stored.
    opened = client.get_collection("texts")
    found = opened.query(query_texts=["stocks"], n_results=len(texts), include=["distances", "documents"])
    distances = 1 - documents @ service.embed_array(["stocks"], input_type="query")[0]
    assert found["documents"][0] == [texts[index] for index in np.argsort(distances)]
    assert np.allclose(found["distances"][0], np.sort(distances), atol=1e-5)


def test_the_stored_configuration(model):
    function = AkidbEmbeddingFunction(model, dimensions=8)
    again = AkidbEmbeddingFunction.build_from_config(function.get_config())
    assert np.array_equal(function(["a text"]), again(["a text"]))
    assert function(["a text"])[0].shape == (8,)
    function.validate_config_update(function.get_config(), {**function.get_config(), "device": "cpu"})
    with pytest.raises(ValueError, match="dimensions of a collection cannot change"):
        function.validate_config_update(function.get_config(), {**function.get_config(), "dimensions": 16})
