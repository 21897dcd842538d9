"""Write a BERT embedding model as a GGUF for llama.cpp, with its weights as they are.

python -m benchmarks.bert_gguf DIRECTORY FILE

It runs in llama.cpp's environment, which has gguf and safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

# llama.cpp writes a word's beginning with this sign, and its continuation without one, where BERT writes "##" instead.
_BEGINNING = "\u2581"
_CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def convert(directory: Path, file: Path) -> None:
    """Write the model of a directory into a file."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    vocabulary = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer = gguf.GGUFWriter(str(file), "bert")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_written(token) for token in tokens])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_types([gguf.TokenType.CONTROL if one in _CONTROL else gguf.TokenType.NORMAL for one in tokens])
    for name, token in (("bos", "[CLS]"), ("eos", "[SEP]"), ("unk", "[UNK]"), ("sep", "[SEP]"), ("pad", "[PAD]")):
        getattr(writer, f"add_{name}_token_id")(vocabulary[token])
    writer.add_mask_token_id(vocabulary["[MASK]"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in load_file(directory / "model.safetensors").items():
        if (known := names.get_name(name, (".weight", ".bias"))) is not None:  # the pooler has no place there
            writer.add_tensor(known, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _written(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else _BEGINNING + token


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
