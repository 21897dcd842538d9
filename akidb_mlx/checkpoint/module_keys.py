"""The keys of sentence-transformers' files.

Collected from the modules of sentence-transformers 6.2 and of earlier versions.
"""

from __future__ import annotations

from akidb_mlx.checkpoint.known_keys import KnownKeys, harmless, honoured, only

# The configuration of the Transformer module: the first of these files that is there and not empty.
TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

TRANSFORMER_KEYS = KnownKeys(
    honoured=honoured(
        "max_seq_length do_lower_case modality_config model_args model_kwargs tokenizer_args processor_kwargs "
        "config_args config_kwargs"
    ),
    only={
        **only("transformer_task", *(None, "feature-extraction"), reason="only an encoder's token vectors are pooled"),
        **only("module_output_name", *(None, "token_embeddings"), reason="only an encoder's token vectors are pooled"),
        **only("processing_kwargs", *(None, {}), reason="texts are tokenised in the usual way only"),
        **only("query_length document_length", None, reason="queries and documents have the same limit here"),
        **only("query_expansion", None, reason="it belongs to a multi-vector model (ColBERT)"),
        **only("tokenizer_name_or_path", None, reason="the tokenizer is read from the model's own files"),
    },
    harmless=harmless("unpad_inputs cache_dir backend", reason="chooses an implementation or a place"),
)
# The keys of modality_config.text, of the objects that are passed on to transformers, and of their old names.
TEXT_MODALITY_KEYS = KnownKeys(
    honoured=frozenset(),
    only={
        **only("method", "forward", reason="only an encoder's token vectors are pooled"),
        **only("method_output_name", "last_hidden_state", reason="only an encoder's last token vectors are pooled"),
    },
)
LOADING_ARGUMENTS = KnownKeys(
    honoured=frozenset(),
    harmless=harmless(
        "torch_dtype dtype attn_implementation add_pooling_layer trust_remote_code low_cpu_mem_usage device_map "
        "use_safetensors cache_dir use_fast padding_side",
        reason="chooses an implementation",
    ),
)

_MODEL_HARMLESS = {
    **harmless("__version__ requirements", reason="tells which versions wrote the model"),
    **harmless("similarity_fn_name", reason="is used to compare vectors, not to compute them"),
}
MODEL_KEYS = KnownKeys(
    honoured=honoured("prompts default_prompt_name truncate_dim"),
    only=only(
        "model_type",
        *(None, "SentenceTransformer"),
        reason="sparse and multi-vector models and cross-encoders (rerankers: use akidb_mlx.Reranker) do not give one "
        "vector for a text",
    )
    | only(
        "activation_fn keep_in_fp32_modules",
        None,
        reason="it belongs to a cross-encoder (reranker): use akidb_mlx.Reranker",
    ),
    harmless=_MODEL_HARMLESS,
)
# The same files of a SparseEncoder.
SPARSE_MODEL_KEYS = KnownKeys(
    honoured=honoured("prompts max_active_dims similarity_fn_name"),
    only=only("model_type", "SparseEncoder", reason="it is not a sparse model"),
    harmless=harmless("__version__ requirements", reason="tells which versions wrote the model")
    | harmless("default_prompt_name", reason="queries and documents have prompts of their own"),
)
SPARSE_TRANSFORMER_KEYS = KnownKeys(
    honoured=TRANSFORMER_KEYS.honoured | honoured("transformer_task"),
    only={key: rule for key, rule in TRANSFORMER_KEYS.only.items() if key != "transformer_task"},
    harmless=TRANSFORMER_KEYS.harmless,
)
LOGITS_MODALITY_KEYS = KnownKeys(
    honoured=frozenset(),
    only={
        **only("method", "forward", reason="only the logits of masked words are pooled"),
        **only("method_output_name", "logits", reason="only the logits of masked words are pooled"),
    },
)
SPLADE_KEYS = KnownKeys(
    honoured=honoured("pooling_strategy activation_function"),
    harmless=harmless("word_embedding_dimension embedding_dimension", reason="the size is read from the weights")
    | harmless("chunk_size", reason="chooses an implementation"),
)
STATIC_SPARSE_KEYS = KnownKeys(
    honoured=frozenset(),
    only=only("path", *(None, ""), reason="weights are read from model.safetensors only"),
    harmless=harmless("frozen", reason="is for training"),
)

