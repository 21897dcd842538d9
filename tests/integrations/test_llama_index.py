"""LlamaIndex: a search in a vector index."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from akidb_mlx.integrations.llama_index import AkidbEmbedding


def test_vectors_are_those_of_the_service_with_its_prompts(model, service, texts):
    ours = AkidbEmbedding(model)
    documents, query = service.embed(texts, input_type="document"), service.embed(["cat"], input_type="query")[0]
    assert ours.get_text_embedding_batch(texts) == asyncio.run(ours.aget_text_embedding_batch(texts)) == documents
    assert np.allclose(ours.get_text_embedding(texts[0]), documents[0], atol=1e-6)
    assert ours.get_query_embedding("cat") == asyncio.run(ours.aget_query_embedding("cat")) == query


def test_an_index_is_searched(model, service, texts):
    texts = texts[:-1]
    index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=AkidbEmbedding(model))
    found = index.as_retriever(similarity_top_k=len(texts)).retrieve("stocks")
    scores = service.embed_array(texts, input_type="document") @ service.embed_array(["stocks"], input_type="query")[0]
    assert [node.text for node in found] == [texts[place] for place in np.argsort(-scores)]
    assert np.allclose([node.score for node in found], -np.sort(-scores), atol=1e-5)


def test_what_is_stored_of_it_makes_it_again(model):
    ours = AkidbEmbedding(model, dimensions=8)
    again = AkidbEmbedding.from_dict(ours.to_dict())
    assert (again.model_name, again.dimensions) == (model, 8)
    assert again.get_query_embedding("cat") == ours.get_query_embedding("cat")
