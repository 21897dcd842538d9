"""Quantised models on the Hub: what is uploaded, its model card, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from akidb_mlx import EmbeddingService, Reranker
from akidb_mlx.cli.commands import create_app
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.fidelity.answers import write_answers
from akidb_mlx.fidelity.card import read_card, write_card
from akidb_mlx.fidelity.making import make_answers
from akidb_mlx.fidelity.measuring import make_card, measure
from akidb_mlx.fidelity.texts import default_texts
from akidb_mlx.quantization import quantize_model
from akidb_mlx.quantization.publication import push_model
from model_cache.errors import UploadError
from tests.hub import Fault
from tests.support import GOLDENS, TEXTS, edit_json

# The Hub's client uploads large files in a way that its own HTTP library advises against.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

README = """---
license: apache-2.0
language: en
base_model: someone/else
tags: [sentence-transformers]
---
# The original
"""


@pytest.fixture(scope="module")
def conversion(tmp_path_factory):
    """A quantised model with its card, as `akidb-mlx quantize` leaves it, and the original's own model card."""
    folder = tmp_path_factory.mktemp("push") / "tiny-bert-8bit"
    quantize_model(GOLDENS / "tiny-bert", folder, bits=8, card=False)
    texts = default_texts()
    few = type(texts)("sample", "Apache-2.0", texts.texts[:12], texts.languages[:12])
    with (
        EmbeddingService(GOLDENS / "tiny-bert", device="cpu") as original,
        EmbeddingService(folder, device="cpu") as one,
    ):
        card = make_card(measure(one, few), measure(original, few), few)
    write_card(card.model_copy(update={"model": "tiny-bert-8bit", "original": "org/tiny-bert"}), folder)
    (folder / "README.md").write_text(README)
    edit_json(folder / "akidb_quantization.json", base_model="org/tiny-bert")
    (folder / ".cache").write_text("not for others")
    return folder


@pytest.fixture
def model(conversion, tmp_path):
    return shutil.copytree(conversion, tmp_path / conversion.name)


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_for_tests")


@pytest.mark.usefixtures("token")
def test_a_model_is_pushed_in_one_commit_and_pulled_again(hub, model):
    arguments = ["push", str(model), "org/pushed-8bit", "--private", "--json"]
    done = CliRunner().invoke(create_app(), arguments)
    assert done.exit_code == 0, done.output
    pushed = json.loads(done.stdout)
    assert pushed["name"] == "org/pushed-8bit"
    assert pushed["commit"].startswith(f"{hub.url}/org/pushed-8bit/commit/")
    assert hub.count("*/commit/main", "POST") == 1
    assert hub.count("/upload/*", "PUT") == 1  # the weights, which go to LFS
    done = CliRunner().invoke(create_app(), ["pull", "org/pushed-8bit"])
    assert done.exit_code == 0, done.output
    with EmbeddingService("org/pushed-8bit", device="cpu") as pulled, EmbeddingService(model, device="cpu") as one:
        assert pulled.get_model_info()["quantization"] == "8-bit affine, group 64"
        assert np.array_equal(pulled.embed_array(TEXTS[:3]), one.embed_array(TEXTS[:3]))


@pytest.mark.usefixtures("token")
def test_the_model_card(hub, model):
    from httpx2 import get
    from huggingface_hub import metadata_load

    push_model(model, "org/pushed-card")
    content = get(f"{hub.url}/org/pushed-card/resolve/main/README.md", follow_redirects=True).text
    (model / "pushed.md").write_text(content)
    assert metadata_load(model / "pushed.md") == {
        "license": "apache-2.0",
        "language": "en",
        "base_model": "org/tiny-bert",
        "base_model_relation": "quantized",
        "library_name": "mlx",
        "pipeline_tag": "feature-extraction",
        "tags": ["mlx", "akidb-mlx", "quantized"],
    }
    card = read_card(model)
    assert f"| weights | {card.weight_bytes / 1e6:.1f} MB |" in content
    assert f"{card.whole.cosine.mean:.4f}" in content
    assert "akidb-mlx embed -m org/pushed-card" in content
    assert "# The original" not in content
    assert (model / "README.md").read_text() == README  # the folder stays as it is
    names = {one.path.rpartition("/main/")[2] for one in hub.requests if one.method == "POST"}
    assert ".cache" not in names


