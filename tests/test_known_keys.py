"""The lists of known keys: complete with regard to the reference, with its defaults, and open to ordinary models."""

import json
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import AliasChoices
from pydantic_core import PydanticUndefined

from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.rotary import RotaryConfig
from akidb_mlx.checkpoint.known_keys import KnownKeys, Only, is_empty
from akidb_mlx.checkpoint.module_keys import (
    DENSE_KEYS,
    MASK_KEYS,
    MODEL_KEYS,
    MULTI_VECTOR_MODEL_KEYS,
    MULTI_VECTOR_TRANSFORMER_KEYS,
    NORMALIZE_KEYS,
    POOLING_KEYS,
    SPARSE_MODEL_KEYS,
    SPARSE_TRANSFORMER_KEYS,
    SPLADE_KEYS,
    STATIC_SPARSE_KEYS,
    TOKEN_DENSE_KEYS,
    TOKEN_NORMALIZE_KEYS,
    TRANSFORMER_KEYS,
)
from akidb_mlx.errors import ModelLoadError
from tests.ordinary_configs import ORDINARY
from tests.support import GOLDENS

REFERENCE = json.loads((GOLDENS / "reference_keys.json").read_text())
# Keys whose default depends on other keys.
_DERIVED = ("layer_types", "rope_parameters", "per_layer_config", "head_dim")
MODULES = {
    "sentence_bert_config.json": TRANSFORMER_KEYS,
    "1_Pooling/config.json": POOLING_KEYS,
    "2_Dense/config.json": DENSE_KEYS,
    "3_Normalize/config.json": NORMALIZE_KEYS,
    "config_sentence_transformers.json": MODEL_KEYS,
    "SpladePooling": SPLADE_KEYS,
    "SparseStaticEmbedding": STATIC_SPARSE_KEYS,
    "MultiVectorMask": MASK_KEYS,
    "SparseEncoder": SPARSE_MODEL_KEYS,
    "MultiVectorEncoder": MULTI_VECTOR_MODEL_KEYS,
}
# The lists of the same files in sparse and multi-vector models.
OTHERS = [
    ("sentence_bert_config.json", SPARSE_TRANSFORMER_KEYS),
    ("sentence_bert_config.json", MULTI_VECTOR_TRANSFORMER_KEYS),
    ("2_Dense/config.json", TOKEN_DENSE_KEYS),
    ("3_Normalize/config.json", TOKEN_NORMALIZE_KEYS),
]
CONFIG = Path("config.json")


def reference_of(model_type: str) -> dict[str, object]:
    """The reference's keys and defaults of an encoder; those of `text_config` where its file has other towers too."""
    stored = REFERENCE["config.json"][model_type]
    return stored["text_config"] if ARCHITECTURES[model_type].wrapper else stored


def listed(known: KnownKeys) -> set[str]:
    return known.honoured | set(known.only) | set(known.harmless)


