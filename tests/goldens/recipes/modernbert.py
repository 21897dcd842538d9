"""ModernBERT with windows that are smaller than the texts; sizes are those of the tokenizer of tiny-bert."""

from typing import Any

from transformers import ModernBertConfig

from tests.goldens.make_models import Recipe

_TOKENS: dict[str, Any] = dict.fromkeys(
    ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0
)

MODELS = {
    # Its last layer has a window.
    "tiny-modernbert": Recipe(
        ModernBertConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=128,
            local_attention=16,
            **_TOKENS,
        ),
        "cls",
    ),
    "tiny-modernbert-biases": Recipe(
        ModernBertConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=256,
            hidden_activation="silu",
            norm_eps=1e-3,
            norm_bias=True,
            attention_bias=True,
            mlp_bias=True,
            local_attention=9,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 3000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
            **_TOKENS,
        ),
        "mean",
        max_seq_length=200,
    ),
}
