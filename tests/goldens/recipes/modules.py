"""Small BERT models with every module that may follow the encoder; sizes are those of the tokenizer of tiny-bert."""

from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Router,
)
from transformers import BertConfig, RobertaConfig

from tests.goldens.make_models import Recipe

_PROMPTS = {"query": "query: the ledger of ", "document": ""}


def _encoder() -> BertConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(vocab_size=615, max_position_embeddings=128, **sizes)


def _random(module: Any) -> Any:
    """Change all parameters, so that leaving one out shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def _pooled(size: int) -> list[Any]:
    """Return all pooling modes side by side, without the prompt, and a module of each kind after them."""
    modes = ("weightedmean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens", "mean")
    pooling = Pooling(size, modes, include_prompt=False)
    wide = size * len(modes)
    return [
        pooling,
        _random(LayerNorm(wide)),
        _random(Dense(wide, 32, activation_function=torch.nn.GELU(), use_residual=True)),
        Dropout(0.5),
        Normalize(),
        _random(Dense(32, 32, bias=False, activation_function=torch.nn.Softsign(), use_residual=True)),
        Normalize(),
    ]


def _routed(size: int) -> list[Any]:
    """Return a Router whose routes have a layer of their own each and one in common, as in asymmetric models."""
    shared = _random(Dense(size, 24))
    router = Router.for_query_document(
        query_modules=[_random(Dense(size, size, activation_function=torch.nn.SiLU())), shared],
        document_modules=[shared, _random(LayerNorm(24))],
    )
    return [Pooling(size, "mean"), router, Normalize()]


MODELS = {
    "tiny-bert-modules": Recipe(_encoder(), "", prompts=_PROMPTS, modules=_pooled),
    "tiny-bert-routes": Recipe(_encoder(), "", prompts=_PROMPTS, modules=_routed),
    "tiny-roberta-prompt": Recipe(
        RobertaConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=129,
            type_vocab_size=1,
            pad_token_id=0,
        ),
        "",
        prompts=_PROMPTS,
        modules=lambda size: [Pooling(size, ("mean", "cls"), include_prompt=False)],
    ),
}
