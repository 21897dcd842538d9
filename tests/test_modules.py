"""The modules after the encoder: which are read, which are refused, and the routes of a Router."""

import json

import numpy as np
import pytest

from akidb_mlx import EmbeddingService
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.modules import read_modules
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.runtime.locks import device_lock
from model_cache.files import list_names, select_needed
from tests.support import GOLDENS, TEXTS, copy_model, edit_json, edit_tensors, golden

ROUTER = "2_Router/router_config.json"
ROUTED = "2_Router/query_1_Dense/model.safetensors"


def load(directory) -> EmbeddingService:
    return EmbeddingService(str(directory), device="cpu")


def refusal(directory) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(directory)
    return str(caught.value)


def edit_parameters(directory, **changes):
    content = json.loads((directory / ROUTER).read_text())
    content["parameters"] |= changes
    (directory / ROUTER).write_text(json.dumps(content))


def edit_modules(directory, change):
    modules = json.loads((directory / "modules.json").read_text())
    change(modules)
    (directory / "modules.json").write_text(json.dumps(modules))


# Modules


@pytest.mark.parametrize("kind", ["WordWeights", "BoW", "CNN", "LSTM", "WeightedLayerPooling", "StaticEmbedding"])
def test_other_modules_are_refused_by_name(tmp_path, kind):
    directory = copy_model("tiny-bert-modules", tmp_path)
    edit_modules(directory, lambda modules: modules[2].update(type=f"sentence_transformers.models.{kind}"))
    assert f"lists Transformer, Pooling, {kind}, Dense" in refusal(directory)


def test_what_follows_the_encoder_must_follow_the_pooling(tmp_path):
    directory = copy_model("tiny-bert-modules", tmp_path)
    edit_modules(directory, lambda modules: modules.insert(1, modules.pop(4)))
    assert "lists Transformer, Dropout, Pooling" in refusal(directory)


def test_dropout_and_the_last_normalize_change_nothing(tmp_path):
    directory = copy_model("tiny-bert-modules", tmp_path)
    edit_modules(directory, lambda modules: [modules.pop(7), modules.pop(4)])
    with load(directory) as one:
        assert np.abs(one.embed_array(TEXTS) - golden("tiny-bert-modules")["none"]).max() <= 2e-5
    with load(GOLDENS / "tiny-bert-modules") as one:  # the last Normalize is the choice of a call
        raw = one.embed_array(TEXTS[:3], normalize=False)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 1e-2


def test_a_normalize_before_other_modules_counts(tmp_path):
    directory = copy_model("tiny-bert-modules", tmp_path)
    edit_modules(directory, lambda modules: modules.pop(5))
    with load(directory) as one:
        assert np.abs(one.embed_array(TEXTS) - golden("tiny-bert-modules")["none"]).max() > 1e-2


@pytest.mark.parametrize(
    ("folder", "change", "problem"),
    [
        ("2_LayerNorm", lambda tensors: {"norm.weight": tensors["norm.weight"]}, "norm.0.bias is missing"),
        ("2_LayerNorm", lambda tensors: tensors | {"extra": tensors["norm.bias"]}, "norm.0.extra is not part"),
        (
            "3_Dense",
            lambda tensors: {k: v for k, v in tensors.items() if "residual" not in k},
            "residual.weight is mis",
        ),
        (
            "3_Dense",  # it would take the place of the encoder's
            lambda tensors: tensors | {"embeddings.LayerNorm.bias": np.ones(32, np.float32)},
            "dense.0.embeddings.LayerNorm.bias is not part of the model",
        ),
    ],
)
def test_the_tensors_of_a_module(tmp_path, folder, change, problem):
    directory = copy_model("tiny-bert-modules", tmp_path)
    edit_tensors(directory / folder / "model.safetensors", change)
    assert problem in refusal(directory)


# Pooling without the prompt


def test_equal_tokens_with_another_prompt_are_another_text():
    """They wait together, and would be computed once."""
    expected = golden("tiny-bert-modules")
    with load(GOLDENS / "tiny-bert-modules") as one:
        for text in TEXTS[:3]:
            with device_lock:
                joined = one.submit(["query: the ledger of " + text])
                prompted = one.submit([text], input_type="query")
            whole, rest = joined.result(60).vectors[0], prompted.result(60).vectors[0]
            assert np.abs(rest - expected["query"][TEXTS.index(text)]).max() <= 2e-5
            assert np.abs(whole - rest).max() > 1e-2