@pytest.mark.usefixtures("token")
def test_a_reranker_is_pushed_with_its_card(hub, tmp_path):
    from httpx2 import get
    from huggingface_hub import metadata_load

    folder = tmp_path / "reranker"
    quantize_model(GOLDENS / "reranker-bert", folder, bits=8, group_size=32)
    push_model(folder, "org/pushed-reranker", base_model="org/reranker", licence="mit")
    content = get(f"{hub.url}/org/pushed-reranker/resolve/main/README.md", follow_redirects=True).text
    (tmp_path / "pushed.md").write_text(content)
    assert metadata_load(tmp_path / "pushed.md")["pipeline_tag"] == "text-ranking"
    assert "akidb-mlx rerank -m org/pushed-reranker" in content
    assert f"| best document is the original's | {read_card(folder).scores.same_best:.4f} |" in content
    with Reranker("org/pushed-reranker", device="cpu") as one:
        assert one.get_model_info()["fidelity"]["model"] == "reranker"


@pytest.mark.usefixtures("token", "hub")
def test_what_the_caller_states_goes_before_the_files(hub, model):
    from httpx2 import get

    push_model(model, "org/pushed-stated", base_model="other/base", licence="mit")
    content = get(f"{hub.url}/org/pushed-stated/resolve/main/README.md", follow_redirects=True).text
    assert "base_model: other/base" in content and "license: mit" in content and "apache" not in content


@pytest.mark.usefixtures("token")
def test_folders_of_this_machine_are_not_named_on_the_hub(hub, model):
    """Whoever evaluates a conversion against a folder has its path in the card and in the answers."""
    from httpx2 import get

    original = GOLDENS / "tiny-bert"
    write_card(read_card(model).model_copy(update={"model": str(model), "original": str(original)}), model)
    with EmbeddingService(original, device="cpu") as service:
        write_answers(make_answers(service), model)
    push_model(model, "org/pushed-paths")
    for name, key in (("akidb_fidelity.json", "original"), ("akidb_answers.json", "model")):
        content = get(f"{hub.url}/org/pushed-paths/resolve/main/{name}", follow_redirects=True).json()
        assert content[key] == "org/tiny-bert"
        assert str(original.parent) not in json.dumps(content) and str(model.parent) not in json.dumps(content)
        assert json.loads((model / name).read_text())[key] == str(original)  # the folder stays as it is
    card = get(f"{hub.url}/org/pushed-paths/resolve/main/akidb_fidelity.json", follow_redirects=True).json()
    assert card["model"] == "org/pushed-paths"


def _without_card(folder):
    (folder / "akidb_fidelity.json").unlink()


def _other_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b" ")


def _without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def _without_origin(folder):
    (folder / "akidb_quantization.json").unlink()


def _without_licence(folder):
    (folder / "README.md").unlink()


def _malformed_metadata(folder):
    (folder / "README.md").write_text("---\nlicense: [\n---\n")


def _malformed_origin(folder):
    (folder / "akidb_quantization.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "error", "problem"),
    [
        (_without_card, InvalidInputError, "has no fidelity card.*akidb-mlx evaluate .* --against ORIGINAL"),
        (_other_weights, InvalidInputError, "was made of weights of"),
        (_without_tokenizer, ModelLoadError, r"is incomplete: tokenizer\.json is missing or damaged"),
        (_without_origin, InvalidInputError, "name it with --base-model org/name"),
        (_without_licence, InvalidInputError, "state the original's with --licence"),
        (_malformed_metadata, ModelLoadError, r"README\.md: its metadata cannot be read"),
        (_malformed_origin, ModelLoadError, r"akidb_quantization\.json is not usable"),
    ],
)
@pytest.mark.usefixtures("token")
def test_what_is_refused_before_anything_is_sent(hub, model, spoil, error, problem):
    spoil(model)
    with pytest.raises(error, match=problem):
        push_model(model, "org/pushed-not")
    assert hub.requests == []


def test_pushing_without_rights_or_to_a_hub_that_fails(hub, model, monkeypatch):
    with pytest.raises(UploadError, match="set HF_TOKEN to a token that may write"):
        push_model(model, "org/pushed-refused")
    monkeypatch.setenv("HF_TOKEN", "hf_for_tests")
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1  # else the Hub has them already, from another test
    (model / "model.safetensors").write_bytes(weights)
    hub.fail(Fault("/upload/*", method="PUT", times=None, status=403))
    with pytest.raises(UploadError, match=r"\d+ files could not be pushed to org/pushed-refused"):
        push_model(model, "org/pushed-refused")
