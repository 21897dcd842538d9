"""Embedding over this package's own server, in the library and on the command line."""

import json

import numpy as np
import pytest

from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelNotFoundError
from akidb_mlx.remote import Limits, OpenAIEmbedder
from akidb_mlx.service import EmbeddingService
from tests.servers import running_server
from tests.support import GOLDENS, TEXTS
from tests.test_cli import run

pytest.importorskip("openai")


@pytest.fixture(scope="module", autouse=True)
def _environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENAI_API_KEY", raising=False)
        patch.delenv("OPENAI_BASE_URL", raising=False)
        yield


@pytest.fixture(scope="module")
def url():
    with running_server(models=["tiny-bert", "tiny-qwen3"], max_items=8) as client:
        yield f"{client.base_url}/v1"


@pytest.fixture(scope="module")
def services(url):
    with (
        EmbeddingService(GOLDENS / "tiny-qwen3", device="cpu") as local,
        OpenAIEmbedder("openai:tiny-qwen3", base_url=url) as remote,
    ):
        yield local, remote


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input_type": "query"},
        {"prompt": "Q: "},
        {"dimensions": 32},
        {"on_overflow": "chunk"},
        {"output_dtype": "ubinary"},
    ],
    ids=repr,
)
def test_everything_is_that_of_the_service_to_the_bit(services, options):
    local, remote = services
    texts = [*TEXTS[:3], "", "word " * 700]
    expected, found = local.embed_detailed(texts, **options), remote.embed_detailed(texts, **options)
    assert np.array_equal(found.vectors, expected.vectors)
    assert found.vectors.dtype == expected.vectors.dtype
    assert found.token_counts == expected.token_counts
    assert found.truncated == expected.truncated
    assert found.dimension == expected.dimension
    assert sum(expected.truncated) == (0 if "on_overflow" in options else 1)


def test_options_are_refused_as_by_the_service(services):
    _, remote = services
    with pytest.raises(InvalidInputError, match="poem") as caught:
        remote.embed(["a", "b"], input_type="poem")
    assert caught.value.index is None
    with pytest.raises(InvalidInputError, match=r"text 2: .*tokens") as caught:
        remote.embed(["a", "b", "word " * 700], on_overflow="error")
    assert caught.value.index == 2


def test_the_servers_own_limits_are_found(url, services):
    local, remote = services
    texts = [f"text {number}" for number in range(20)]
    assert np.allclose(remote.embed_array(texts), local.embed_array(texts), atol=1e-6)
    with OpenAIEmbedder("tiny-qwen3", base_url=url, limits=Limits(max_texts=8)) as limited:
        assert np.allclose(limited.embed_array(texts), local.embed_array(texts), atol=1e-6)
        assert limited.get_metrics()["batches"] == 1 + 3


def test_dimensions_that_the_model_was_not_trained_for_are_refused(url):
    with pytest.raises(InvalidInputError, match="was not trained"):
        OpenAIEmbedder("tiny-bert", base_url=url, dimensions=3)
    with pytest.raises(ModelNotFoundError, match="'none'"):
        OpenAIEmbedder("none", base_url=url)


def test_a_key_is_asked_for(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("the-key-of-this-server\n")
    with running_server(api_key_file=keys) as client:
        address = f"{client.base_url}/v1"
        with OpenAIEmbedder("tiny-bert", base_url=address, api_key="the-key-of-this-server") as embedder:
            assert len(embedder.embed(["a"])) == 1
        for key in (None, "another-key"):
            with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
                OpenAIEmbedder("tiny-bert", base_url=address, api_key=key)


def test_the_command_line(url, services):
    local, _ = services
    done = run("embed", "-m", "openai:tiny-qwen3", "--base-url", url, "-t", "query", "--json", "a", "b")
    result = json.loads(done.stdout)
    assert np.array_equal(np.float32(result["embeddings"]), local.embed_array(["a", "b"], input_type="query"))
    assert result["model"] == "openai:tiny-qwen3"


def test_the_command_line_refuses_an_address_for_a_local_model(url):
    done = run("embed", "-m", "tiny-qwen3", "--base-url", url, "a")
    assert done.returncode == 1
    assert done.stderr.startswith("akidb-mlx: base_url goes with a model 'openai:NAME'")
