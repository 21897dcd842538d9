"""DistilBERT and RoBERTa; sizes are those of the tokenizer of tiny-bert."""

from transformers import DistilBertConfig, RobertaConfig

from tests.goldens.make_models import Recipe

MODELS = {
    "tiny-distilbert": Recipe(
        DistilBertConfig(vocab_size=615, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=128),
        "mean",
    ),
    "tiny-roberta": Recipe(
        RobertaConfig(
            vocab_size=615,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=129,
            type_vocab_size=1,
            pad_token_id=0,
        ),
        "cls",
    ),
}
