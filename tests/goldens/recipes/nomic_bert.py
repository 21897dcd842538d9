"""NomicBERT and GTE, each stored as its publisher does and as transformers names its modules."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from transformers import GteConfig, NomicBertConfig

from tests.goldens.make_models import Recipe

_NAMES = {
    "encoder.layers.": "layers.",
    "encoder.layer.": "layers.",
    "emb_ln.": "embeddings.LayerNorm.",
    ".attn.": ".self_attn.",
    ".attention.": ".self_attn.",
    ".out_proj.": ".o_proj.",
    ".fc11.": ".up_proj.",
    ".fc12.": ".gate_proj.",
    ".fc2.": ".down_proj.",
    ".norm1.": ".post_attention_layernorm.",
    ".norm2.": ".post_mlp_layernorm.",
    ".attn_ln.": ".post_attention_layernorm.",
    ".mlp_ln.": ".post_mlp_layernorm.",
}
_JOINED = {
    ".Wqkv.": (".q_proj.", ".k_proj.", ".v_proj."),
    ".qkv_proj.": (".q_proj.", ".k_proj.", ".v_proj."),
    ".up_gate_proj.": (".up_proj.", ".gate_proj."),
}


def store_apart(directory: Path) -> None:
    """Store a model's tensors under the names of transformers' modules."""
    path = directory / "model.safetensors"
    tensors = {}
    for stored, array in load_file(path).items():
        name = stored
        for part, standard in _NAMES.items():
            name = name.replace(part, standard)
        joined = next((part for part in _JOINED if part in name), None)
        if joined is None:
            tensors[name] = array
            continue
        for part, rows in zip(_JOINED[joined], np.split(array, len(_JOINED[joined])), strict=True):
            tensors[name.replace(joined, part)] = np.ascontiguousarray(rows)
    save_file(tensors, path, metadata={"format": "pt"})


MODELS = {
    "tiny-nomic-bert": Recipe(
        NomicBertConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=200,
        ),
        "mean",
        max_seq_length=200,
    ),
    "tiny-nomic-bert-apart": Recipe(
        NomicBertConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=3,
            head_dim=8,
            intermediate_size=24,
            max_position_embeddings=128,
            hidden_act="gelu",
            layer_norm_eps=1e-3,
            type_vocab_size=1,
            rope_parameters={"rope_type": "default", "rope_theta": 50.0},
        ),
        "cls",
        change=store_apart,
    ),
    "tiny-gte": Recipe(
        GteConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=200,
        ),
        "cls",
        max_seq_length=200,
    ),
    # Positions as the converted files of gte-multilingual-base state its NTK scaling.
    "tiny-gte-apart": Recipe(
        GteConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=40,
            max_position_embeddings=128,
            hidden_act="gelu_pytorch_tanh",
            layer_norm_eps=1e-3,
            type_vocab_size=0,
            rope_parameters={"rope_type": "linear", "rope_theta": 160000.0, "factor": 8 ** (2 / 8)},
        ),
        "mean",
        change=store_apart,
    ),
}