def test_windows_are_pooled_without_the_prompt_too():
    long = "the ledger of ships " * 100
    with load(GOLDENS / "tiny-bert-modules") as one:
        tokens = one._tokenizers[""]([long], "query: the ledger of ", "chunk")[0]
        assert len(tokens.windows) > 2
        count = one._tokenizers[""].prompt_length("query: the ledger of ")
        starts = {tuple(window[:count].tolist()) for window in tokens.windows}
        assert len(starts) == 1  # each begins with the prompt, and none of it is pooled
        whole = one.embed_array([long], input_type="query", on_overflow="chunk", normalize=False)[0]
        assert np.isfinite(whole).all()


def test_a_text_that_leaves_nothing_to_pool():
    """The word that prompt and text make together is too long, and becomes one token."""
    with load(GOLDENS / "tiny-bert-modules") as one, pytest.raises(InvalidInputError, match="text 1 has no token left"):
        one.embed(["a", "x" * 99], prompt="harbour ship sx")
    with load(GOLDENS / "tiny-bert-modules") as one:
        assert len(one.embed(["x" * 99])) == 1


def test_prompts_are_counted_by_the_token_that_ends_a_text(tmp_path):
    directory = copy_model("tiny-qwen3", tmp_path)
    edit_json(directory / "1_Pooling/config.json", include_prompt=False)
    load(directory).close()
    edit_json(directory / "tokenizer.json", post_processor=None)
    assert "include_prompt = False is not supported with a tokenizer that ends no text" in refusal(directory)


# Routes


def test_a_model_without_a_router_has_one_route():
    assert read_checkpoint(GOLDENS / "tiny-bert").routes == {"query": "", "document": "", None: ""}


@pytest.mark.parametrize(
    ("parameters", "routes"),
    [
        ({}, {"query": "query", "document": "document", None: "document"}),
        ({"default_route": None}, {"query": "query", "document": "document", None: "query"}),
        ({"default_route": None, "allow_empty_key": False}, {"query": "query", "document": "document"}),
        ({"route_mappings": {"('query', None)": "document"}}, dict.fromkeys(["query", "document", None], "document")),
        ({"route_mappings": {"(None, 'text')": "query"}}, dict.fromkeys(["query", "document", None], "query")),
        (
            {
                "route_mappings": {
                    "(None, None)": "query",
                    "('document', 'text')": "document",
                    "('query', 'image')": "x",
                }
            },
            {"query": "query", "document": "document", None: "query"},
        ),
    ],
)
def test_a_route_is_chosen_as_in_the_reference(tmp_path, parameters, routes):
    directory = copy_model("tiny-bert-routes", tmp_path)
    edit_parameters(directory, **parameters)
    assert read_modules(directory).routes == routes


def test_texts_of_several_routes_wait_together():
    """Equal texts of two routes are not computed once."""
    expected = golden("tiny-bert-routes")
    with load(GOLDENS / "tiny-bert-routes") as one:
        with device_lock:
            calls = {role: one.submit(TEXTS[:9], input_type=role) for role in ("document", "query")}
            calls["none"] = one.submit(TEXTS[:9], prompt="")
        for role, call in calls.items():
            assert np.abs(call.result(60).vectors - expected[role][:9]).max() <= 2e-5, role


def test_a_text_without_a_route(tmp_path):
    directory = copy_model("tiny-bert-routes", tmp_path)
    edit_parameters(directory, default_route=None, allow_empty_key=False)
    with load(directory) as one:
        assert len(one.embed(["a"], input_type="query")) == 1
        with pytest.raises(
            InvalidInputError, match="no route for texts with no role: give input_type one of 'query', "
        ):
            one.embed(["a"])
        with pytest.raises(InvalidInputError, match="no route for texts with no role"):
            one.embed(["a"], prompt="some words: ")


