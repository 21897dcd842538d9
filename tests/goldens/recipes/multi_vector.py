"""Tiny multi-vector models, and their vectors by MultiVectorEncoder; sizes are those of the tokenizer of tiny-bert."""

import json
import shutil
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import AutoModel, BertConfig, ModernBertConfig, RobertaConfig

HERE = Path(__file__).parent.parent
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_MARKERS = {"query": "[Q] ", "document": "[D] "}
_TOKENS = "token_embeddings"


@dataclass(frozen=True)
class MultiVector:
    """A tiny encoder and the modules after it.

    Attributes:
        config: the transformers configuration.
        modules: makes the modules after the Transformer; None where `change` writes them.
        lengths: arguments of the Transformer module.
        prompts: its prompts.
        similarity: the function that compares vectors.
        change: a last change of the directory, before its vectors are computed.
    """

    config: Any
    modules: Callable[[], list[Any]] | None = None
    lengths: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    similarity: str | None = None
    change: Callable[[Path], None] | None = None

    def make(self, name: str) -> None:
        """Write the model's directory and its vectors."""
        torch.manual_seed(7)
        torch.set_num_threads(1)
        model = AutoModel.from_config(self.config).float()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        out = HERE / name
        shutil.rmtree(out, ignore_errors=True)
        model.save_pretrained(out)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(HERE / "tiny-bert" / file, out)
        _edit(out / "tokenizer_config.json", model_max_length=100)
        if self.modules is not None:
            modules = [Transformer(str(out), **self.lengths), *self.modules()]
            MultiVectorEncoder(
                modules=modules, prompts=self.prompts, similarity_fn_name=self.similarity, device="cpu"
            ).save_pretrained(str(out), create_model_card=False)
        if self.change is not None:
            self.change(out)
        reference = MultiVectorEncoder(str(out), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})
        texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))["texts"]
        arrays = {}
        for role, encode in (("query", reference.encode_query), ("document", reference.encode_document)):
            vectors = [encode([text], convert_to_numpy=True)[0] for text in texts]
            arrays[role] = np.concatenate(vectors).astype(np.float32)
            arrays[f"{role}_offsets"] = np.cumsum([0, *map(len, vectors)])
        queries, documents = reference.encode_query(texts[:5]), reference.encode_document(texts[5:9])
        arrays["similarity"] = reference.similarity(queries, documents).numpy()
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        print(name, {key: array.shape for key, array in arrays.items()})


def _edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(content | changes, indent=2, ensure_ascii=False), encoding="utf-8")


def _dense(inputs: int, outputs: int, **options: Any) -> Dense:
    options = {"bias": False, "activation_function": torch.nn.Identity(), "module_input_name": _TOKENS} | options
    return Dense(inputs, outputs, **options)


def _classic() -> list[Any]:
    return [_dense(32, 16), MultiVectorMask(list(string.punctuation)), Normalize(_TOKENS)]


def _deep() -> list[Any]:
    mask = MultiVectorMask(["the", ".", "no such token"], skiplist_tasks=["query", "document"])
    first = _dense(32, 32, bias=True, activation_function=torch.nn.SiLU(), use_residual=True)
    return [first, _dense(32, 16, use_residual=True), Normalize(_TOKENS), mask]


def _as_pylate(out: Path) -> None:
    """Write the files of PyLate's layout, with markers as tokens of their own that are normalised."""
    tokenizer = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    tokenizer["added_tokens"] += [
        {"id": 615 + number, "content": marker, **flags} for number, marker in enumerate(_MARKERS.values())
    ]
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    modules = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    (out / "modules.json").write_text(json.dumps(listed, indent=2), encoding="utf-8")
    _edit(out / "sentence_bert_config.json", max_seq_length=59, do_lower_case=False)
    _edit(
        out / "config_sentence_transformers.json",
        model_type="ColBERT",
        prompts={},
        default_prompt_name=None,
        similarity_fn_name="MaxSim",
        query_prefix="[Q] ",
        document_prefix="[D] ",
        query_length=20,
        document_length=60,
        attend_to_expansion_tokens=False,
        do_query_expansion=True,
        skiplist_words=list(string.punctuation),
    )
    (out / "1_Dense").mkdir()
    identity = "torch.nn.modules.linear.Identity"
    _edit(out / "1_Dense/config.json", in_features=32, out_features=16, bias=False, activation_function=identity)
    save_file({"linear.weight": torch.randn(16, 32) * 0.2}, out / "1_Dense/model.safetensors")


def _as_colbert(out: Path) -> None:
    """Write the files of ColBERT's own program, whose markers are unused tokens of the vocabulary."""
    tokenizer = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    for marker in ("[unused0]", "[unused1]"):
        vocabulary[marker] = len(vocabulary)
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    _edit(out / "config.json", architectures=["HF_ColBERT"])
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(out / "model.safetensors").items()}
    save_file(tensors | {"linear.weight": torch.randn(16, 32) * 0.2}, out / "model.safetensors", {"format": "pt"})
    _edit(out / "artifact.metadata", query_maxlen=16, doc_maxlen=50, mask_punctuation=True, dim=16, nway=2)


def _bert(vocabulary: int) -> BertConfig:
    return BertConfig(vocab_size=vocabulary, max_position_embeddings=128, **_SIZES)


MODELS = {
    "colbert-bert": MultiVector(
        _bert(615),
        _classic,
        {"document_length": 60, "query_expansion": {"strategy": "fixed", "attend": False, "length": 24}},
        _MARKERS,
    ),
    "colbert-modernbert": MultiVector(
        ModernBertConfig(vocab_size=615, **_SIZES, max_position_embeddings=128, local_attention=64, pad_token_id=0),
        _deep,
        {"query_length": 40, "query_expansion": {"strategy": "min", "attend": True, "length": 12, "token": "[SEP]"}},
        {"query": "query: ", "document": ""},
        "meanmaxsim",
    ),
    "colbert-modernbert-min": MultiVector(
        ModernBertConfig(vocab_size=615, **_SIZES, max_position_embeddings=128, local_attention=64, pad_token_id=0),
        _classic,
        {"query_expansion": {"strategy": "min", "attend": False, "length": 30}},
    ),
    "colbert-roberta": MultiVector(
        RobertaConfig(vocab_size=615, **_SIZES, max_position_embeddings=131, type_vocab_size=1, pad_token_id=0),
        lambda: [_dense(32, 16, bias=True), MultiVectorMask()],
        {"query_length": 16},
    ),
    "colbert-roberta-expanded": MultiVector(
        RobertaConfig(vocab_size=615, **_SIZES, max_position_embeddings=131, type_vocab_size=1, pad_token_id=0),
        _classic,
        {"query_expansion": {"strategy": "fixed", "length": 20}},
    ),
    "colbert-pylate": MultiVector(_bert(617), change=_as_pylate),
    "colbert-stanford": MultiVector(_bert(617), change=_as_colbert),
}
