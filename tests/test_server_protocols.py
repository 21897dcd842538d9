"""The server as clients of Ollama, TEI, Cohere and Jina see it, and its own routes."""

import json
import math

import numpy as np
import pytest

from akidb_mlx.reranking import Reranker
from akidb_mlx.server.dialects.ollama import HARMLESS_OPTIONS, parse_keep_alive
from akidb_mlx.service import EmbeddingService
from tests.servers import running_server
from tests.support import GOLDENS, TEXTS, wait_until

MODEL, RERANKER = "tiny-bert", "reranker-bert"
LONG = "word " * 700


@pytest.fixture(scope="module")
def client():
    with running_server(
        models=[MODEL], rerankers=[RERANKER], entities="en_core_web_sm", summaries="extractive"
    ) as client:
        yield client


@pytest.fixture(scope="module")
def service():
    with EmbeddingService(GOLDENS / MODEL, device="cpu") as service:
        yield service


@pytest.fixture(scope="module")
def scores():
    with Reranker(GOLDENS / RERANKER, device="cpu") as reranker:
        return reranker.scores([("a question", text) for text in ("one", "another answer", "a third")]).tolist()


def vectors(values):
    return np.float32(values)


# Reranking


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_cohere_and_jina(client, scores, path):
    documents = ["one", {"text": "another answer"}, "a third"]
    answer = client.post(path, json={"model": RERANKER, "query": "a question", "documents": documents}).json()
    order = sorted(range(3), key=lambda index: -scores[index])
    assert [result["index"] for result in answer["results"]] == order
    assert [result["relevance_score"] for result in answer["results"]] == pytest.approx(
        [1 / (1 + math.exp(-scores[index])) for index in order]
    )
    assert all("document" not in result for result in answer["results"])
    assert answer["usage"]["total_tokens"] == sum(result["akidb"]["tokens"] for result in answer["results"])


def test_the_best_documents_only_with_their_texts(client):
    body = {"query": "a question", "documents": ["one", "another answer"], "top_n": 1, "return_documents": True}
    (result,) = client.post("/v1/rerank", json=body).json()["results"]
    assert result["document"] == {"text": ["one", "another answer"][result["index"]]}


def test_teis_reranking(client, scores):
    body = {"query": "a question", "texts": ["one", "another answer", "a third"]}
    ranks = client.post("/rerank", json=body).json()
    raw = client.post("/rerank", json={**body, "raw_scores": True, "return_text": True}).json()
    assert [rank["index"] for rank in ranks] == sorted(range(3), key=lambda index: -scores[index])
    assert [rank["score"] for rank in raw] == sorted(scores, reverse=True)
    assert [rank["text"] for rank in raw] == [body["texts"][rank["index"]] for rank in raw]
    assert "has" in client.post("/rerank", json={**body, "texts": [LONG]}).json()["error"]
    cut = client.post("/rerank", json={**body, "texts": [LONG, "short"], "truncate": True})
    assert cut.headers["x-akidb-truncated"] == "1"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"query": "q"}, 400, "documents is missing"),
        ({"documents": ["a"]}, 400, "query is missing"),
        ({"query": "q", "documents": []}, 400, "at least one text"),
        ({"query": "q", "documents": [{"title": "x"}]}, 400, "documents[0] must be a string"),
        ({"query": "q", "documents": ["a", 1]}, 400, "documents[1] must be a string"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, 400, "top_n"),
        ({"query": "q", "documents": ["a"], "rank_fields": ["x"]}, 400, "'rank_fields' is not a field"),
        ({"query": "q", "documents": ["a"], "model": MODEL}, 404, "the model is not a reranker of this server"),
        ({"query": "q", "documents": ["a"], "model": "other"}, 404, "not served here"),
    ],
)
def test_a_bad_reranking_request(client, body, status, words):
    answer = client.post("/v1/rerank", json=body)
    assert answer.status_code == status
    assert words in answer.json()["message"]
    assert answer.json()["detail"] == answer.json()["error"] == answer.json()["message"]


def test_without_a_reranker_404_says_so():
    with running_server() as client:
        answer = client.post("/v1/rerank", json={"query": "q", "documents": ["a"]})
        assert answer.status_code == 404
        assert "no reranker is served here" in answer.json()["message"]
        for path, body in (("/v1/entities", {"input": "a"}), ("/v1/summarize", {"messages": "a"})):
            answer = client.post(path, json=body)
            assert answer.status_code == 404
            assert "served here: start the server with --" in answer.json()["error"]["message"]


# Ollama


def test_ollama_embed(client, service):
    for given in ("a text", TEXTS[:2]):
        body = {"model": f"{MODEL}:latest", "input": given, "options": {"temperature": 0, "num_ctx": None}}
        answer = client.post("/api/embed", json=body).json()
        expected = service.embed_detailed([given] if isinstance(given, str) else given)
        assert np.array_equal(vectors(answer["embeddings"]), expected.vectors)
        assert answer["prompt_eval_count"] == sum(expected.token_counts)
        assert answer["model"] == f"{MODEL}:latest"


def test_ollama_cuts_unless_told_not_to(client):
    body = {"model": MODEL, "input": ["short", LONG]}
    assert client.post("/api/embed", json=body).json()["akidb"]["truncated"] == [False, True]
    refused = client.post("/api/embed", json={**body, "truncate": False})
    assert refused.status_code == 400
    assert list(refused.json()) == ["error"]
    assert "text 1 has" in refused.json()["error"]


