"""Haystack: a search in its document store, by a pipeline that is stored and made again."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from akidb_mlx.integrations.haystack import AkidbDocumentEmbedder, AkidbTextEmbedder


def test_a_pipeline_searches_documents(model, service, texts):
    documents = [Document(content=text) for text in texts]
    embedded = AkidbDocumentEmbedder(model).run(documents)["documents"]
    vectors = service.embed_array(texts, input_type="document")
    assert np.allclose([one.embedding for one in embedded], vectors, atol=1e-6)
    assert all(one.embedding is None for one in documents)  # they belong to the caller
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(embedded)

    pipeline = Pipeline()
    pipeline.add_component("embedder", AkidbTextEmbedder(model))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=3))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    found = pipeline.run({"embedder": {"text": "stocks"}})["retriever"]["documents"]
    scores = vectors @ service.embed_array(["stocks"], input_type="query")[0]
    assert [one.content for one in found] == [texts[place] for place in np.argsort(-scores)[:3]]


def test_what_is_stored_of_a_component_makes_it_again(model):
    pipeline = Pipeline()
    pipeline.add_component("text", AkidbTextEmbedder(model, dimensions=8))
    pipeline.add_component("documents", AkidbDocumentEmbedder(model, meta_fields_to_embed=["title"]))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["akidb_mlx.integrations.haystack"])
    assert again.to_dict() == pipeline.to_dict()
    text = again.get_component("text")
    assert len(text.run("a text")["embedding"]) == 8
    assert asyncio.run(text.run_async("a text")) == text.run("a text")


def test_fields_of_documents_are_embedded_before_their_content(model, service):
    embedder = AkidbDocumentEmbedder(model, meta_fields_to_embed=["title", "none"], embedding_separator=": ")
    (done,) = embedder.run([Document(content="text", meta={"title": "Title"})])["documents"]
    assert np.allclose(done.embedding, service.embed(["Title: text"], input_type="document")[0], atol=1e-6)
