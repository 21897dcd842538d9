"""Tiny sparse models, and their vectors by SparseEncoder; sizes are those of the tokenizer of tiny-bert."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    GteConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

HERE = Path(__file__).parent.parent
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_ROBERTA = _SIZES | {"max_position_embeddings": 131, "type_vocab_size": 1, "pad_token_id": 0}
_PROMPTS = {"query": "query: ", "document": "a document: "}


@dataclass(frozen=True)
class Sparse:
    """A tiny model of masked words and its pooling.

    Attributes:
        config: the transformers configuration.
        pooling: arguments of SpladePooling; None for a model without sentence-transformers' files.
        prompts: its prompts.
        options: further arguments of SparseEncoder.
        static: whether queries are weighed by a table.
        change: changes the model before it is saved.
    """

    config: Any
    pooling: dict[str, str] | None = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    static: bool = False
    change: Callable[[Any], None] | None = None

    def make(self, name: str) -> None:
        """Write the model's directory and its vectors."""
        torch.manual_seed(7)
        torch.set_num_threads(1)
        model = AutoModelForMaskedLM.from_config(self.config).float()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
            if (bias := model.get_output_embeddings().bias) is not None:
                bias.sub_(1.5)  # so that most weights are zero
        if self.change is not None:
            self.change(model)
        out = HERE / name
        shutil.rmtree(out, ignore_errors=True)
        model.save_pretrained(out)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(HERE / "tiny-bert" / file, out)
        settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings["model_max_length"] = 128
        (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        if self.pooling is not None:
            modules: list[Any] = [Transformer(str(out), transformer_task="fill-mask"), SpladePooling(**self.pooling)]
            if self.static:
                tokenizer = AutoTokenizer.from_pretrained(str(out))
                weights = torch.rand(len(tokenizer.get_vocab())) * 5
                weights[::7] = 0
                query = SparseStaticEmbedding(tokenizer, weight=weights)
                modules = [Router.for_query_document([query], modules, default_route="document")]
            made = SparseEncoder(modules=modules, prompts=self.prompts, device="cpu", **self.options)
            if self.static:
                shutil.rmtree(out)
            made.save_pretrained(str(out), create_model_card=False)
        reference = SparseEncoder(str(out), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})
        texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))["texts"]
        # A text without tokens is an error in a table of weights.
        chosen = [i for i, text in enumerate(texts) if not self.static or reference.tokenizer.tokenize(text)]
        texts = [texts[i] for i in chosen]
        arrays = {"texts": np.array(chosen, np.int32)}
        roles = {"query": reference.encode_query, "document": reference.encode_document}
        for role, encode in roles.items():
            dense = encode(texts, batch_size=1, convert_to_sparse_tensor=False).numpy().astype(np.float32)
            rows, arrays[f"{role}_indices"] = (part.astype(np.int32) for part in np.nonzero(dense))
            arrays[f"{role}_values"] = dense[dense != 0]
            arrays[f"{role}_offsets"] = np.searchsorted(rows, np.arange(len(texts) + 1))
        queries, documents = roles["query"](texts[:5]), roles["document"](texts[5:9])
        arrays["similarity"] = reference.similarity(queries, documents).numpy()
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        print(name, {key: array.shape for key, array in arrays.items()})


def _untie(model: Any) -> None:
    """Give the output layer a weight and a bias of its own."""
    output = model.get_output_embeddings()
    output.weight = torch.nn.Parameter(torch.randn_like(output.weight) * 0.3)
    output.bias = torch.nn.Parameter(torch.randn_like(output.bias) * 0.3 - 1)


MODELS = {
    "sparse-bert": Sparse(BertConfig(vocab_size=615, max_position_embeddings=128, **_SIZES), prompts=_PROMPTS),
    "sparse-bert-untied": Sparse(
        BertConfig(
            vocab_size=615,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=128,
            hidden_act="gelu_new",
            tie_word_embeddings=False,
        ),
        {"pooling_strategy": "sum"},
        options={"max_active_dims": 24, "similarity_fn_name": "cosine"},
        change=_untie,
    ),
    "sparse-bert-plain": Sparse(BertConfig(vocab_size=615, max_position_embeddings=128, **_SIZES), None),
    "sparse-distilbert": Sparse(
        DistilBertConfig(vocab_size=615, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=128),
        {"activation_function": "log1p_relu"},
    ),
    "sparse-distilbert-static": Sparse(
        DistilBertConfig(vocab_size=615, dim=32, n_layers=1, n_heads=4, hidden_dim=48, max_position_embeddings=128),
        {"activation_function": "log1p_relu"},
        static=True,
    ),
    "sparse-roberta": Sparse(RobertaConfig(vocab_size=615, **_ROBERTA)),
    "sparse-mpnet": Sparse(MPNetConfig(vocab_size=615, **_SIZES, max_position_embeddings=131)),
    "sparse-modernbert": Sparse(
        ModernBertConfig(
            vocab_size=615,
            **_SIZES,
            max_position_embeddings=128,
            local_attention=32,
            norm_bias=True,
            classifier_bias=True,
            decoder_bias=True,
            pad_token_id=0,
        ),
        {"pooling_strategy": "sum", "activation_function": "log1p_relu"},
    ),
    "sparse-modernbert-bare": Sparse(
        ModernBertConfig(vocab_size=615, **_SIZES, max_position_embeddings=128, decoder_bias=False, pad_token_id=0),
    ),
    "sparse-gte": Sparse(GteConfig(vocab_size=615, **_SIZES, max_position_embeddings=128, pad_token_id=0)),
}
