"""ModernBERT, MPNet, NomicBERT and GTE in the dialects of their publishers, and what of them is refused."""

import json

import numpy as np
import pytest

from akidb_mlx import EmbeddingService
from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.config import parse_config
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.checkpoint.tokenization.classes import find_class
from akidb_mlx.errors import ModelLoadError
from tests.support import GOLDENS, TEXTS, copy_model, edit_tensors, golden

SAMPLE = [i for i, text in enumerate(TEXTS) if len(text) < 300][::2]
OLDER_MODERNBERT = {
    **dict.fromkeys(("layer_types", "rope_parameters")),
    **{"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
    **{"layer_norm_eps": 1e-5, "position_embedding_type": "absolute", "reference_compile": False},
    **{"repad_logits_with_grad": False, "gradient_checkpointing": False},
}
# As nomic-embed-text-v1.5 was published first.
PUBLISHED_NOMIC = {
    **{"n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 48, "n_positions": 8192, "layer_norm_epsilon": 1e-12},
    **{
        "activation_function": "swiglu",
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "max_trained_positions": 2048,
    },
    **{"rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "prenorm": False},
    **{"parallel_block": False, "parallel_block_tied_norm": False, "use_rms_norm": False, "causal": False},
    **{"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "dense_seq_output": True},
    **{"fused_bias_fc": True, "fused_dropout_add_ln": True, "use_flash_attn": True, "use_xentropy": True},
    **{"pad_vocab_size_multiple": 64, "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True},
    **{"reorder_and_upcast_attn": False, "summary_type": "cls_index", "summary_use_proj": True, "attn_pdrop": 0.0},
    "auto_map": {
        "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
        "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
        "AutoModelForMaskedLM": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertForPreTraining",
    },
}
NEWER_NOMIC = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps", "hidden_act"),
    *("head_dim", "rope_parameters", "max_position_embeddings"),
)
ARCTIC = {
    **{
        "pack_qkv": True,
        "unpad_inputs": "true",
        "use_memory_efficient_attention": "true",
        "layer_norm_type": "layer_norm",
    },
    **{"logn_attention_scale": False, "logn_attention_clip1": False, "position_embedding_type": "rope"},
    **{"rope_parameters": None, "rope_scaling": None, "rope_theta": 160000},
    "auto_map": {
        "AutoConfig": "configuration_hf_alibaba_nlp_gte.GteConfig",
        "AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel",
    },
}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tiny-modernbert", OLDER_MODERNBERT),
        ("tiny-nomic-bert", {**dict.fromkeys(NEWER_NOMIC), **PUBLISHED_NOMIC}),
        ("tiny-nomic-bert", PUBLISHED_NOMIC),  # both dialects, as it is published now
        ("tiny-gte", ARCTIC),
    ],
    ids=["modernbert", "nomic", "nomic in both", "gte"],
)
def test_a_publishers_dialect_gives_the_same_vectors(tmp_path, name, changes):
    directory = copy_model(name, tmp_path, **changes)
    with EmbeddingService(str(directory), device="cpu") as one:
        vectors = one.embed_array([TEXTS[i] for i in SAMPLE])
    assert np.abs(vectors - golden(name)["none"][SAMPLE]).max() <= 2e-5


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("tiny-modernbert", {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        ("tiny-modernbert", {"rope_theta": 1e4}, "rope_theta = 10000.0 is not supported"),
        ("tiny-modernbert", {"rope_scaling": {"rope_type": "default"}}, "rope_scaling = "),
        ("tiny-modernbert", {"sliding_window": 8}, "sliding_window = 8 is a key that"),
        ("tiny-modernbert", {"layer_types": ["full_attention"] * 2}, "2 layer_types for 3 layers"),
        ("tiny-modernbert", {"layer_types": None, "global_attn_every_n_layers": 0}, "global_attn_every_n_layers = 0"),
        ("tiny-modernbert", {"num_attention_heads": 3}, "3 heads do not divide hidden_size 32"),
        ("tiny-modernbert", {"auto_map": {"AutoModel": "modeling.Own"}}, "auto_map asks for code"),
        ("tiny-mpnet", {"pad_token_id": 0}, "pad_token_id = 0 is not supported"),
        ("tiny-mpnet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets = 16"),
        ("tiny-mpnet", {"type_vocab_size": 2}, "type_vocab_size = 2 is not supported"),
        ("tiny-nomic-bert", {"num_experts": 8, "moe_every_n_layers": 2}, "a mixture of experts"),
        ("tiny-nomic-bert", {"moe_every_n_layers": 2}, "a mixture of experts"),
        ("tiny-nomic-bert", {"rotary_scaling_factor": 2}, "rotary_scaling_factor = 2 is not supported"),
        ("tiny-nomic-bert", {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction = 0.5"),
        ("tiny-nomic-bert", {"rotary_emb_interleaved": True}, "rotary_emb_interleaved = True"),
        ("tiny-nomic-bert", {"rotary_emb_base": 10000}, "rotary_emb_base is 10000, and rope_theta 1000.0"),
        ("tiny-nomic-bert", {"activation_function": "geglu"}, "activation_function = 'geglu'"),
        ("tiny-nomic-bert", {"activation_function": "swiglu", "hidden_act": "gelu"}, "and hidden_act 'gelu'"),
        ("tiny-nomic-bert", {"n_head": 4}, "num_attention_heads = 2, n_head = 4 mean the same and differ"),
        ("tiny-nomic-bert", {"n_embd": 32, "hidden_size": None}, "lacks activation_function"),
        ("tiny-nomic-bert", {"auto_map": {"AutoModel": "x--modeling_hf_nomic_bert.Other"}}, "auto_map asks for code"),
        ("tiny-gte", {"logn_attention_scale": True}, "logn_attention_scale = True is not supported"),
        ("tiny-gte", {"layer_norm_type": "rms_norm"}, "layer_norm_type = 'rms_norm'"),
        ("tiny-gte", {"position_embedding_type": "absolute"}, "position_embedding_type = 'absolute'"),
        ("tiny-gte", {"rope_scaling": {"type": "ntk", "factor": 8.0}, "rope_parameters": None}, "type 'ntk'"),
        ("tiny-gte", {"head_dim": 8}, "head_dim = 8 is a key that"),
        ("tiny-gte", {"model_type": "new"}, "model_type 'new' is not supported"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, name, changes, problem):
    with pytest.raises(ModelLoadError) as caught:
        EmbeddingService(str(copy_model(name, tmp_path, **changes)), device="cpu")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tensor", "kind"),
    [
        ("tiny-modernbert", "head.dense.weight", "a model of masked words, a classifier"),
        ("tiny-modernbert", "decoder.bias", "a model of masked words"),
        ("tiny-modernbert", "classifier.weight", "a classifier"),
        ("tiny-mpnet", "lm_head.bias", "a language model"),
        ("tiny-nomic-bert", "cls.predictions.decoder.bias", "a model of masked words"),
        ("tiny-gte", "lm_head.decoder.bias", "a language model"),
    ],
)
def test_a_model_with_a_head_is_refused_by_name(tmp_path, name, tensor, kind):
    prefix = ARCHITECTURES[json.loads((GOLDENS / name / "config.json").read_text())["model_type"]].prefixes[0]
    directory = copy_model(name, tmp_path)

    def add(tensors):
        return {f"{prefix}{key}": array for key, array in tensors.items()} | {tensor: np.ones(4, np.float32)}

    edit_tensors(directory / "model.safetensors", add)
    with pytest.raises(ModelLoadError, match=f"belongs to the head of {kind}"):
        EmbeddingService(str(directory), device="cpu")


@pytest.mark.parametrize("name", ["tiny-modernbert", "tiny-mpnet", "tiny-nomic-bert", "tiny-gte"])
def test_tensors_with_the_models_prefix_are_found(tmp_path, name):
    directory = copy_model(name, tmp_path)
    prefix = read_checkpoint(directory).architecture.prefixes[0]
    edit_tensors(
        directory / "model.safetensors", lambda tensors: {f"{prefix}{key}": array for key, array in tensors.items()}
    )
    with EmbeddingService(str(directory), device="cpu") as one:
        assert np.abs(one.embed_array(TEXTS[:2]) - golden(name)["none"][:2]).max() <= 2e-5


@pytest.mark.parametrize("window", [8, 9])
def test_modernbert_sees_half_the_window_on_each_side(window):
    """A window of 8 or 9 is 4 tokens before, 4 after and the token itself."""
    import mlx.core as mx

    from akidb_mlx.backends.mlx.encoders import TokenBatch
    from akidb_mlx.backends.mlx.encoders.modernbert import ModernBert
    from akidb_mlx.backends.mlx.encoders.windows import visible_keys
    from akidb_mlx.backends.mlx.plan import execution_plan
    from akidb_mlx.backends.mlx.weights import WeightReader

    checkpoint = read_checkpoint(GOLDENS / "tiny-modernbert")
    args = parse_config(type(checkpoint.encoder_config), checkpoint.config | {"local_attention": window})
    with mx.stream(mx.cpu):
        plan = execution_plan("cpu", "float32", None, "float32", False, 32)
        encoder = ModernBert(args, WeightReader(checkpoint, plan), plan)
        masks = visible_keys(TokenBatch(mx.zeros((1, 30), mx.int32), mx.array([30]), False), encoder._reach)
        seen = np.flatnonzero(np.array(masks["sliding_attention"])[0, 0, 12])
    assert seen.tolist() == list(range(8, 17))


def test_limits_follow_the_references_default_where_config_json_has_none(tmp_path):
    directory = copy_model("tiny-nomic-bert", tmp_path, max_position_embeddings=None)
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8192}))
    assert read_checkpoint(directory).max_tokens == 2048


@pytest.mark.parametrize("named", [None, "LlamaTokenizer", "BertTokenizer", "PreTrainedTokenizerFast"])
def test_modernbert_takes_tokenizer_json_as_it_is(tmp_path, named):
    """Its published files name wrong classes, and transformers has a list of such architectures."""
    assert find_class(tmp_path / "tokenizer_config.json", named, "modernbert") is None


@pytest.mark.parametrize("distance", [-3000, -128, -127, -91, -90, -64, -16, -12, -11, -8, -1, 0, 1, 7, 8, 16, 90, 128])
def test_mpnets_buckets_are_those_of_the_formula(distance):
    import math

    from akidb_mlx.backends.mlx.encoders.mpnet import _bucket

    size = abs(distance)
    row = size if size < 8 else min(15, 8 + int(math.log(size / 8) / math.log(128 / 8) * 8 + 1e-9))
    assert _bucket(distance) == row + 16 * (distance > 0)
