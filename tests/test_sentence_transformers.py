"""The class that takes the place of sentence-transformers' own, against what that returned (make_encode.py)."""

import inspect

import numpy as np
import pytest

from akidb_mlx.errors import InvalidInputError, ModelNotFoundError
from akidb_mlx.integrations import sentence_transformers
from akidb_mlx.integrations.sentence_transformers import SentenceTransformer
from tests.goldens.make_encode import BERT, CASES, GEMMA, ROUTES, SIMILARITIES, TEXTS
from tests.support import GOLDENS, copy_model, edit_json, golden


@pytest.fixture(scope="module")
def expected():
    return golden("encode")


@pytest.fixture(scope="module")
def bert():
    return SentenceTransformer(str(GOLDENS / BERT), device="cpu")


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_vectors_are_those_of_sentence_transformers(expected, number):
    name, arguments, method, options = CASES[number]
    found = getattr(SentenceTransformer(str(GOLDENS / name), device="cpu", **arguments), method)(TEXTS, **options)
    wanted = expected[str(number)]
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    if wanted.dtype == np.float32:
        assert np.abs(found - wanted).max() <= 2e-5
    else:  # a value at the border of two steps may fall on either side
        assert np.mean(found != wanted) <= 0.02


def test_the_similarities_are_those_of_sentence_transformers(expected, bert):
    for name in SIMILARITIES:
        bert.similarity_fn_name = name
        for method, key in (("similarity", name), ("similarity_pairwise", f"{name} pairwise")):
            found = getattr(bert, method)(expected["first"], expected["second"])
            assert found.shape == expected[key].shape
            assert np.abs(found - expected[key]).max() <= 1e-5
    bert.similarity_fn_name = "cosine"
    assert bert.similarity(expected["first"][0], expected["second"]).shape == (1, 3)


def test_one_string_gives_one_vector_and_nothing_gives_nothing(bert):
    whole = bert.encode(TEXTS)
    one = bert.encode(TEXTS[0])
    assert one.shape == whole.shape[1:]
    assert np.abs(one - whole[0]).max() <= 1e-6
    for several in (tuple(TEXTS), np.array(TEXTS), iter(TEXTS)):
        assert np.array_equal(bert.encode(several), whole)
    assert np.array_equal(bert.encode(sentences=TEXTS), whole)
    assert bert.encode([]).shape[0] == 0


def test_arguments_that_change_nothing_are_accepted(bert):
    found = bert.encode(TEXTS, batch_size=2, show_progress_bar=True, convert_to_numpy=True, pool=None, chunk_size=None)
    assert np.array_equal(found, bert.encode(TEXTS))
    SentenceTransformer(
        str(GOLDENS / BERT),
        device="cpu",
        trust_remote_code=True,
        model_kwargs={"attn_implementation": "sdpa", "device_map": "auto"},
        tokenizer_kwargs={"padding_side": "left"},
        cache_folder=None,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"backend": "onnx"},
        {"device": "cuda"},
        {"modules": ["a module"]},
        {"cache_folder": "/somewhere"},
        {"token": "secret"},
        {"model_kwargs": {"torch_dtype": "float16"}},
        {"config_kwargs": {"x": 1}},
        {"similarity_fn_name": "maxsim"},
        {"default_prompt_name": "none"},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_an_argument_of_the_constructor_that_is_not_honoured_is_refused_by_name(arguments):
    with pytest.raises(InvalidInputError, match=next(iter(arguments)).replace("default_", "")) as refused:
        SentenceTransformer(str(GOLDENS / BERT), **{"device": "cpu", **arguments})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"output_value": "token_embeddings"},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"device": "cuda:1"},
        {"pool": {"input": None}},
        {"precision": "float16"},
        {"prompt_name": "none"},
        {"task": "classification"},
        {"processing_kwargs": {"text": {"max_length": 7}}},
    ],
    ids=str,
)
def test_an_argument_of_a_call_that_is_not_honoured_is_refused_by_name(bert, options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        bert.encode(TEXTS, **options)


def test_what_would_silently_be_another_vector_is_refused(bert):
    with pytest.raises(InvalidInputError, match="not trained for vectors shorter"):
        bert.encode(TEXTS, truncate_dim=8)
    bert.max_seq_length = bert.max_seq_length
    with pytest.raises(InvalidInputError, match="max_seq_length=7"):
        bert.max_seq_length = 7
    routed = SentenceTransformer(str(GOLDENS / ROUTES), device="cpu")
    with pytest.raises(InvalidInputError, match="another prompt"):
        routed.encode_query(TEXTS, prompt="mine: ")


def test_what_the_files_say_is_honoured(tmp_path):
    directory = copy_model(GEMMA, tmp_path)
    settings = {"default_prompt_name": "query", "truncate_dim": 16, "similarity_fn_name": "dot"}
    edit_json(directory / "config_sentence_transformers.json", **settings)
    model, plain = (SentenceTransformer(str(path), device="cpu") for path in (directory, GOLDENS / GEMMA))
    assert model.similarity_fn_name == "dot"
    assert model.get_embedding_dimension() == model.get_sentence_embedding_dimension() == 16
    assert np.array_equal(model.encode(TEXTS), plain.encode_query(TEXTS)[:, :16])
    with model.truncate_embeddings(8):
        assert model.encode(TEXTS).shape[1] == 8
    assert model.encode(TEXTS).shape[1] == 16


def test_a_name_without_an_organisation_is_one_of_sentence_transformers(hub, monkeypatch):
    hub.add("sentence-transformers/tiny", GOLDENS / BERT)
    assert SentenceTransformer("tiny", device="cpu").encode("a").shape == (64,)
    with pytest.raises(ModelNotFoundError, match="sentence-transformers/none"):
        SentenceTransformer("none", device="cpu", local_files_only=True)
    names = []

    def note(name, **_options):
        names.append(name)
        raise ModelNotFoundError

    monkeypatch.setattr(sentence_transformers, "EmbeddingService", note)
    for name in ("all-MiniLM-L6-v2", "minilm-l6-v2", "org/repo"):
        with pytest.raises(ModelNotFoundError):
            SentenceTransformer(name, revision="main")
    minilm = "sentence-transformers/all-MiniLM-L6-v2@main"
    assert names == [minilm, minilm, "org/repo@main"]


def test_arguments_stand_in_the_librarys_order():
    """A call may pass them by position."""
    names = list(inspect.signature(SentenceTransformer.encode).parameters)
    assert names[1:8] == [
        "inputs", "prompt_name", "prompt", "batch_size", "show_progress_bar", "output_value", "precision"
    ]  # fmt: skip
