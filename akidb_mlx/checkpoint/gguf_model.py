"""The description of the embedding model in a GGUF file, from its metadata."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from akidb_mlx.checkpoint.architectures.config import EncoderConfig
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.gguf import TOKENS, GgufHeader, read_header
from akidb_mlx.checkpoint.head import Head, Pooling, PoolingMode
from akidb_mlx.checkpoint.modules import EVERY_ROLE
from akidb_mlx.checkpoint.quantization import QuantizationConfig
from akidb_mlx.errors import ModelLoadError

# The ways of pooling by llama.cpp's numbers, and those that make no vectors.
_POOLINGS: dict[int, PoolingMode] = {1: "mean", 2: "cls", 3: "last"}
_NONE, _RANK = 0, 4
# Tensors of what follows the pooling. llama.cpp loads a file without them, as its converter makes it unless it is told
# otherwise, and computes vectors of another space.
_AFTER_POOLING = {"gemma-embedding": ("dense_2.weight", "dense_3.weight")}
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9._-]{0,40}")
# Bounds far above those of any model.
_MOST_TOKENS, _LARGEST_CONTEXT, _LARGEST_SIZE, _MOST_LAYERS, _MOST_HEADS = 1 << 21, 1 << 24, 1 << 20, 1 << 10, 1 << 12
_SPECIAL = ("bos", "eos", "unknown", "seperator", "separator", "padding", "mask", "cls", "eot", "eom")


def read_gguf(file: Path) -> Checkpoint:
    """Read the description of an embedding model. llama.cpp is not asked.

    Raises:
        ModelLoadError: the file is damaged, does not say how it pools, or holds another kind of model.
    """
    header = read_model_header(file)
    name = header.architecture
    key = f"{name}.pooling_type"
    found = header.metadata.get(key)
    if found == _RANK:
        raise ModelLoadError(f"{file} holds a reranker ({key} is {_RANK}), and not an embedding model")
    if found not in _POOLINGS:
        stated = "does not say" if found is None else f"says {found!r} for"
        raise ModelLoadError(
            f"{file} {stated} how the vectors of tokens become one ({key}), so it is no embedding model, or one that "
            f"was converted without; those that can be computed are "
            f"{', '.join(f'{number} ({mode})' for number, mode in _POOLINGS.items())}"
        )
    _check_special_tokens(header, _POOLINGS[found])
    if missing := [tensor for tensor in _AFTER_POOLING.get(name, ()) if tensor not in header.tensors]:
        raise ModelLoadError(
            f"{file} lacks the Dense layers of {name} ({', '.join(missing)}), so its vectors would not be the model's: "
            "take a file that was converted with --sentence-transformers-dense-modules"
        )
    return Checkpoint(
        directory=file,
        model_type=name,
        config={},
        encoder_config=EncoderConfig(
            vocab_size=header.array(TOKENS).length,
            hidden_size=header.number(f"{name}.embedding_length", 1, _LARGEST_SIZE),
        ),
        tensors={},
        quantization=QuantizationConfig(None, {}),
        dtype="float32",
        heads={"": Head(Pooling((_POOLINGS[cast("int", found)],), source=f"{key} in {file.name}"))},
        routes=EVERY_ROLE,
        stated_embedder=True,
        prompts={},
        truncate_dim=None,
        max_tokens=header.number(f"{name}.context_length", 1, _LARGEST_CONTEXT),
        lower_case=False,
        gguf=header,
    )


def _check_special_tokens(header: GgufHeader, pooling: PoolingMode) -> None:
    """Refuse a file that pools by a token of which it does not say whether it is a special one.

    Without the entry, llama.cpp adds none, and files of older converters lack it: a vector is then that of another
    token. BERT's own tokenizer needs no entry.

    Raises:
        ModelLoadError: it does.
    """
    if pooling == "mean" or header.metadata.get("tokenizer.ggml.model") == "bert":
        return
    place, verb, key = ("first", "begin", "bos") if pooling == "cls" else ("last", "end", "eos")
    key = f"tokenizer.ggml.add_{key}_token"
    if not isinstance(header.metadata.get(key), bool):
        raise ModelLoadError(
            f"{header.file} pools by the {place} token, and does not say whether texts {verb} with a special one "
            f"({key}), as files of old converters do not: take one that was converted anew"
        )


def read_model_header(file: Path) -> GgufHeader:
    """Read a header, and check the sizes and tokens that llama.cpp takes on trust.

    Raises:
        ModelLoadError: one is missing, or no model could have it.
    """
    header = read_header(file)
    name = header.architecture
    if not _ARCHITECTURE.fullmatch(name):
        raise ModelLoadError(f"{file}: general.architecture is no name: {name[:80]!r}")
    if (parts := header.number("split.count", 0, 1 << 16, default=1)) > 1:
        raise ModelLoadError(f"{file} is one of {parts} parts: join them with llama.cpp's llama-gguf-split --merge")
    header.number(f"{name}.block_count", 1, _MOST_LAYERS)
    size = header.number(f"{name}.embedding_length", 1, _LARGEST_SIZE)
    heads = header.metadata.get(f"{name}.attention.head_count")
    if isinstance(heads, int) and not (0 < heads <= min(size, _MOST_HEADS)):
        raise ModelLoadError(f"{file}: {name}.attention.head_count is {heads}, with vectors of {size} values")
    tokens = header.array(TOKENS).length
    if not 0 < tokens <= _MOST_TOKENS:
        raise ModelLoadError(f"{file}: it has {tokens} tokens")
    for key in ("tokenizer.ggml.token_type", "tokenizer.ggml.scores"):
        if key in header.metadata and (found := header.array(key).length) != tokens:
            raise ModelLoadError(f"{file}: {key} has {found} entries for {tokens} tokens")
    for special in _SPECIAL:
        key = f"tokenizer.ggml.{special}_token_id"
        if key in header.metadata and header.metadata[key] != (1 << 32) - 1:  # which stands for none
            header.number(key, 0, tokens - 1)
    return header
