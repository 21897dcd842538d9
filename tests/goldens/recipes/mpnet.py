"""MPNet with texts that reach beyond its farthest bucket; sizes are those of the tokenizer of tiny-bert.

The donor's token of id 1 is one that MPNet does not count, since it takes it for padding.
"""

from transformers import MPNetConfig

from tests.goldens.make_models import Recipe

MODELS = {
    "tiny-mpnet": Recipe(
        MPNetConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=322,
            layer_norm_eps=1e-5,
        ),
        "mean",
        max_seq_length=320,
        # Wide enough for attention that is far from uniform, so that every bucket shows.
        scale=0.3,
    ),
    "tiny-mpnet-cls": Recipe(
        MPNetConfig(
            vocab_size=615,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=64,
            hidden_act="relu",
            max_position_embeddings=130,
            relative_attention_num_buckets=40,
        ),
        "cls",
        scale=0.3,
    ),
}