def test_a_role_without_a_route(tmp_path):
    directory = copy_model("tiny-bert-routes", tmp_path)
    content = json.loads((directory / ROUTER).read_text())
    content["structure"]["passage"] = content["structure"].pop("document")
    content["parameters"]["default_route"] = "passage"
    (directory / ROUTER).write_text(json.dumps(content))
    with load(directory) as one:
        assert len(one.embed(["a"])) == 1
        with pytest.raises(InvalidInputError, match="no route for texts with the role 'document'"):
            one.embed(["a"], input_type="document")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content.pop("types"), "must hold `types`"),
        (lambda content: content["structure"]["query"].append("absent"), "must hold `types`"),
        (lambda content: content["structure"]["query"].append([]), "must hold `types`"),
        (lambda content: content.update(structure={}), "must hold `types`"),
        (
            lambda content: content["types"].update({"query_0_Dense": "my.Dense"}),
            "lists Transformer, Pooling, my.Dense",
        ),
        (
            lambda content: content["parameters"].update(default_route="other"),
            "the route 'other' is none of its routes",
        ),
        (lambda content: content["parameters"].update(route_mappings={"query": "query"}), "must map pairs"),
        (lambda content: content["parameters"].update(route_mappings={"('query',)": "query"}), "must map pairs"),
        (lambda content: content["parameters"].update(route_mappings={"(None, None)": 3}), "must map pairs"),
        (lambda content: content["parameters"].update(temperature=2), "parameters.temperature = 2 is a key that"),
        (lambda content: content.update(temperature=2), "temperature = 2 is a key that"),
    ],
)
def test_a_router_that_is_refused(tmp_path, change, problem):
    directory = copy_model("tiny-bert-routes", tmp_path)
    content = json.loads((directory / ROUTER).read_text())
    change(content)
    (directory / ROUTER).write_text(json.dumps(content))
    assert problem in refusal(directory)


def test_a_module_of_a_router_that_is_outside(tmp_path):
    directory = copy_model("tiny-bert-routes", tmp_path)
    path = directory / ROUTER
    path.write_text(path.read_text().replace("query_0_Dense", "../query_0_Dense"))
    assert "'../query_0_Dense' is not a folder inside the model directory" in refusal(directory)


def test_routes_of_several_sizes(tmp_path):
    directory = copy_model("tiny-bert-routes", tmp_path)
    content = json.loads((directory / ROUTER).read_text())
    content["structure"]["query"].pop()
    (directory / ROUTER).write_text(json.dumps(content))
    assert "the vectors of its routes have different sizes (query: 32, document: 24)" in refusal(directory)


def test_a_route_that_no_text_takes_is_not_read(tmp_path):
    directory = copy_model("tiny-bert-routes", tmp_path)
    content = json.loads((directory / ROUTER).read_text())
    content["types"]["image_0_CLIPModel"] = "sentence_transformers.models.CLIPModel"
    content["structure"]["image"] = ["image_0_CLIPModel"]
    (directory / ROUTER).write_text(json.dumps(content))
    with load(directory) as one:
        assert np.abs(one.embed_array(TEXTS[:3]) - golden("tiny-bert-routes")["none"][:3]).max() <= 2e-5


def test_the_first_versions_kept_a_router_in_config_json(tmp_path):
    directory = copy_model("tiny-bert-routes", tmp_path)
    (directory / ROUTER).rename(directory / "2_Router/config.json")
    edit_modules(directory, lambda modules: modules[2].update(type="sentence_transformers.models.Asym"))
    with load(directory) as one:
        vectors = one.embed_array(TEXTS[:3], input_type="query")
    assert np.abs(vectors - golden("tiny-bert-routes")["query"][:3]).max() <= 2e-5


def test_the_files_of_modules_and_routes_are_fetched():
    for name in ("tiny-bert-modules", "tiny-bert-routes", "towers-bert-qwen3"):
        names = list_names(GOLDENS / name)
        assert select_needed(names) == sorted(names)
    other = [
        "2_Router/query_0_Dense/pytorch_model.bin",
        "2_Router/query_0_Dense/modeling.py",
        "2_Router/query_0_Dense/more/model.safetensors",
        "2_Router/model.safetensors.bin",
        "other/query_0_Dense/model.safetensors",
    ]
    assert select_needed(other) == []
