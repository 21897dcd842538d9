"""GGUF files, right and wrong ones, written from the goldens' tiny models."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from tests.support import GOLDENS

_ALIGNMENT = 32
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
MEAN, CLS, LAST, RANK = 1, 2, 3, 4

_BERT_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_QWEN3_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def string(text: str | bytes) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content)) + content


def value(found: Any) -> bytes:
    """Return a value with its type: lists of strings, integers or floats too."""
    if isinstance(found, bool):
        return struct.pack("<I?", 7, found)
    if isinstance(found, int):
        return struct.pack("<II", 4, found) if 0 <= found < 1 << 32 else struct.pack("<Iq", 11, found)
    if isinstance(found, float):
        return struct.pack("<If", 6, found)
    if isinstance(found, str):
        return struct.pack("<I", 8) + string(found)
    if found and isinstance(found[0], str):
        return struct.pack("<IIQ", 9, 8, len(found)) + b"".join(map(string, found))
    return struct.pack("<IIQ", 9, 5, len(found)) + struct.pack(f"<{len(found)}i", *found)


def tensor(name: str, shape: tuple[int, ...], offset: int, kind: int = 0) -> bytes:
    """Return the description of a tensor, of float32 unless told otherwise."""
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(
    entries: Mapping[str, Any],
    tensors: list[bytes],
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    entry_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    """Return a header, padded; the counts are those of what follows unless told otherwise."""
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(entries) if entry_count is None else entry_count,
    )
    written = [string(key) + (found if isinstance(found, bytes) else value(found)) for key, found in entries.items()]
    content = magic + struct.pack("<IQQ", version, *counts) + b"".join(written) + b"".join(tensors)
    return content + bytes(-len(content) % _ALIGNMENT)


def write_gguf(file: Path, entries: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    tensors, contents, offset = [], [], 0
    for name, array in arrays.items():
        content = array.astype("<f4").tobytes()
        content += bytes(-len(content) % _ALIGNMENT)
        tensors.append(tensor(name, array.shape[::-1], offset))
        contents.append(content)
        offset += len(content)
    file.write_bytes(header(entries, tensors) + b"".join(contents))
    return file


def write_bert(file: Path, pooling: int | None = MEAN, **changes: Any) -> Path:
    """Write the golden tiny-bert; `changes` replace entries, dots written as two underscores, None leaves one out."""
    config, tokens, _ = _read(GOLDENS / "tiny-bert")
    entries = {
        "general.architecture": "bert",
        "bert.block_count": config["num_hidden_layers"],
        "bert.context_length": config["max_position_embeddings"],
        "bert.embedding_length": config["hidden_size"],
        "bert.feed_forward_length": config["intermediate_size"],
        "bert.attention.head_count": config["num_attention_heads"],
        "bert.attention.layer_norm_epsilon": config["layer_norm_eps"],
        "bert.attention.causal": False,
        "bert.pooling_type": pooling,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": [_written(token) for token in tokens],
        "tokenizer.ggml.token_type": [
            _CONTROL if token.startswith("[") and len(token) > 1 else _NORMAL for token in tokens
        ],
        "tokenizer.ggml.token_type_count": config["type_vocab_size"],
        **{
            f"tokenizer.ggml.{name}_token_id": tokens.index(token)
            for name, token in (
                ("bos", "[CLS]"),
                ("eos", "[SEP]"),
                ("unknown", "[UNK]"),
                ("seperator", "[SEP]"),
                ("padding", "[PAD]"),
            )
        },
    }
    return write_gguf(file, _change(entries, changes), _rename(GOLDENS / "tiny-bert", _BERT_NAMES))


def write_qwen3(
    file: Path, pooling: int | None = LAST, directory: Path = GOLDENS / "tiny-qwen3", **changes: Any
) -> Path:
    """Write the golden tiny-qwen3, or another model of its architecture; see `write_bert`."""
    config, tokens, merges = _read(directory)
    entries = {
        "general.architecture": "qwen3",
        "qwen3.block_count": config["num_hidden_layers"],
        "qwen3.context_length": 512,
        "qwen3.embedding_length": config["hidden_size"],
        "qwen3.feed_forward_length": config["intermediate_size"],
        "qwen3.attention.head_count": config["num_attention_heads"],
        "qwen3.attention.head_count_kv": config["num_key_value_heads"],
        "qwen3.attention.key_length": config["head_dim"],
        "qwen3.attention.value_length": config["head_dim"],
        "qwen3.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "qwen3.rope.freq_base": float(config.get("rope_theta") or config["rope_parameters"]["rope_theta"]),
        "qwen3.pooling_type": pooling,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_kind(token) for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": True,
    }
    return write_gguf(file, _change(entries, changes), _rename(directory, _QWEN3_NAMES))


def _kind(token: str) -> int:
    """Return the type of a token of Qwen3's; its marks of thinking are its own, and not special."""
    return (
        _CONTROL if token.startswith("<|") and token.endswith("|>") else _USER_DEFINED if "think>" in token else _NORMAL
    )


def _change(entries: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = entries | {name.replace("__", "."): found for name, found in changes.items()}
    return {key: found for key, found in changed.items() if found is not None}


def _read(directory: Path) -> tuple[dict[str, Any], list[str], list[str]]:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    numbers = model["vocab"] | {one["content"]: one["id"] for one in tokenizer["added_tokens"]}
    tokens = sorted(numbers, key=numbers.__getitem__)
    merges = [one if isinstance(one, str) else " ".join(one) for one in model.get("merges", [])]
    return config, tokens, merges


def _rename(directory: Path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    arrays = {}
    for stored, array in load_file(directory / "model.safetensors").items():
        path, _, kind = stored.removeprefix("model.").rpartition(".")
        layer = ""
        for prefix in ("encoder.layer.", "layers."):
            if path.startswith(prefix):
                number, _, path = path.removeprefix(prefix).partition(".")
                layer = f"blk.{number}."
        if path in names:  # the pooler has no place there
            arrays[f"{layer}{names[path]}.{kind}"] = array
    return arrays


def _written(token: str) -> str:
    """Write a token of BERT's as llama.cpp has them: a word's beginning is marked, and not what goes on with it."""
    if token.startswith("[") and token.endswith("]") and len(token) > 2:
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"