def names(field: object, name: str) -> list[str]:
    """The keys that a field is read from."""
    alias = field.validation_alias
    return [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else [alias or name]


def test_every_architecture_has_a_reference_and_an_encoder():
    assert set(ARCHITECTURES) == set(REFERENCE["config.json"])
    for architecture in ARCHITECTURES.values():
        module, name = architecture.encoder.split(":")
        assert callable(getattr(import_module(f"akidb_mlx.backends.mlx.encoders.{module}"), name))


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_key_of_the_references_class_is_listed(model_type):
    assert set(reference_of(model_type)) - listed(ARCHITECTURES[model_type].keys) == set()


@pytest.mark.parametrize("model_type", [name for name, architecture in ARCHITECTURES.items() if architecture.wrapper])
def test_every_key_around_a_text_config_is_listed_and_its_default_let_through(model_type):
    wrapper, reference = ARCHITECTURES[model_type].wrapper, REFERENCE["config.json"][model_type]
    assert set(reference) - listed(wrapper) == set()
    wrapper.check(CONFIG, reference)
    read = ARCHITECTURES[model_type].config.model_fields
    defaults = {key: field.default for key, field in read.items() if key in reference and key in wrapper.honoured}
    assert defaults
    assert defaults == {key: reference[key] for key in defaults}


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_references_own_defaults_are_let_through(model_type):
    ARCHITECTURES[model_type].keys.check(CONFIG, reference_of(model_type))


@pytest.mark.parametrize(("file", "known"), [*MODULES.items(), *OTHERS])
def test_every_key_of_the_references_modules_is_listed(file, known):
    assert set(REFERENCE[file]) - listed(known) == set()


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_what_an_encoder_reads_is_not_called_harmless(model_type):
    known = ARCHITECTURES[model_type].keys
    assert ARCHITECTURES[model_type].config.keys() - known.honoured - set(known.only) == set()


@pytest.mark.parametrize(
    "known",
    [
        *(architecture.keys for architecture in ARCHITECTURES.values()),
        *(architecture.wrapper for architecture in ARCHITECTURES.values() if architecture.wrapper),
        *MODULES.values(),
        *(known for _, known in OTHERS),
    ],
)
def test_a_key_is_in_one_list(known):
    assert not known.honoured & set(known.only)
    assert not known.honoured & set(known.harmless)
    assert not set(known.only) & set(known.harmless)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_defaults_are_the_references(model_type):
    """A default stands for a key that is missing, so another one than the reference's is a wrong vector in silence."""
    reference = reference_of(model_type)
    config = ARCHITECTURES[model_type].config
    compared = 0
    for name, field in config.model_fields.items():
        for key in names(field, name):
            if field.default is not PydanticUndefined and key in reference:
                found = reference[key]
                derived = key in _DERIVED and field.default is None
                assert derived or field.default == found, key
                compared += 1
    assert compared >= 1
    if issubclass(config, RotaryConfig):
        rope = reference["rope_parameters"]
        assert {kind: found.content["rope_theta"] for kind, found in config.rope_objects({}).items()} == {
            kind: rope.get(kind, rope)["rope_theta"] for kind in config.default_thetas
        }


@pytest.mark.parametrize("model_type", [name for name, one in ARCHITECTURES.items() if one.masked_head])
def test_the_defaults_of_a_head_for_masked_words_are_the_references(model_type):
    """Those that `read_sparse` takes: a tied output, GELU, and the biases."""
    head, reference = ARCHITECTURES[model_type].masked_head, reference_of(model_type)
    assert reference["tie_word_embeddings"] is True
    assert head.activation is None or reference[head.activation] == "gelu"
    for key, default in head.biases.values():
        assert reference[key] is default


@pytest.mark.slow
def test_the_installed_transformers_has_the_same_keys_and_defaults():
    transformers = pytest.importorskip("transformers")
    for model_type, stored in REFERENCE["config.json"].items():
        found = json.loads(json.dumps(transformers.AutoConfig.for_model(model_type).to_dict()))
        versioned = {"transformers_version": None}
        assert found | versioned == stored | versioned


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_models_are_let_through(name):
    config = ORDINARY[name]
    rule = ARCHITECTURES[config["model_type"]]
    if rule.wrapper:
        rule.wrapper.check(CONFIG, config)
        config = config["text_config"]
    rule.keys.check(CONFIG, config)


@pytest.mark.parametrize("value", [None, False, "", [], {}, {"a": {"b": []}, "c": None}, [[], None]])
def test_an_unknown_key_that_says_nothing_is_let_through(value):
    assert is_empty(value)
    KnownKeys(frozenset()).check(CONFIG, {"unknown": value})


@pytest.mark.parametrize("value", [True, 0, 1, "x", [0], {"a": {"b": 0}}])
def test_an_unknown_key_that_says_something_is_named(value):
    with pytest.raises(ModelLoadError, match=r"config\.json: unknown = .* does not know"):
        KnownKeys(frozenset()).check(CONFIG, {"unknown": value})


def test_values_are_compared_as_json_does():
    known = KnownKeys(frozenset(), only={"key": Only((None, 1), "because")})
    known.check(CONFIG, {"key": 1})
    known.check(CONFIG, {"key": 1.0})
    for value in (True, "1", [1], 2):
        with pytest.raises(ModelLoadError, match=r"key = .* is not supported: because"):
            known.check(CONFIG, {"key": value})


@pytest.mark.parametrize("content", [{"key": "x" * 10**7}, {"k" * 10**7: 1}, {"key": {"a": ["x" * 10**7]}}])
def test_messages_quote_the_beginning_only(content):
    with pytest.raises(ModelLoadError) as caught:
        KnownKeys(frozenset()).check(CONFIG, content)
    assert len(str(caught.value)) < 500


def test_a_value_of_any_depth_is_looked_through():
    value: object = 1
    for _ in range(100_000):
        value = [value]
    assert not is_empty(value)
