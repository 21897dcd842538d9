"""The server as OpenAI's clients see it."""

import base64

import numpy as np
import pytest

from akidb_mlx.service import EmbeddingService
from tests.servers import running_server
from tests.support import GOLDENS, TEXTS

MODEL = "tiny-bert"
PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def client():
    with running_server(models=[MODEL, "tiny-qwen3"], max_items=8, max_tokens=4000, max_body_bytes=100_000) as client:
        yield client


@pytest.fixture(scope="module")
def service():
    with EmbeddingService(GOLDENS / MODEL, device="cpu") as service:
        yield service


def ask(client, **fields):
    return client.post(PATH, json={"model": MODEL, **fields})


def refusal(answer, status=400):
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_vectors_are_those_of_embed_to_the_bit(client, service):
    texts = TEXTS[:3]
    answer = ask(client, input=texts, user="somebody").json()
    assert answer["object"] == "list"
    assert answer["model"] == MODEL
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
    assert {entry["object"] for entry in answer["data"]} == {"embedding"}
    expected = service.embed_detailed(texts)
    assert np.array_equal(np.float32([entry["embedding"] for entry in answer["data"]]), expected.vectors)
    assert [entry["akidb"]["tokens"] for entry in answer["data"]] == expected.token_counts
    assert answer["usage"] == {"prompt_tokens": sum(expected.token_counts), "total_tokens": sum(expected.token_counts)}


def test_base64_holds_the_same_floats(client, service):
    (entry,) = ask(client, input="a text", encoding_format="base64").json()["data"]
    assert np.array_equal(
        np.frombuffer(base64.b64decode(entry["embedding"]), "<f4"), service.embed_array(["a text"])[0]
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"output_dtype": "ubinary"}, {"output_dtype": "ubinary"}),
        ({"output_dtype": "binary"}, {"output_dtype": "binary"}),
        ({"output_dtype": "float"}, {}),
        ({"prompt": "query: "}, {"prompt": "query: "}),
        ({"dimensions": None, "encoding_format": None}, {}),
    ],
)
def test_options_are_those_of_embed(client, service, options, expected):
    (entry,) = ask(client, input=["a text"], **options).json()["data"]
    vector = service.embed_array(["a text"], **expected)[0]
    assert np.array_equal(np.array(entry["embedding"], vector.dtype), vector)


def test_int8_takes_the_ranges_of_the_caller(client, service):
    ranges = [[-0.5] * service.dimension, [0.5] * service.dimension]
    (entry,) = ask(client, input=["a text"], output_dtype="int8", ranges=ranges).json()["data"]
    assert entry["embedding"] == service.embed_array(["a text"], output_dtype="int8", ranges=ranges)[0].tolist()
    assert "ranges" in refusal(ask(client, input=["a text"], output_dtype="int8"))["message"]


def test_a_text_that_was_cut_is_said_to_be(client):
    data = ask(client, input=["word " * 700, "short"]).json()["data"]
    assert [entry["akidb"]["truncated"] for entry in data] == [True, False]
    refused = refusal(ask(client, input=["short", "word " * 700], on_overflow="error"))
    assert "text 1 has" in refused["message"]


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]]])
def test_token_ids_are_refused_with_the_way_out(client, ids):
    error = refusal(ask(client, input=ids))
    assert "check_embedding_ctx_length=False" in error["message"]
    assert error["param"] == "input"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "input", "input is missing"),
        ({"input": []}, "input", "at least one text"),
        ({"input": ["a", None]}, "input", r"input[1] must be a string, found null"),
        ({"input": ["a", "b", True]}, "input", r"input[2] must be a string, found a truth value"),
        ({"input": {"a": 1}}, "input", "found an object"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "base64"),
        ({"input": "a", "dimensions": "3"}, "dimensions", "integer"),
        ({"input": "a", "dimensions": 3}, None, "was not trained"),
        ({"input": "a", "input_type": "poem"}, None, "poem"),
        ({"input": "a", "temperature": 1}, "temperature", "'temperature' is not a field that this server knows"),
        ({"input": ["a"] * 9}, "input", "input[8] is one too many"),
        ({"input": ["a", "b" * 20_000]}, "input", "input[1] brings the request to about 5"),
    ],
)
def test_a_bad_request_is_400_and_names_what_is_wrong(client, fields, param, words):
    error = refusal(ask(client, **fields))
    assert error["param"] == param
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b'{"model": NaN}', b'{"input": "\xff"}', b'{"input": "\\ud800"}', b"[" * 50_000],
    ids=repr,
)
def test_what_is_no_json_object_is_400(client, body):
    assert refusal(client.post(PATH, content=body))["code"] == "invalid_json"


def test_a_large_body_is_413_also_without_a_declared_length(client):
    assert refusal(client.post(PATH, content=b" " * 100_001), 413)["code"] == "body_too_large"
    assert refusal(client.post(PATH, content=iter([b" " * 60_000] * 2)), 413)["code"] == "body_too_large"


def test_a_compressed_body_is_refused(client):
    assert (
        refusal(client.post(PATH, content=b"x", headers={"content-encoding": "gzip"}))["code"] == "unsupported_encoding"
    )


def test_only_the_models_named_at_the_start_are_served(client):
    error = refusal(client.post(PATH, json={"model": "org/other", "input": "a"}), 404)
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert names == [MODEL, "tiny-qwen3"]


def test_several_models(client):
    answer = client.post(PATH, json={"model": "tiny-qwen3", "input": "a"}).json()
    with EmbeddingService(GOLDENS / "tiny-qwen3", device="cpu") as service:
        assert np.array_equal(np.float32(answer["data"][0]["embedding"]), service.embed_array(["a"])[0])


def test_unknown_paths_and_methods(client):
    assert refusal(client.get("/nothing"), 404)["code"] == "unknown_path"
    answer = client.get(PATH)
    assert refusal(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "POST"
    assert refusal(client.put(PATH), 405)["message"] == "this path takes POST, found PUT"
    assert client.put("/").headers["allow"] == "GET, POST"


def test_a_slash_at_the_end_of_a_path_changes_nothing(client):
    assert client.get("/v1/models/").json() == client.get("/v1/models").json()
    assert client.post(f"{PATH}/", json={"model": MODEL, "input": "a"}).status_code == 200


def test_head_is_answered_as_get_without_a_body(client):
    answer = client.head("/v1/models")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(client.get("/v1/models").content)
