"""A config.json of each architecture, as its publishers write it, and random weights that fit it."""

from random import Random
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz.contents import Tensors

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
NAMES = ("bert", "distilbert", "roberta", "xlm-roberta", "qwen2", "qwen3", "llama", "gemma3_text")
DECODERS = ("qwen2", "qwen3", "llama", "gemma3_text")


class Model(NamedTuple):
    """An architecture, and the one whose kind of tokenizer it has."""

    architecture: str
    tokenizer: str


def make_config(architecture: str, rows: int, rng: Random) -> Config:
    """Return a config.json for a table of so many token vectors."""
    heads, head_dim, layers = rng.choice((1, 2, 4)), rng.choice((8, 12, 16)), rng.randint(1, 3)
    width = rng.choice((24, 32, 48))
    config: Config = {"model_type": architecture, "vocab_size": rows, "max_position_embeddings": rng.randint(40, 90)}
    if architecture == "distilbert":
        config |= {"dim": heads * head_dim, "n_heads": heads, "n_layers": layers, "hidden_dim": width}
        return config | {"activation": "gelu", "sinusoidal_pos_embds": False, "pad_token_id": 0}
    config |= {"hidden_size": heads * head_dim, "num_attention_heads": heads, "num_hidden_layers": layers}
    config |= {"intermediate_size": width}
    if architecture not in DECODERS:
        roberta = architecture != "bert"
        config |= {"hidden_act": "gelu", "layer_norm_eps": 1e-5 if roberta else 1e-12}
        return config | {"type_vocab_size": 1 if roberta else 2, "pad_token_id": int(roberta)}
    config |= {"num_key_value_heads": rng.choice([n for n in (1, 2, 4) if heads % n == 0]), "head_dim": head_dim}
    config |= {"rms_norm_eps": 1e-6}
    new = rng.random() < 0.5  # transformers 5, or 4
    if architecture != "qwen2":
        config["attention_bias"] = architecture == "llama" and rng.random() < 0.5
    if architecture != "gemma3_text":
        config |= {"hidden_act": "silu", "tie_word_embeddings": True}
        if architecture == "llama":
            config |= {"mlp_bias": rng.random() < 0.5, "pretraining_tp": 1}
        else:
            config |= {"use_sliding_window": False}
        rope = {"rope_theta": rng.choice((1e4, 1e6)), "rope_type": "default"}
        return config | ({"rope_parameters": rope} if new else {"rope_theta": rope["rope_theta"]})
    config |= {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": rng.choice((head_dim, 7))}
    config |= {"sliding_window": rng.choice((8, 16)), "use_bidirectional_attention": True, "pad_token_id": 0}
    kinds = [rng.choice(("sliding_attention", "full_attention")) for _ in range(layers)]
    thetas = {"full_attention": rng.choice((1e4, 1e6)), "sliding_attention": rng.choice((1e3, 1e4))}
    if new:
        ropes = {kind: {"rope_theta": theta, "rope_type": "default"} for kind, theta in thetas.items()}
        return config | {"layer_types": kinds, "rope_parameters": ropes}
    old = {"rope_theta": thetas["full_attention"], "rope_local_base_freq": thetas["sliding_attention"]}
    return config | old | ({"layer_types": kinds} if rng.random() < 0.5 else {"sliding_window_pattern": 2})


def make_tensors(config: Config, seed: int) -> Tensors:
    """Return random weights, by the names that transformers stores them under."""
    kind = config["model_type"]
    shapes = _distilbert if kind == "distilbert" else _decoder if kind in DECODERS else _bert
    rng = np.random.default_rng(seed)
    return {name: _draw(name, shape, kind, rng) for name, shape in shapes(config).items()}


def _draw(name: str, shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(shape)
    if len(shape) == 2:
        # Wide enough for attention that is far from uniform, so that positions and masks matter.
        values *= 1.0 if "embed" in name else 1.5 / shape[1] ** 0.5
    else:
        norm = "norm" in name.lower() and name.endswith("weight") and kind != "gemma3_text"
        values = values * 0.2 + norm
    return values.astype(np.float32)


def _bert(config: Config) -> Shapes:
    size, width = config["hidden_size"], config["intermediate_size"]
    shapes = _embeddings(config, size)
    shapes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], size)
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{name}attention.{part}", size, size)
        shapes |= _norm(f"{name}attention.output.LayerNorm", size) | _norm(f"{name}output.LayerNorm", size)
        shapes |= _linear(f"{name}intermediate.dense", width, size) | _linear(f"{name}output.dense", size, width)
    return shapes | _linear("pooler.dense", size, size)


def _distilbert(config: Config) -> Shapes:
    size, width = config["dim"], config["hidden_dim"]
    shapes = _embeddings(config, size)
    for layer in range(config["n_layers"]):
        name = f"transformer.layer.{layer}."
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= _linear(f"{name}attention.{part}", size, size)
        shapes |= _norm(f"{name}sa_layer_norm", size) | _norm(f"{name}output_layer_norm", size)
        shapes |= _linear(f"{name}ffn.lin1", width, size) | _linear(f"{name}ffn.lin2", size, width)
    return shapes


def _decoder(config: Config) -> Shapes:
    size, width, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes: Shapes = {"embed_tokens.weight": (config["vocab_size"], size), "norm.weight": (size,)}
    biases = config.get("attention_bias", False)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config["model_type"] == "gemma3_text":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for layer in range(config["num_hidden_layers"]):
        name = f"layers.{layer}."
        shapes |= {f"{name}{norm}.weight": (size,) for norm in norms}
        if config["model_type"] in ("qwen3", "gemma3_text"):
            shapes |= {f"{name}self_attn.{part}_norm.weight": (head,) for part in "qk"}
        for part, rows in {"q": queries, "k": keys, "v": keys}.items():
            shapes |= _linear(
                f"{name}self_attn.{part}_proj", rows, size, bias=biases or config["model_type"] == "qwen2"
            )
        shapes |= _linear(f"{name}self_attn.o_proj", size, queries, bias=biases)
        for part in ("gate", "up"):
            shapes |= _linear(f"{name}mlp.{part}_proj", width, size, bias=config.get("mlp_bias", False))
        shapes |= _linear(f"{name}mlp.down_proj", size, width, bias=config.get("mlp_bias", False))
    return shapes


def _embeddings(config: Config, size: int) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (config["vocab_size"], size),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], size),
        **_norm("embeddings.LayerNorm", size),
    }


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
