"""Small random static models, in each of the forms that model2vec and sentence-transformers write."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import GOLDENS

ROWS, SIZE = 615, 24  # the tokens of the tokenizer
PROMPTS = {"query": "query: ", "document": ""}


@dataclass(frozen=True)
class StaticForm:
    """One form.

    Attributes:
        tensors: those of model.safetensors.
        config: config.json of model2vec; None for a model of sentence-transformers.
        folder: the folder of the module, below the model directory.
        tokenizer: a change of the description in tokenizer.json.
    """

    tensors: dict[str, np.ndarray]
    config: dict[str, Any] | None = None
    folder: str = ""
    tokenizer: Callable[[dict[str, Any]], None] = field(default=lambda _description: None)

    @property
    def model2vec(self) -> bool:
        """Return whether model2vec is its reference."""
        return self.config is not None

    def make(self, directory: Path) -> Path:
        """Write the model."""
        from safetensors.numpy import save_file

        folder = directory / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, folder / "model.safetensors")
        description = json.loads((GOLDENS / "tiny-bert" / "tokenizer.json").read_text(encoding="utf-8"))
        self.tokenizer(description)
        write(folder / "tokenizer.json", description)
        path = self.folder or "."
        modules = [{"idx": 0, "name": "0", "path": path, "type": "sentence_transformers.models.StaticEmbedding"}]
        modules += [{"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"}]
        write(directory / "modules.json", modules)
        if self.config is not None:
            write(directory / "config.json", self.config)
        else:
            write(directory / "config_sentence_transformers.json", {"prompts": PROMPTS})
        return directory


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def model2vec(**changes: object) -> dict[str, Any]:
    """A config.json as model2vec writes it, with other keys."""
    return {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "tokenizer_name": "baai/bge-base-en-v1.5",
        "apply_pca": SIZE,
        "apply_zipf": None,
        "sif_coefficient": 0.0001,
        "hidden_dim": SIZE,
        "seq_length": 1000000,
        "normalize": True,
        "pooling": "mean",
        **changes,
    }


def truncation(limit: int, direction: str) -> Callable[[dict[str, Any]], None]:
    """A tokenizer that cuts."""
    found = {"max_length": limit, "strategy": "LongestFirst", "stride": 0, "direction": direction}
    return lambda description: description.update(truncation=found)


def padding(description: dict[str, Any]) -> None:
    """A tokenizer that pads, which both references turn off."""
    description["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }


def without_unknown_token(description: dict[str, Any]) -> None:
    """A Unigram vocabulary, whose unknown token has an id only."""
    names = sorted(description["model"]["vocab"], key=description["model"]["vocab"].__getitem__)
    pieces = [[name, -float(number)] for number, name in enumerate(names)]
    description["model"] = {"type": "Unigram", "unk_id": 1, "vocab": pieces, "byte_fallback": False}


def _forms() -> dict[str, StaticForm]:
    rng = np.random.default_rng(5)
    table = rng.standard_normal((ROWS, SIZE)).astype(np.float32)
    weights = rng.uniform(0.1, 2.0, ROWS).astype(np.float32)
    mapping = rng.integers(0, 90, ROWS)
    few = table[:90]
    packed = np.rint(table / np.abs(table).max() * 127).astype(np.int8)
    return {
        "float32": StaticForm({"embeddings": table}, model2vec()),
        "float64": StaticForm({"embeddings": table.astype(np.float64)}, model2vec(embedding_dtype="float64")),
        "float16": StaticForm({"embeddings": table.astype(np.float16)}, model2vec(embedding_dtype="float16")),
        "int8": StaticForm({"embeddings": packed}, model2vec(embedding_dtype="int8")),
        "weights": StaticForm({"embeddings": table, "weights": weights}, model2vec(), tokenizer=padding),
        "int8 weights": StaticForm({"embeddings": packed, "weights": weights}, model2vec(embedding_dtype="int8")),
        "mapping": StaticForm({"embeddings": few, "mapping": mapping}, model2vec(vocabulary_quantization=90)),
        "mapping int8 weights": StaticForm(
            {"embeddings": packed[:90], "mapping": mapping.astype(np.int32), "weights": weights.astype(np.float64)},
            model2vec(vocabulary_quantization=90, embedding_dtype="int8"),
        ),
        "short": StaticForm({"embeddings": table}, model2vec(max_length=7), tokenizer=truncation(3, "Left")),
        "unlimited": StaticForm({"embeddings": table}, model2vec(max_length=None, normalize=False)),
        "unigram": StaticForm({"embeddings": table}, model2vec(), tokenizer=without_unknown_token),
        "static": StaticForm({"embedding.weight": table}, tokenizer=padding),
        "static folder": StaticForm({"embedding.weight": table[::-1].copy()}, folder="0_StaticEmbedding"),
        "static float16": StaticForm({"embedding.weight": table.astype(np.float16)}),
        "static right": StaticForm({"embedding.weight": table}, tokenizer=truncation(9, "Right")),
        "static left": StaticForm({"embedding.weight": table}, tokenizer=truncation(9, "Left")),
        "static mapping": StaticForm({"embeddings": few, "mapping": mapping, "weights": weights}),
    }


FORMS = _forms()
