"""Names openai:NAME wherever a model is named: the service, pools, adapters, AkiDB's protocol and the server."""

import gzip
import json

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, ModelPool
from akidb_mlx.embedder import Embedder
from akidb_mlx.errors import ConfigurationError, InferenceError, InvalidInputError
from akidb_mlx.integrations.shared import RoleEmbedder
from akidb_mlx.remote import OpenAIEmbedder, embeddings, failures
from akidb_mlx.server import models
from akidb_mlx.server.models import load_model
from akidb_mlx.settings import Settings
from akidb_mlx.stdio.models import LoadedModels
from tests.embeddings_api import DIMENSION, Reply, answer, refusal, running_api, vector
from tests.servers import running_server
from tests.support import GOLDENS

pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def api(monkeypatch):
    """An API that the settings name; every other one is not there."""
    with running_api() as api:
        for name in ("OPENAI_API_KEY", "AKIDB_DEVICE", "AKIDB_BACKEND"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("AKIDB_OPENAI_BASE_URL", api.url)
        monkeypatch.setattr(failures, "_FIRST_WAIT_S", 0.001)
        yield api


def test_a_service_of_such_a_name_is_an_embedder_of_the_api(api):
    with EmbeddingService("openai:m", dimensions=4, device="cpu", backend="auto") as service:
        assert isinstance(service, OpenAIEmbedder)
        assert isinstance(service, Embedder)
        assert np.array_equal(service.embed_array(["a"]), [vector("a", 4)])
        assert service.get_model_info()["path"] == api.url
        assert service.get_model_info()["backend"] == "openai"
    with EmbeddingService(model_name="openai:m", settings=Settings(openai_base_url=f"{api.url}/")) as service:
        assert service.dimension == DIMENSION


def test_an_argument_names_the_api_before_the_settings(api, monkeypatch):
    monkeypatch.setenv("AKIDB_OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with EmbeddingService("openai:m", base_url=api.url) as service:
        assert service.embed(["a"]) == [vector("a").tolist()]
    monkeypatch.delenv("AKIDB_OPENAI_BASE_URL")
    monkeypatch.setenv("OPENAI_BASE_URL", api.url)
    with EmbeddingService("openai:m") as service:
        assert service.embed(["a"]) == [vector("a").tolist()]


@pytest.mark.parametrize("arguments", [{"backend": "mlx"}, {"onnx_file": "model.onnx"}])
def test_arguments_of_a_model_that_this_process_computes_are_refused(api, arguments):
    with pytest.raises(ConfigurationError, match="another server computes openai:m"):
        EmbeddingService("openai:m", **arguments)
    assert not api.requests


def test_unknown_arguments_and_addresses_of_other_models_are_refused(api):
    with pytest.raises(TypeError, match="no argument 'batch_size'"):
        EmbeddingService("openai:m", batch_size=2)
    with pytest.raises(InvalidInputError, match="base_url goes with a model 'openai:NAME', found 'minilm"):
        EmbeddingService("minilm-l6-v2", base_url=api.url)
    with pytest.raises(InvalidInputError, match="must name a model"):
        EmbeddingService("openai:")


def test_pools_adapters_and_akidbs_protocol_take_such_names(tmp_path):
    with ModelPool(max_bytes=0) as pool, pool.use("openai:m") as embedder:
        assert np.array_equal(embedder.embed_array(["a"]), [vector("a")])
        assert pool.loaded()["openai:m"]["weight_bytes"] == 0
    role = RoleEmbedder("openai:m")
    assert np.array_equal(role.embed(["a"], None), [vector("a")])
    role.embedder.close()
    with LoadedModels() as loaded:
        model, is_new = loaded.load("openai:m", str(tmp_path))
        assert is_new
        assert np.array_equal(model.submit(["a"], normalize=True).result(30).vectors, [vector("a")])


# The server


@pytest.fixture
def client():
    with running_server(load_model, models=["openai:m"]) as client:
        yield client


# The requests of each protocol, and its answer's vectors and its error.
DIALECTS = {
    "openai": ("/v1/embeddings", {"model": "openai:m", "input": ["a"]}, lambda body: [body["data"][0]["embedding"]]),
    "ollama": ("/api/embed", {"model": "openai:m", "input": ["a"]}, lambda body: body["embeddings"]),
    "tei": ("/embed", {"inputs": ["a"], "truncate": True}, lambda body: body),
}
ERRORS = {
    "openai": lambda text: {
        "error": {"message": text, "type": "server_error", "param": None, "code": "remote_service_failed"}
    },
    "ollama": lambda text: {"error": text},
    "tei": lambda text: {"error": text, "error_type": "Backend"},
}


def test_a_server_serves_the_model_of_another_in_every_protocol(api, client, monkeypatch):
    monkeypatch.setattr(models, "_FRESH_S", 0)
    for path, body, vectors in DIALECTS.values():
        answered = client.post(path, json=body)
        assert answered.status_code == 200, answered.text
        assert np.array_equal(np.float32(vectors(answered.json())), [vector("a")])
    api.respond = lambda _request: refusal(500, "it broke")
    for dialect, (path, body, _) in DIALECTS.items():
        answered = client.post(path, json=body)
        assert answered.status_code == 502
        text = f"{api.url} failed (500: it broke); look at the API's own log or retry"
        assert answered.json() == ERRORS[dialect](text)
    assert client.get("/health/ready").status_code == 503
    api.respond = lambda _request: refusal(429, "slow down", retry_after="600")
    answered = client.post("/v1/embeddings", json={"model": "openai:m", "input": ["a"]})
    assert (answered.status_code, answered.headers["retry-after"]) == (429, "600")
    api.respond = answer
    assert client.get("/health/ready").status_code == 200


def test_a_server_describes_the_model_of_another(client):
    assert client.post("/v1/embeddings", json={"model": "openai:m", "input": ["a"]}).status_code == 200
    assert client.get("/info").json()["model_type"] == {"embedding": {"pooling": "unknown"}}
    for path in ("/v1/models", "/api/tags", "/api/ps", "/metrics", "/"):
        assert client.get(path).status_code == 200
    assert client.post("/api/show", json={"model": "openai:m"}).status_code == 200
    answered = client.post("/tokenize", json={"inputs": ["a"]})
    assert answered.status_code == 404
    assert "tokens are not known" in answered.json()["error"]


# The size of answers


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_without_end_is_not_read(api, status, monkeypatch):
    monkeypatch.setattr(embeddings, "_MOST_VALUES", 1000)
    endless = json.dumps({"error": "x" * 10_000_000})
    with EmbeddingService("openai:m") as service:
        api.requests.clear()
        api.respond = lambda _request: Reply(endless, status)
        bound = 65536 + 1024 + 32 * DIMENSION
        with pytest.raises(InferenceError, match=f"has more than {bound} bytes"):
            service.embed(["a"])
        assert len(api.requests) == 1  # another attempt would end likewise
    with pytest.raises(InferenceError, match="has more than 98560 bytes"):
        EmbeddingService("openai:m")


def test_a_compressed_answer_is_not_unpacked(api):
    with EmbeddingService("openai:m") as service:
        assert api.requests[-1].headers["accept-encoding"] == "identity"
        packed = gzip.compress(b" " * 1_000_000)
        api.respond = lambda _request: Reply(packed, headers={"content-encoding": "gzip"})
        with pytest.raises(InferenceError, match="'gzip'"):
            service.embed(["a"])


def test_a_right_answer_of_many_large_numbers_is_read(api):
    def wordy(request):
        data = [{"index": i, "embedding": [float(x) for x in vector(text)]} for i, text in enumerate(request.texts)]
        return answer(request, data=data)

    with EmbeddingService("openai:m") as service:
        api.respond = wordy
        assert service.embed_array([str(number) for number in range(1500)]).shape == (1500, DIMENSION)


def test_local_names_stay_local():
    with EmbeddingService(GOLDENS / "tiny-bert", device="cpu") as service:
        assert type(service) is EmbeddingService
