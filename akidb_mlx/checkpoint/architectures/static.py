"""Static models: a table of token vectors, whose mean over a text's tokens is the text's vector.

model2vec writes them with a config.json of its own; sentence-transformers has them as the module StaticEmbedding.
"""

from __future__ import annotations

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.config import EncoderConfig
from akidb_mlx.checkpoint.known_keys import KnownKeys, harmless, honoured, only

# The record of models without a config.json that an encoder of this package would read: static ones, GGUF files.
BARE = Architecture(encoder="", config=EncoderConfig, only={}, harmless={}, pooling="mean")

# The keys of model2vec's config.json, in version 0.10 and earlier ones.
MODEL2VEC_KEYS = KnownKeys(
    honoured=honoured("model_type max_length"),
    only=only("head_config", None, reason="it belongs to a classifier, which is not an embedding model"),
    harmless={
        **harmless("normalize", reason="each call says whether vectors are normalised"),
        **harmless("embedding_dtype vocabulary_quantization", reason="are read from the weights"),
        **harmless(
            "architectures tokenizer_name base_model_name language hidden_dim seq_length pooling apply_pca apply_zipf "
            "sif_coefficient",
            reason="tells how the table was made",
        ),
    },
)
