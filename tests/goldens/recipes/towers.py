"""Asymmetric models: a Router leads queries and documents to encoders of their own."""

from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from transformers import BertConfig, Qwen3Config

from tests.goldens.make_models import Recipe

_QUERY = Recipe(
    BertConfig(
        vocab_size=615,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    ),
    "mean",
    max_seq_length=20,
    modules=lambda size: [Pooling(size, "mean"), Dense(size, 32)],
)

MODELS = {
    "towers-bert-qwen3": Recipe(
        Qwen3Config(
            vocab_size=1024,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=48,
            max_position_embeddings=256,
        ),
        "lasttoken",
        donor="tiny-qwen3",
        prompts={"query": "query: ", "document": ""},
        query=_QUERY,
    ),
}