def test_ollama_embeddings_and_lists(client, service):
    answer = client.post("/api/embeddings", json={"model": MODEL, "prompt": "a text"}).json()
    assert np.array_equal(vectors(answer["embedding"]), service.embed_array(["a text"])[0])
    assert [model["name"] for model in client.get("/api/tags").json()["models"]] == [MODEL, RERANKER]
    assert MODEL in [model["name"] for model in client.get("/api/ps").json()["models"]]
    shown = client.post("/api/show", json={"model": MODEL, "verbose": True}).json()
    assert shown["model_info"] == {
        "general.architecture": "bert",
        "bert.context_length": service.max_tokens,
        "bert.embedding_length": service.dimension,
    }
    assert shown["capabilities"] == ["embedding"]
    assert client.post("/api/show", json={"model": "other"}).status_code == 404
    assert set(client.get("/api/version").json()) == {"version"}


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"options": {"num_ctx": 512}}, 400, "options.num_ctx is not supported"),
        ({"options": {"nonsense": 1}}, 400, "options.nonsense"),
        ({"keep_alive": "soon"}, 400, "keep_alive"),
        ({"keep_alive": [1]}, 400, "keep_alive"),
        ({"model": "other"}, 404, "not served"),
    ],
)
def test_a_bad_ollama_request(client, fields, status, words):
    answer = client.post("/api/embed", json={"model": MODEL, "input": "a", **fields})
    assert answer.status_code == status
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (0, 0), (300, 300), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("100ms", 0.1), ("0", 0),
        (-1, math.inf), ("-1", math.inf), ("-1m", math.inf),
    ],
)  # fmt: skip
def test_keep_alive_as_go_writes_durations(value, seconds):
    assert parse_keep_alive(value) == seconds


def test_keep_alive_unloads():
    with running_server() as client:

        def loaded():
            return [model["name"] for model in client.get("/api/ps").json()["models"]]

        client.post("/api/embed", json={"model": MODEL, "input": "a", "keep_alive": -1})
        assert loaded() == [MODEL]
        client.post("/api/embed", json={"model": MODEL, "input": "a", "keep_alive": 0})
        wait_until(lambda: not loaded())
        client.post("/api/embed", json={"model": MODEL, "input": "a", "keep_alive": "50ms"})
        wait_until(lambda: not loaded())


def test_no_option_that_could_change_a_vector_is_harmless():
    assert not HARMLESS_OPTIONS & {"num_ctx", "rope_frequency_base", "rope_frequency_scale", "truncate", "logits_all"}


# TEI


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_tei_embed(client, service, path):
    for given in ("a text", TEXTS[:2]):
        answer = client.post(path, json={"inputs": given, "truncate": False}).json()
        expected = service.embed_array([given] if isinstance(given, str) else given)
        assert np.array_equal(vectors(answer), expected)
    raw = client.post(path, json={"inputs": "a text", "normalize": False}).json()
    assert np.array_equal(vectors(raw), service.embed_array(["a text"], normalize=False))


def test_tei_cuts_only_where_it_is_asked_to(client):
    refused = client.post("/embed", json={"inputs": ["short", LONG]})
    assert refused.status_code == 400
    assert refused.json()["error_type"] == "Validation"
    assert "text 1 has" in refused.json()["error"]
    cut = client.post("/embed", json={"inputs": ["short", LONG], "truncate": True})
    assert cut.headers["x-akidb-truncated"] == "1"
    whole = client.post("/embed", json={"inputs": ["short"], "truncate": True})
    assert "x-akidb-truncated" not in whole.headers


def test_tei_info_and_health(client, service):
    info = client.get("/info").json()
    assert info["model_id"] == MODEL
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == service.max_tokens
    assert client.get("/health").status_code == 200


def test_tei_tokenize(client, service):
    text = "Hello, wörld! \U0001f600"
    (tokens,) = client.post("/tokenize", json={"inputs": text}).json()
    assert len(tokens) == service.embed_detailed([text]).token_counts[0]
    assert [token["special"] for token in tokens] == [True, *[False] * (len(tokens) - 2), True]
    assert tokens[0] == {"id": tokens[0]["id"], "text": "[CLS]", "special": True, "start": None, "stop": None}
    inner = [token for token in tokens if not token["special"]]
    assert text[inner[0]["start"] : inner[0]["stop"]].lower().startswith("h")
    assert all(token["text"] for token in inner)
    assert inner[-1]["stop"] == len(text)
    assert client.post("/tokenize", json={"inputs": text, "add_special_tokens": False}).json() == [inner]


# Entities and summaries


def test_entities(client):
    answer = client.post("/v1/entities", json={"input": ["Alice met Bob in Paris.", ""]}).json()
    found = answer["data"][0]["entities"]
    assert {"text": "Paris", "label": "GPE", "start": 17, "end": 22} in found
    assert answer["data"][1] == {"object": "entities", "index": 1, "entities": []}


MESSAGES = ["Alice met Bob in Paris.", {"role": "Ada", "content": "They ate cake. It was good."}]


def test_summaries_at_once_and_as_events(client):
    whole = client.post("/v1/summarize", json={"messages": MESSAGES, "max_words": 5}).json()["summary"]
    assert whole
    answer = client.post("/v1/summarize", json={"messages": MESSAGES, "max_words": 5, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    assert "".join(json.loads(event)["delta"] for event in events[:-1]) == whole


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_summary_request_has_a_status_of_its_own(client, stream):
    for fields in ({"messages": [{"content": 1}]}, {"messages": MESSAGES, "max_words": 0}, {"messages": 1}):
        answer = client.post("/v1/summarize", json={**fields, "stream": stream})
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
