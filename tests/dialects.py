"""Changed copies of the tiny models: keys that are missing, or that say the same in another way.

The reference reads them too; `goldens/make_dialects.py` stored its vectors in `goldens/dialects.npz`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.support import TEXTS, copy_model

# Short enough for every dialect.
SAMPLE = [text for text in TEXTS if len(text) < 120][::3]


@dataclass(frozen=True)
class Dialect:
    """A changed copy of a model.

    Attributes:
        model: the name of the tiny model.
        config: keys that are set in its config.json; None removes one.
        files: contents of JSON files, by name; None removes a file.
        stale_index: whether an index of other weights lies beside model.safetensors.
    """

    model: str
    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    stale_index: bool = False

    def make(self, into: Path) -> Path:
        """Write the copy below a folder and return its directory."""
        directory = copy_model(self.model, into, **self.config)
        for name, content in self.files.items():
            if content is None:
                (directory / name).unlink()
            else:
                (directory / name).write_text(json.dumps(content))
        if self.stale_index:
            tensors = load_file(directory / "model.safetensors")
            save_file({name: np.zeros_like(array) for name, array in tensors.items()}, directory / "old.safetensors")
            index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "old.safetensors")}
            (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        return directory


_DEFAULT_ROPE = {"rope_type": "default"}
# Every type of scaled rotary positions, with an original length that short texts leave.
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 24}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
_SCALED = {
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.5},
    "yarn": _YARN,
    "yarn-mscale": {**_YARN, "mscale": 0.7, "mscale_all_dim": 1.2, "beta_fast": 4, "beta_slow": 0.5},
    "yarn-untruncated": {**_YARN, "truncate": False, "attention_factor": 1.3},
    "llama3": _LLAMA3,
    "proportional": {"rope_type": "proportional", "rope_theta": 1e4, "partial_rotary_factor": 0.3, "factor": 1.5},
}

DIALECTS = {
    "xlm-roberta-without-pad": Dialect("tiny-roberta", {"model_type": "xlm-roberta", "pad_token_id": None}),
    "roberta-without-pad": Dialect("tiny-roberta", {"pad_token_id": None}),
    "bert-defaults": Dialect("tiny-bert", {"layer_norm_eps": None, "hidden_act": None, "type_vocab_size": None}),
    "distilbert-defaults": Dialect("tiny-distilbert", {"activation": None, "pad_token_id": None}),
    "distilbert-usual-names": Dialect(
        "tiny-distilbert",
        {
            **dict.fromkeys(("dim", "n_layers", "n_heads")),
            **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        },
    ),
    "qwen3-without-theta": Dialect("tiny-qwen3", {"rope_parameters": None}),
    "qwen3-rope-scaling": Dialect(
        "tiny-qwen3",
        {"rope_parameters": None, "rope_theta": 1e6, "rope_scaling": {**_DEFAULT_ROPE, "rope_theta": 50.0}},
    ),
    "qwen3-theta-beside": Dialect("tiny-qwen3", {"rope_parameters": _DEFAULT_ROPE, "rope_theta": 50.0}),
    "qwen3-theta-twice": Dialect(
        "tiny-qwen3", {"rope_parameters": {**_DEFAULT_ROPE, "rope_theta": 50.0}, "rope_theta": 1e6}
    ),
    **{
        f"qwen3-{name}": Dialect("tiny-qwen3", {"rope_parameters": scaled, "max_position_embeddings": 192})
        for name, scaled in _SCALED.items()
    },
    "qwen3-older-linear": Dialect(
        "tiny-qwen3", {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.5}}
    ),
    "qwen3-yarn-without-original": Dialect(
        "tiny-qwen3",
        {
            "rope_parameters": {"type": "yarn", "factor": 4.0},
            "rope_theta": 500.0,
            "max_position_embeddings": 128,
        },
    ),
    "gemma3-linear": Dialect(
        "tiny-gemma3",
        {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    "gemma3-scaled-types": Dialect(
        "tiny-gemma3", {"rope_parameters": {"full_attention": _YARN, "sliding_attention": _LLAMA3}}
    ),
    "gemma3-without-thetas": Dialect("tiny-gemma3", {"rope_parameters": None}),
    "gemma3-mixed-thetas": Dialect(
        "tiny-gemma3",
        {
            "rope_parameters": {"full_attention": {**_DEFAULT_ROPE, "rope_theta": 70.0}},
            "rope_local_base_freq": 50.0,
        },
    ),
    "gemma3-rope-scaling": Dialect(
        "tiny-gemma3", {"rope_parameters": None, "rope_scaling": {**_DEFAULT_ROPE, "rope_theta": 70.0}}
    ),
    "gemma3-default-pattern": Dialect("tiny-gemma3", {"layer_types": None, "_sliding_window_pattern": None}),
    "gemma3-types-before-pattern": Dialect("tiny-gemma3", {"sliding_window_pattern": 6}),
    "older-transformer-file": Dialect(
        "tiny-bert", files={"sentence_bert_config.json": None, "sentence_roberta_config.json": {"max_seq_length": 8}}
    ),
    "first-transformer-file-that-says-something": Dialect(
        "tiny-bert",
        files={
            "sentence_bert_config.json": {},
            "sentence_xlnet_config.json": {"max_seq_length": 4},
            "sentence_xlm-roberta_config.json": {"max_seq_length": 8, "do_lower_case": True},
        },
    ),
    "truncate-dim": Dialect(
        "tiny-bert", files={"config_sentence_transformers.json": {"truncate_dim": 16, "prompts": {}}}
    ),
    "pooling-mode-before-flags": Dialect(
        "tiny-bert",
        files={
            "1_Pooling/config.json": {
                "word_embedding_dimension": 64,
                "pooling_mode": "cls",
                "pooling_mode_mean_tokens": True,
            }
        },
    ),
    "stale-index": Dialect("tiny-bert", stale_index=True),
}
