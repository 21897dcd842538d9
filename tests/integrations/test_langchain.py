"""LangChain: its own standard tests, and a search in its vector store."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("langchain_tests")

from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.integrations.langchain import AkidbEmbeddings

MODEL = str(Path(__file__).parent.parent / "goldens" / "tiny-gemma3")


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return AkidbEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": MODEL}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return AkidbEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": MODEL}


def test_vectors_are_those_of_the_service_with_its_prompts(service, texts):
    ours = AkidbEmbeddings(MODEL)
    documents, query = service.embed(texts, input_type="document"), service.embed(["cat"], input_type="query")[0]
    assert not np.allclose(service.embed(["cat"])[0], query)  # the prompts change something
    assert ours.embed_documents(texts) == asyncio.run(ours.aembed_documents(texts)) == documents
    assert ours.embed_query("cat") == asyncio.run(ours.aembed_query("cat")) == query
    assert ours.embed_documents([]) == []


def test_two_adapters_share_a_model_and_an_embedder_may_be_given(service, texts):
    one, other = AkidbEmbeddings(MODEL), AkidbEmbeddings(MODEL, dimensions=8)
    assert one._embedder.embedder is other._embedder.embedder
    assert len(other.embed_query("cat")) == 8
    assert AkidbEmbeddings(service).embed_documents(texts) == one.embed_documents(texts)


def test_what_is_cut_is_said(caplog):
    AkidbEmbeddings(MODEL).embed_documents(["short", "word " * 5000])
    assert "1 of 2 texts were cut" in caplog.text
    with pytest.raises(InvalidInputError):
        AkidbEmbeddings(MODEL, on_overflow="error").embed_query("word " * 5000)


def test_a_search(texts):
    store = InMemoryVectorStore(AkidbEmbeddings(MODEL))
    store.add_texts(texts)
    found = store.similarity_search_with_score("stocks fell sharply", k=3)
    scores = [score for _, score in found]
    assert len(found) == 3
    assert scores == sorted(scores, reverse=True)
    hits = asyncio.run(store.asimilarity_search("stocks fell sharply", k=3))
    assert [hit.page_content for hit in hits] == [document.page_content for document, _ in found]
