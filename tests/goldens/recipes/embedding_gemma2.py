"""EmbeddingGemma 2: the whole model without its towers for images and sounds, and the text tower alone."""

from __future__ import annotations

from pathlib import Path

from transformers import EmbeddingGemma2Config, EmbeddingGemma2TextConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from tests.goldens.make_models import Recipe

# The files that process images and sounds are left out, so the tokenizer alone processes texts.
PROCESSOR_MAPPING_NAMES.pop("embedding_gemma2", None)
PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}
# Common tokens of the texts (two marks and a word) stand for images and sounds, so that reading them as padding shows.
PLACEHOLDERS = {"image_token_id": 15, "video_token_id": 17, "audio_token_id": 205}
LAYER_TYPES = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]


def make_realistic(directory: Path) -> None:
    """Scale layers and queries as training does; the recipe's noise leaves out the layers' scalars, which are buffers.

    No score is scaled in this model. With weights of 1, the scores would be so large that half a precision showed.
    """
    from safetensors.numpy import load_file, save_file

    path = directory / "model.safetensors"
    tensors = load_file(path)
    scalars = sorted(name for name in tensors if name.endswith("layer_scalar"))
    for number, name in enumerate(scalars):
        tensors[name] = tensors[name] * (0.7 + 0.2 * number)
    for name in tensors:
        if name.endswith("q_norm.weight"):
            tensors[name] = tensors[name] * 0.25
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


MODELS = {
    "tiny-embedding-gemma2": Recipe(
        EmbeddingGemma2Config(
            text_config={
                "vocab_size": 615,
                "hidden_size": 24,
                "intermediate_size": 48,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "global_head_dim": 16,
                "num_global_key_value_heads": 1,
                "layer_types": LAYER_TYPES,
                "sliding_window": 8,
                "hidden_size_per_layer_input": 12,
                "embedding_dim": 24,
                "max_position_embeddings": 256,
            },
            **PLACEHOLDERS,
        ),
        "mean",
        max_seq_length=256,
        prompts=PROMPTS,
        change=make_realistic,
    ),
    "tiny-embedding-gemma2-text": Recipe(
        EmbeddingGemma2TextConfig(
            vocab_size=615,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=12,
            global_head_dim=20,
            num_global_key_value_heads=2,
            sliding_window_pattern=2,
            sliding_window=3,
            hidden_size_per_layer_input=16,
            embedding_dim=40,
            attention_bias=True,
            rms_norm_eps=1e-3,
            max_position_embeddings=128,
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
                "full_attention": {"rope_type": "default", "rope_theta": 20000.0},
            },
        ),
        "mean",
        prompts=PROMPTS,
        change=make_realistic,
    ),
}
