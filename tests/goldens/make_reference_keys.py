"""Store all model types of transformers, and the keys and defaults of its configurations and the reference's modules.

Run with sentence-transformers installed: python tests/goldens/make_reference_keys.py
"""

import inspect
import json
from pathlib import Path

import sentence_transformers
import transformers
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import CONFIG_MAPPING, AutoConfig

MODEL_TYPES = (
    *("bert", "distilbert", "roberta", "xlm-roberta", "modernbert", "mpnet", "nomic_bert", "gte"),
    *("qwen2", "qwen3", "llama", "mistral", "ministral3", "eurobert"),
    *("gemma3_text", "embedding_gemma2", "embedding_gemma2_text"),
)


def parameters(module: type) -> set[str]:
    return set(inspect.signature(module).parameters) | set(module.config_keys)


def model_keys(model: type) -> set[str]:
    return set(model(modules=[Normalize()], device="cpu")._get_model_config())


keys = {
    "versions": {"transformers": transformers.__version__, "sentence_transformers": sentence_transformers.__version__},
    "config.json": {kind: AutoConfig.for_model(kind).to_dict() for kind in MODEL_TYPES},
    "sentence_bert_config.json": sorted(parameters(Transformer) - {"model_name_or_path"}),
    "1_Pooling/config.json": sorted(parameters(Pooling) | set(Pooling.config_key_renames)),
    "2_Dense/config.json": sorted(parameters(Dense) - {"init_weight", "init_bias"}),
    "3_Normalize/config.json": sorted(parameters(Normalize)),
    "config_sentence_transformers.json": sorted({*model_keys(SentenceTransformer), "truncate_dim", "requirements"}),
    "SpladePooling": sorted(parameters(SpladePooling) | set(SpladePooling.config_key_renames)),
    "SparseStaticEmbedding": sorted(parameters(SparseStaticEmbedding) - {"tokenizer", "weight"}),
    "MultiVectorMask": sorted(parameters(MultiVectorMask)),
    "SparseEncoder": sorted({*model_keys(SparseEncoder), "max_active_dims", "requirements"}),
    "MultiVectorEncoder": sorted({*model_keys(MultiVectorEncoder), "requirements"}),
}
(Path(__file__).parent / "reference_keys.json").write_text(json.dumps(keys, indent=1, sort_keys=True) + "\n")
(Path(__file__).parent / "model_types.json").write_text(json.dumps(sorted(CONFIG_MAPPING), indent=1) + "\n")
print(keys["versions"])
