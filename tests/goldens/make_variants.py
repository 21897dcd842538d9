"""Make the tiny DistilBERT and RoBERTa models beside this file, and their vectors, with sentence-transformers.

Run with sentence-transformers installed: python tests/goldens/make_variants.py
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from transformers import DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

HERE = Path(__file__).parent
DONOR = HERE / "tiny-bert"
VOCABULARY = 615

torch.manual_seed(7)
variants = {
    "tiny-distilbert": (
        DistilBertModel(
            DistilBertConfig(
                vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=128
            )
        ),
        "mean",
    ),
    "tiny-roberta": (
        RobertaModel(
            RobertaConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=129,
                type_vocab_size=1,
                pad_token_id=0,
            )
        ),
        "cls",
    ),
}
texts = json.loads((HERE / "texts.json").read_text())["texts"]
for name, (model, pooling) in variants.items():
    with torch.no_grad():
        for parameter in model.parameters():  # random norms and biases too, so that none can be left out unnoticed
            parameter.add_(torch.randn_like(parameter) * 0.1)
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DONOR / file, out)
    transformer = Transformer(str(out), max_seq_length=128)
    st = SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_embedding_dimension(), pooling)], device="cpu"
    )
    st.save_pretrained(str(out), create_model_card=False)
    vectors = st.encode(texts, normalize_embeddings=True, batch_size=1)
    np.savez(HERE / f"{name}.npz", none=vectors.astype(np.float32))
    print(name, vectors.shape)
