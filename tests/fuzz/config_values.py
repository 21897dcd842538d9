"""The values that keys of a model's files may get.

`HARMLESS` ones change no vector, so a directory with them must load. The others may change vectors or be invalid: a
loader has to honour them or to refuse them. Keys and types are those of the configuration classes of transformers 5 and
sentence-transformers 6, and of files that older versions wrote.
"""

from typing import Any

from tests.fuzz.architectures import DECODERS

Values = dict[str, list[Any]]

_ACTIVATIONS = [
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh",
    "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu", "relu2",
    "relu6", "sigmoid", "silu", "swish", "tanh", "xielu", "GELU", "nonsense", None,
]  # fmt: skip
_SCALINGS = [
    None, {}, {"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "default"}, {"type": "default"},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 32},
    {"rope_type": "default", "rope_theta": 500.0}, {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"rope_type": "proportional", "partial_rotary_factor": 0.5},
]  # fmt: skip

_HARMLESS: Values = {
    "_name_or_path": ["", "someone/model"],
    "architectures": [["BertModel"], None],
    "bos_token_id": [None, 0, 2],
    "dtype": ["float32"],
    "eos_token_id": [None, 1, 2],
    "finetuning_task": [None, "mnli"],
    "gradient_checkpointing": [False, True],
    "id2label": [{"0": "LABEL_0"}],
    "initializer_range": [0.02, 0.1],
    "label2id": [{"LABEL_0": 0}],
    "output_past": [True],
    "torch_dtype": ["float32", "float16", "bfloat16"],
    "transformers_version": ["4.40.0", "5.23.0"],
    "use_cache": [True, False],
}
_HARMLESS_ENCODER: Values = {
    "attention_probs_dropout_prob": [0.0, 0.1],
    "classifier_dropout": [None, 0.1],
    "hidden_dropout_prob": [0.0, 0.1],
}
_HARMLESS_DISTILBERT: Values = {
    "attention_dropout": [0.0, 0.1],
    "dropout": [0.0, 0.1],
    "qa_dropout": [0.1],
    "seq_classif_dropout": [0.2],
}
_ANY_CONFIG: Values = {
    "add_cross_attention": [True, False],
    "attn_implementation": ["eager", "sdpa"],
    "auto_map": [{"AutoModel": "modeling.Model"}],
    "chunk_size_feed_forward": [0, 4],
    "cross_attention_hidden_size": [16],
    "dtype": ["float16", "bfloat16", "float64", "int8", None],
    "embedding_size": [8, 128],
    "is_causal": [True, False],
    "is_decoder": [True, False],
    "is_encoder_decoder": [True, False],
    "model_type": ["bert", "roberta", "camembert", "qwen2", "gemma2"],
    "output_attentions": [True],
    "output_hidden_states": [True],
    "pad_token_id": [0, 1, 3, 5, -1, None, 10**6],
    "position_embedding_type": ["absolute", "relative_key", "relative_key_query", "rotary"],
    "problem_type": ["regression", None],
    "prune_heads": [{"0": [0]}],
    "pruned_heads": [{"0": [0]}, {}],
    "quantization": [{"group_size": 32, "bits": 4}, None],
    "quantization_config": [{"quant_method": "bitsandbytes", "load_in_4bit": True}, None],
    "return_dict": [True, False],
    "sep_token_id": [None, 3],
    "tie_encoder_decoder": [True, False],
    "tie_word_embeddings": [True, False],
    "tokenizer_class": ["BertTokenizer", "RobertaTokenizer", "PreTrainedTokenizerFast", None],
    "use_bfloat16": [True],
    "use_return_dict": [False],
}
_ENCODER: Values = {
    "hidden_act": _ACTIVATIONS,
    "layer_norm_eps": [1e-12, 1e-5, 0.5, 0.0, "1e-5", None],
    "max_position_embeddings": [16, 512],
    "norm_type": ["rms", "pre"],
    "num_attention_heads": [1, 2, 4, 3],
    "num_hidden_layers": [0, 1, 2, 4],
    "rope_theta": [10000.0],
    "type_vocab_size": [0, 1, 2, 3],
}
_DISTILBERT: Values = {
    "activation": _ACTIVATIONS,
    "hidden_act": ["relu", "gelu"],
    "layer_norm_eps": [0.5],
    "n_heads": [1, 2, 4],
    "n_layers": [1, 2, 4],
    "num_attention_heads": [1, 2],
    "num_hidden_layers": [1, 2],
    "sinusoidal_pos_embds": [True, False],
    "type_vocab_size": [2],
}
_DECODER: Values = {
    "attention_bias": [True, False, None],
    "attention_multiplier": [0.5],
    "embedding_multiplier": [12.0],
    "head_dim": [8, 16, 128, None],
    "logit_scale": [0.1],
    "max_position_embeddings": [16, 32768],
    "mlp_bias": [True, False],
    "num_attention_heads": [1, 2, 4],
    "num_hidden_layers": [1, 2, 4],
    "num_key_value_heads": [1, 2, None],
    "partial_rotary_factor": [0.5, 1.0],
    "query_pre_attn_scalar": [1, 16, 256.0],
    "residual_multiplier": [0.5],
    "rms_norm_eps": [1e-5, 0.5, None],
    "rope_local_base_freq": [1000.0, 1e6],
    "rope_parameters": [*_SCALINGS, {"full_attention": {"rope_type": "default", "rope_theta": 700.0}}],
    "rope_scaling": _SCALINGS,
    "rope_theta": [100.0, 10000.0, None, "10000", 0],
    "rope_interleaved": [True],
    "use_bidirectional_attention": [True, False, None],
    "use_qk_norm": [False, True],
}
_SILU_DECODER: Values = {
    "hidden_act": _ACTIVATIONS,
    "layer_types": [["full_attention"] * 3, ["sliding_attention"] * 3, ["sliding_attention"], None],
    "max_window_layers": [0, 1, 28],
    "sliding_window": [4, 4096, None],
    "use_sliding_window": [True, False],
}
_GEMMA3: Values = {
    "_sliding_window_pattern": [1, 2, 6],
    "attn_logit_softcapping": [None, 5.0, 50.0],
    "final_logit_softcapping": [None, 30.0],
    "hidden_act": ["relu", "silu"],
    "hidden_activation": _ACTIVATIONS,
    "layer_types": [["full_attention"] * 3, ["sliding_attention", "full_attention"], ["chunked_attention"] * 2, None],
    "sliding_window": [1, 2, 4, 5, 4096, None],
    "sliding_window_pattern": [1, 2, 3, 6],
}


def harmless_config_values(architecture: str) -> Values:
    """Return values of config.json's keys that change no vector of an architecture."""
    if architecture == "distilbert":
        return _HARMLESS | _HARMLESS_DISTILBERT
    return _HARMLESS | ({"attention_dropout": [0.0, 0.1]} if architecture in DECODERS else _HARMLESS_ENCODER)


def config_values(architecture: str) -> Values:
    """Return values of config.json's keys that may change an architecture's vectors."""
    if architecture == "distilbert":
        return _ANY_CONFIG | _DISTILBERT
    if architecture not in DECODERS:
        return _ANY_CONFIG | _ENCODER
    return _ANY_CONFIG | _DECODER | (_GEMMA3 if architecture == "gemma3_text" else _SILU_DECODER)


HARMLESS_TOKENIZER_CONFIG: Values = {
    "clean_up_tokenization_spaces": [True, False],
    "errors": ["replace"],
    "name_or_path": ["someone/model"],
    "padding_side": ["left", "right"],
    "special_tokens_map_file": [None],
    "trim_offsets": [True],
    "use_fast": [True],
}
TOKENIZER_CONFIG: Values = {
    "add_bos_token": [True, False],
    "add_eos_token": [True, False],
    "add_prefix_space": [True, False, None],
    "additional_special_tokens": [["kept"], ["<extra>"], []],
    "bos_token": ["<s>", "[CLS]", None, "kept"],
    "cls_token": ["[SEP]", "<s>", {"content": "[CLS]", "lstrip": True, "rstrip": False}],
    "do_basic_tokenize": [True, False],
    "do_lower_case": [True, False, None],
    "eos_token": ["</s>", "kept", None, "<eos>"],
    "extra_special_tokens": [{"image_token": "<image>"}, ["kept"], {}],
    "image_token": ["kept"],
    "legacy": [True, False],
    "mask_token": ["kept", {"content": "[MASK]", "lstrip": True}, None],
    "max_length": [8],
    "max_len": [8],
    "model_max_length": [8, 20, 512, 10**30, None, 0, -1],
    "never_split": [["kept"], None],
    "pad_to_multiple_of": [8],
    "pad_token": ["[PAD]", "kept", None],
    "processor_class": ["BertProcessor", None],
    "sep_token": ["[CLS]", "kept", None],
    "split_special_tokens": [True, False],
    "stride": [0, 4],
    "strip_accents": [True, False, None],
    "tokenize_chinese_chars": [True, False],
    "tokenizer_class": [
        "BertTokenizer", "RobertaTokenizer", "XLMRobertaTokenizer", "Qwen2Tokenizer", "GemmaTokenizer",
        "GPT2TokenizerFast", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", "MyTokenizer", None,
    ],
    "truncation_side": ["left", "right"],
    "truncation": [True, "only_first"],
    "unk_token": ["[UNK]", "kept", None],
    "wordpieces_prefix": ["##", "@@"],
}  # fmt: skip

_SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
SPECIAL_TOKENS_MAP: Values = {
    "additional_special_tokens": [["kept"], ["<extra>"]],
    "cls_token": ["[CLS]", "<s>", "[SEP]"],
    "mask_token": [{"content": "[MASK]", **_SPECIAL, "lstrip": True}, "kept"],
    "pad_token": ["[PAD]", "<pad>", "kept"],
    "unk_token": ["[UNK]", "kept"],
}
ADDED_TOKENS: Values = {"kept": [3, 10, 10**6], "lonely token": [4], "[UNK]": [1]}

# Inside tokenizer.json, which is read by a class of transformers that may build these parts itself.
_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
TOKENIZER: Values = {
    "truncation": [
        None,
        {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
        {"direction": "Left", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
    ],
    "padding": [
        None,
        {"strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
         "pad_token": "[PAD]"},
        {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0,
         "pad_token": "[PAD]"},
    ],
    "normalizer": [
        None, {"type": "Lowercase"}, {"type": "NFKC"}, {"type": "StripAccents"}, {"type": "NFD"},
        {"type": "Prepend", "prepend": "▁"}, {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"String": "e"}, "content": "a"},
        {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": True,
         "lowercase": False},
    ],
    "pre_tokenizer": [
        None, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"}, _SPLIT,
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
    ],
    "decoder": [None, {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "ByteFallback"}],
}  # fmt: skip
TOKENIZER_MODEL: Values = {
    "byte_fallback": [True, False],
    "continuing_subword_prefix": ["##", "@@", None],
    "dropout": [None, 0.0, 0.5],
    "fuse_unk": [True, False],
    "ignore_merges": [True, False],
    "max_input_chars_per_word": [3, 100],
    "unk_id": [0, 3, None],
    "unk_token": ["[UNK]", "<unk>", None, "kept"],
}

HARMLESS_SENTENCE_TRANSFORMERS: Values = {
    "__version__": [{"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}],
    "default_prompt_name": [None],
    "model_type": ["SentenceTransformer"],
    "prompts": [{}, {"query": "the query: ", "document": "the ship: "}, {"query": "", "STS": "task: "}],
    "similarity_fn_name": ["cosine", "dot", "euclidean", None],
}
SENTENCE_TRANSFORMERS: Values = {
    "default_prompt_name": ["query", "absent", ""],
    "instruction": ["the ship: "],
    "model_type": ["CrossEncoder", "SparseEncoder", "MultiVectorEncoder"],
    "prompts": [{"passage": "the ship: "}, {"corpus": "ship "}, {"query": None}, {"query": 3}, None, "query: "],
    "query_prompt": ["the ship: "],
    "requirements": [{"transformers": "<1"}, {}],
    "similarity_fn_name": ["maxsim", "nonsense"],
    "truncate_dim": [4, 7, 10**6, None],
}
SENTENCE_BERT: Values = {
    "backend": ["onnx"],
    "config_args": [{"is_decoder": True}, {"sliding_window": 4}, {}],
    "config_kwargs": [{"is_decoder": True}, {"hidden_act": "relu"}],
    "do_lower_case": [True, False, None, 1],
    "document_length": [6],
    "max_length": [6],
    "max_seq_length": [3, 8, 30, 512, None, 0, "8"],
    "modality_config": [{"text": {"method": "forward", "method_output_name": "last_hidden_state"}}],
    "model_args": [{"torch_dtype": "float32"}, {"attn_implementation": "eager"}, {"is_decoder": True}, {}],
    "module_output_name": ["token_embeddings", "sentence_embedding"],
    "processing_kwargs": [{"text": {"add_special_tokens": False}}, {"text": {"max_length": 6}}, {}],
    "processor_kwargs": [{"model_max_length": 6}],
    "query_length": [6],
    "tokenizer_args": [{"model_max_length": 6}, {"do_lower_case": True}, {"truncation_side": "left"}],
    "transformer_task": ["feature-extraction", "fill-mask"],
    "unpad_inputs": [True, False],
}
_MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLING: Values = {
    "embedding_dimension": [7],
    "include_prompt": [True, False],
    "pooling_mode": [
        *_MODES, *([mode] for mode in _MODES), ["cls", "mean"], ["mean", "max"], [], "nonsense", None, ["mean", "mean"],
    ],
    "pooling_mode_cls_token": [True, False],
    "pooling_mode_lasttoken": [True, False],
    "pooling_mode_max_tokens": [True],
    "pooling_mode_mean_sqrt_len_tokens": [True],
    "pooling_mode_mean_tokens": [True, False, None, "false"],
    "pooling_mode_weightedmean_tokens": [True],
    "temperature": [2.0],
    "word_embedding_dimension": [7, None],
}  # fmt: skip

# Keys that nobody knows, in any file.
UNKNOWN: Values = {
    "attention_temperature": [2.0],
    "comment": ["made by hand", ""],
    "layer_scale": [0.5, None],
    "unknown_flag": [True, False],
}