# The same files of a MultiVectorEncoder, and of PyLate's ColBERT.
MULTI_VECTOR_MODEL_KEYS = KnownKeys(
    honoured=honoured(
        "prompts similarity_fn_name query_prefix document_prefix query_length document_length query_expansion "
        "do_query_expansion attend_to_expansion_tokens attend_to_mask_tokens skiplist_words"
    ),
    only=only("model_type", *(None, "MultiVectorEncoder", "ColBERT"), reason="it is not a multi-vector model"),
    harmless=harmless("__version__ requirements", reason="tells which versions wrote the model")
    | harmless("default_prompt_name", reason="queries and documents have prompts of their own"),
)
_LENGTHS = ("query_length", "document_length", "query_expansion")
MULTI_VECTOR_TRANSFORMER_KEYS = KnownKeys(
    honoured=TRANSFORMER_KEYS.honoured | frozenset(_LENGTHS),
    only={key: rule for key, rule in TRANSFORMER_KEYS.only.items() if key not in _LENGTHS},
    harmless=TRANSFORMER_KEYS.harmless,
)
EXPANSION_KEYS = KnownKeys(honoured=honoured("strategy attend token length"))
MASK_KEYS = KnownKeys(
    honoured=honoured("skiplist_words skiplist_tasks"),
    only=only("keep_only_token_ids", None, reason="it belongs to a model of images"),
)

# The same files of a CrossEncoder.
RERANKER_MODEL_KEYS = KnownKeys(
    honoured=honoured("prompts default_prompt_name activation_fn"),
    only=only("model_type", "CrossEncoder", reason="it is not a reranker"),
    harmless=_MODEL_HARMLESS | harmless("keep_in_fp32_modules", reason="chooses a precision"),
)
RERANKER_TRANSFORMER_KEYS = KnownKeys(
    honoured=TRANSFORMER_KEYS.honoured | honoured("transformer_task processing_kwargs module_output_name"),
    only={key: rule for key, rule in TRANSFORMER_KEYS.only.items() if key.startswith(("query_", "document_", "token"))},
    harmless=TRANSFORMER_KEYS.harmless,
)
RERANKER_MODALITY_KEYS = KnownKeys(
    honoured=honoured("format"),
    only=only("method", "forward", reason="a reranker's logits are read")
    | only("method_output_name", "logits", reason="a reranker's logits are read"),
)
PROCESSING_KEYS = KnownKeys(honoured=honoured("chat_template"))
LOGIT_SCORE_KEYS = KnownKeys(
    honoured=honoured("true_token_id false_token_id"),
    only=only("module_input_name", *(None, "causal_logits"), reason="the score is made of a language model's logits"),
)

MODULE_KEYS = KnownKeys(
    honoured=honoured("type path"),
    only=only("kwargs", *(None, []), reason="modules that take arguments with each call are not supported"),
    harmless=harmless("idx name", reason="modules are applied in the order in which they are listed"),
)

# The pooling modes of sentence-transformers, in its older files (a flag each) and in its newer ones (a name).
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLING_KEYS = KnownKeys(
    honoured=frozenset({"pooling_mode", "include_prompt", *POOLING_FLAGS}),
    harmless=harmless("word_embedding_dimension embedding_dimension", reason="the size is read from config.json"),
)

_SENTENCE_ONLY = only(
    "module_input_name module_output_name",
    *(None, "sentence_embedding"),
    reason="only the vector of the whole text is supported",
)
DENSE_KEYS = KnownKeys(
    honoured=honoured("out_features bias activation_function use_residual"),
    only=_SENTENCE_ONLY,
    harmless=harmless("in_features", reason="the size is read from the weights"),
)
# The same file of the module that makes a reranker's scores.
SCORE_DENSE_KEYS = KnownKeys(
    honoured=DENSE_KEYS.honoured,
    only={**DENSE_KEYS.only, **only("module_output_name", "scores", reason="this module makes the scores")},
    harmless=DENSE_KEYS.harmless,
)
_TOKENS_ONLY = "the vectors of tokens are supported in a multi-vector model"
TOKEN_DENSE_KEYS = KnownKeys(
    honoured=DENSE_KEYS.honoured,
    only=only("module_input_name module_output_name", *(None, "token_embeddings"), reason=_TOKENS_ONLY),
    harmless=DENSE_KEYS.harmless,
)
TOKEN_NORMALIZE_KEYS = KnownKeys(
    honoured=honoured("module_input_name"),
    only=only("module_output_name", *(None, "token_embeddings"), reason=_TOKENS_ONLY),
)
NORMALIZE_KEYS = KnownKeys(honoured=frozenset(), only=_SENTENCE_ONLY)
LAYER_NORM_KEYS = KnownKeys(
    honoured=frozenset(), harmless=harmless("dimension", reason="the size is read from the weights")
)
DROPOUT_KEYS = KnownKeys(honoured=frozenset(), harmless=harmless("dropout", reason="is for training"))

ROUTER_KEYS = KnownKeys(honoured=honoured("types structure parameters"))
ROUTER_PARAMETER_KEYS = KnownKeys(honoured=honoured("default_route allow_empty_key route_mappings"))
