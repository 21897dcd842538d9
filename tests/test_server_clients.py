"""The server with the clients that people use; `make test-clients` installs all of them, and none is left out then."""

import base64
import json
import os
import shutil
import subprocess
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from akidb_mlx.service import EmbeddingService
from tests.servers import running_server
from tests.support import GOLDENS

MODEL, RERANKER = "tiny-bert", "reranker-bert"
TEXTS = ["one", "two"]
NODE_CLIENTS = Path(__file__).parent / "clients_node"


def installed(name):
    """Import a client; one that is not installed skips the test, but not where all have to be."""
    if os.environ.get("AKIDB_ALL_CLIENTS"):
        return import_module(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason="`make test-clients` installs it")


def ask_with_node(client, address):
    """Return what a client for Node gets from the server; see tests/clients_node."""
    if not os.environ.get("AKIDB_ALL_CLIENTS") and not (
        shutil.which("node") and (NODE_CLIENTS / "node_modules" / client).is_dir()
    ):
        pytest.skip("`make test-clients` installs it")
    command = ["node", f"{client}.mjs", address, MODEL, json.dumps(TEXTS)]
    done = subprocess.run(command, cwd=NODE_CLIENTS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def address():
    with running_server(models=[MODEL, "tiny-qwen3"], rerankers=[RERANKER]) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def expected():
    with EmbeddingService(GOLDENS / MODEL, device="cpu") as service:
        return service.embed_array(TEXTS)


def test_openai(address, expected):
    openai = installed("openai")
    with openai.OpenAI(base_url=f"{address}/v1", api_key="ignored", max_retries=0) as client:
        floats = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
        packed = client.embeddings.create(model=MODEL, input=TEXTS)
        for answer in (floats, packed):
            assert np.array_equal(np.float32([item.embedding for item in answer.data]), expected)
        assert [model.id for model in client.models.list()] == [MODEL, "tiny-qwen3", RERANKER]
        with pytest.raises(openai.NotFoundError, match="not served"):
            client.embeddings.create(model="other", input="a")
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
            client.embeddings.create(model=MODEL, input=[1, 2, 3])


def test_ollama(address, expected):
    ollama = installed("ollama")
    client = ollama.Client(host=address)
    answer = client.embed(model=MODEL, input=TEXTS, truncate=True, keep_alive="5m", options={"temperature": 0})
    assert np.array_equal(np.float32(answer.embeddings), expected)
    assert np.allclose(client.embeddings(model=MODEL, prompt="one").embedding, expected[0], atol=1e-6)
    assert [model.model for model in client.list().models] == [MODEL, "tiny-qwen3", RERANKER]
    assert MODEL in [model.model for model in client.ps().models]
    assert client.show(MODEL).modelinfo["bert.embedding_length"] == expected.shape[1]
    with pytest.raises(ollama.ResponseError, match="not served") as caught:
        client.embed(model="other", input="a")
    assert caught.value.status_code == 404


def test_openai_for_node(address, expected):
    found = ask_with_node("openai", address)
    bytes_of = [base64.b64decode(vector) for vector in found["base64"]]
    assert b"".join(bytes_of) == expected.astype("<f4").tobytes()
    for vectors in (found["floats"], found["packed"]):
        assert np.array_equal(np.float32(vectors), expected)
    assert found["models"] == [MODEL, "tiny-qwen3", RERANKER]
    assert (found["unknown"]["kind"], found["unknown"]["status"]) == ("NotFoundError", 404)
    assert "not served" in found["unknown"]["message"]
    assert (found["ids"]["kind"], found["ids"]["status"]) == ("BadRequestError", 400)
    assert "check_embedding_ctx_length" in found["ids"]["message"]


def test_ollama_for_node(address, expected):
    found = ask_with_node("ollama", address)
    assert np.array_equal(np.float32(found["floats"]), expected)
    assert np.allclose(np.float32(found["single"]), expected[0], atol=1e-6)
    assert found["models"] == [MODEL, "tiny-qwen3", RERANKER]
    assert MODEL in found["loaded"]
    assert found["shown"]["bert.embedding_length"] == expected.shape[1]
    assert (found["unknown"]["kind"], found["unknown"]["status"]) == ("ResponseError", 404)
    assert "not served" in found["unknown"]["message"]


def test_huggingface_hub(address, expected):
    from huggingface_hub import InferenceClient  # not before the environment of the tests is set

    client = InferenceClient(base_url=address)
    vectors = client.feature_extraction(TEXTS, normalize=True, truncate=True)
    assert np.array_equal(np.float32(vectors), expected)


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_cohere(address, version):
    cohere = installed("cohere")
    client = getattr(cohere, version)(api_key="ignored", base_url=address)
    answer = client.rerank(model=RERANKER, query="a question", documents=["one", "another answer"], top_n=1)
    (result,) = answer.results
    assert 0 < result.relevance_score < 1
    with pytest.raises(cohere.NotFoundError, match="not served"):
        client.rerank(model="other", query="q", documents=["a"])


def test_schemathesis(address):
    """No request that the description allows, or nearly allows, makes the server fail."""
    schemathesis = installed("schemathesis")
    hypothesis = installed("hypothesis")
    description = schemathesis.openapi.from_url(f"{address}/openapi.json")
    for operation in description.get_all_operations():
        found = operation.ok()

        @hypothesis.given(case=found.as_strategy())
        @hypothesis.settings(
            max_examples=15, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        def ask(case):
            answer = case.call(base_url=address, timeout=60)
            assert answer.status_code in (200, 400, 403, 404, 405, 408, 413), answer.text
            if case.path == "/v1/embeddings" and answer.status_code == 200:
                assert None not in answer.json()["data"][0]["embedding"]

        ask()
