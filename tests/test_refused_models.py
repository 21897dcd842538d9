"""Models that are something else than an embedding model, or that ask for what is not done: refused by name."""

import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.errors import ModelLoadError, ModelNotFoundError
from model_cache import files
from model_cache.kinds import EMBEDDING
from tests.support import GOLDENS, TEXTS, copy_model, edit_json, edit_tensors, golden


def load(directory, **settings):
    return EmbeddingService(str(directory), device="cpu", settings=Settings(**settings))


def refusal(directory, **settings):
    """The message that a model is refused with."""
    with pytest.raises(ModelLoadError) as caught:
        load(directory, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def add(directory, *names, shape=(4, 64)):
    more = {name: np.ones(shape, np.float32) for name in names}
    edit_tensors(directory / "model.safetensors", lambda tensors: tensors | more)


# Keys that change the vectors.


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("tiny-qwen3", {"is_causal": 0}, "is_causal = 0 is not supported"),
        ("tiny-qwen3", {"use_bidirectional_attention": True}, "config.json: linear.weight is missing"),
        (
            "tiny-qwen3",
            {"layer_types": ["sliding_attention"] * 4},
            "layer_types of 'sliding_attention' are not",
        ),
        ("tiny-qwen3", {"layer_types": ["full_attention"] * 3}, "3 layer_types for 4 layers"),
        ("tiny-qwen3", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping = 30.0 is a key that"),
        ("tiny-qwen3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5 is not supported"),
        ("tiny-qwen3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling = "),
        ("tiny-qwen3", {"rope_scaling": {"rope_type": "default", "rope_theta": 50.0}}, "they differ"),
        ("tiny-qwen3", {"rope_parameters": {"rope_theta": 1e6, "factor": 2.0}}, "rope_parameters.factor = 2.0"),
        ("tiny-qwen3", {"rope_parameters": {"rope_theta": 1e6, "mrope_section": [1]}}, "rope_parameters.mrope_section"),
        ("tiny-qwen3", {"rope_parameters": {"rope_theta": 0}}, "must be a positive number, found 0"),
        ("tiny-qwen3", {"rope_parameters": {"rope_theta": float("inf")}}, "must be a positive number, found inf"),
        ("tiny-qwen3", {"rope_parameters": {"rope_theta": float("nan")}}, "must be a positive number, found nan"),
        ("tiny-qwen3", {"rope_parameters": [1e6]}, "rope_parameters must be an object"),
        ("tiny-gemma3", {"rope_parameters": {"rope_theta": 1e6}}, "must hold an object for each of"),
        (
            "tiny-gemma3",
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "rope_theta": 1e4}},
            "values for all layers beside objects",
        ),
        ("tiny-gemma3", {"is_causal": False}, "is_causal = False is not supported"),
        ("tiny-gemma3", {"hidden_act": "silu"}, "hidden_act = 'silu' is not supported"),
        ("tiny-bert", {"is_decoder": True}, "is_decoder = True is not supported"),
        ("tiny-bert", {"add_cross_attention": True}, "add_cross_attention = True"),
        ("tiny-bert", {"pruned_heads": {"0": [1]}}, "pruned_heads = "),
        ("tiny-bert", {"sentence_transformers": {"activation_fn": "torch.nn.Identity"}}, "belongs to a cross-encoder"),
        ("tiny-bert", {"scale_residual": 0.5}, "scale_residual = 0.5 is a key that akidb-mlx does not know"),
        ("tiny-distilbert", {"layer_norm_eps": 1e-3}, "layer_norm_eps = 0.001 is not supported"),
        ("tiny-distilbert", {"hidden_size": 64}, "dim = 32, hidden_size = 64 mean the same and differ"),
        ("tiny-distilbert", {"num_attention_heads": 4}, "n_heads = 2, num_attention_heads = 4 mean the same"),
        ("tiny-roberta", {"pad_token_id": -1}, "pad_token_id = -1 is not supported"),
        ("tiny-bert", {"layer_norm_eps": float("inf")}, "layer_norm_eps = inf is not supported"),
        ("tiny-bert", {"num_hidden_layers": "3"}, "num_hidden_layers = '3' is not supported"),
        ("tiny-bert", {"model_file": "model.py"}, "model_file = 'model.py' is not supported"),
    ],
)
def test_a_key_of_the_configuration(tmp_path, name, changes, problem):
    message = refusal(copy_model(name, tmp_path, **changes))
    assert "config.json" in message
    assert problem in message


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"padding": "longest"}}}, "processing_kwargs = "),
        ("sentence_bert_config.json", {"query_length": 32}, "query_length = 32 is not supported"),
        ("sentence_bert_config.json", {"document_length": 180}, "document_length = 180 is not supported"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "fixed"}}, "query_expansion = "),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task = 'fill-mask'"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "forward", "method_output_name": "logits"}}},
            "modality_config.text.method_output_name = 'logits'",
        ),
        ("sentence_bert_config.json", {"modality_config": {"image": {}}}, "modality_config has no `text`"),
        ("sentence_bert_config.json", {"config_args": {"is_causal": False, "x": 1}}, "config_args.x = 1"),
        ("sentence_bert_config.json", {"model_kwargs": {"num_hidden_layers": 1}}, "model_kwargs.num_hidden_layers"),
        ("sentence_bert_config.json", {"model_args": "fast"}, "model_args must be an object, found 'fast'"),
        ("sentence_bert_config.json", {"do_lower_case": "yes"}, "do_lower_case must be true or false, found 'yes'"),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "model_type = 'CrossEncoder'"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type = 'SparseEncoder'"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim must be an integer of 1 or more"),
        ("config_sentence_transformers.json", {"temperature": 2}, "temperature = 2 is a key that"),
        ("1_Pooling/config.json", {"include_prompt": None}, "include_prompt must be true or false, found None"),
        ("1_Pooling/config.json", {"include_prompt": 0}, "include_prompt must be true or false, found 0"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": "no"}, "must be true or false, found 'no'"),
        ("1_Pooling/config.json", {"pooling_mode": ""}, "pooling [''] is not supported"),
        ("1_Pooling/config.json", {"token_weights": "idf"}, "token_weights = 'idf' is a key that"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "module_input_name = "),
    ],
)
def test_a_key_of_a_modules_file(tmp_path, file, changes, problem):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / file).parent.mkdir(exist_ok=True)
    edit_json(directory / file, **changes)
    message = refusal(directory)
    assert file in message
    assert problem in message


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"use_residual": 1}, "use_residual must be true or false, found 1"),
        ({"module_input_name": "token_embeddings"}, "module_input_name = 'token_embeddings' is not supported"),
        ({"module_output_name": "other"}, "module_output_name = 'other' is not supported"),
        ({"activation_function": "torch.nn.modules.activation.PReLU"}, "activation torch.nn.modules.activation.PReLU"),
        # The reference does not trust it, and takes Tanh.
        ({"activation_function": "my_code.Identity"}, "activation my_code.Identity is not supported"),
        ({"out_features": 63}, "out_features is 63 and dense.0.weight has 256 rows"),
        ({"bias": True}, "bias is True, and dense.0.bias says otherwise"),
        ({"dropout": 0.1}, "dropout = 0.1 is a key that"),
    ],
)
def test_a_key_of_a_dense_layer(tmp_path, changes, problem):
    directory = copy_model("tiny-gemma3", tmp_path)
    edit_json(directory / "2_Dense/config.json", **changes)
    assert problem in refusal(directory)


def edit_modules(directory, change):
    modules = json.loads((directory / "modules.json").read_text())
    change(modules)
    (directory / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda modules: modules[0].update(type="custom_st.Transformer"), "lists custom_st.Transformer, Pooling"),
        (lambda modules: modules[1].update(kwargs=["task"]), "1.kwargs = ['task'] is not supported"),
        (lambda modules: modules[1].update(layers=3), "1.layers = 3 is a key that"),
        (lambda modules: modules.append(modules[1]), "lists Transformer, Pooling, Normalize, Pooling"),
    ],
)
def test_a_module_that_is_not_supported(tmp_path, change, problem):
    directory = copy_model("tiny-bert", tmp_path)
    edit_modules(directory, change)
    assert problem in refusal(directory)


# The old layout, and other files that are not read.


def test_the_transformer_in_a_folder_of_its_own(tmp_path):
    """Not another model that happens to lie above it."""
    directory = copy_model("tiny-bert", tmp_path)
    shutil.copytree(GOLDENS / "tiny-bert", directory / "0_Transformer")
    edit_modules(directory, lambda modules: modules[0].update(path="0_Transformer"))
    message = refusal(directory)
    assert "the Transformer lies in the folder '0_Transformer'" in message
    assert "save it again" in message


def test_the_old_layout_without_a_model_at_the_top(tmp_path):
    directory = tmp_path / "old"
    shutil.copytree(GOLDENS / "tiny-bert", directory / "0_Transformer")
    with pytest.raises(ModelNotFoundError, match=r"holds its model in 0_Transformer.*save it again"):
        load(directory)


def test_weights_in_another_format(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    message = refusal(directory)
    assert "model.safetensors is missing; found pytorch_model.bin" in message
    assert "transformers" in message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_beside_the_weights(tmp_path, name):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / name).write_text("{}")
    assert "is an adapter (PEFT), which is not applied; merge it" in refusal(directory)


def test_what_the_loader_must_see_is_fetched():
    wanted = [
        "adapter_config.json",
        "sentence_xlm-roberta_config.json",
        "2_Dense/config.json",
        "2_Normalize/config.json",
        "pooling/config.json",
    ]
    assert all(map(EMBEDDING.needs, wanted))
    assert not any(map(EMBEDDING.needs, ["adapter_model.bin", "modeling.py", "data_config.json"]))


def test_a_null_that_the_reference_takes_for_false_is_named(tmp_path):
    directory = copy_model("tiny-gemma3", tmp_path)
    edit_json(directory / "config.json", is_causal=None)
    assert "is_causal = None is not supported" in refusal(directory)


# Two places, one answer.


def test_cache_and_loader_read_the_same_weights(tmp_path):
    """A whole file goes before an index of parts, of which none need be there."""
    directory = copy_model("tiny-bert", tmp_path)
    edit_json(directory / "model.safetensors.index.json", weight_map={"a": "old.safetensors"})
    assert files.find_incomplete(directory) == []
    (file,) = {tensor.file for tensor in read_checkpoint(directory).tensors.values()}
    assert [file.name] == files.weight_files(directory) == ["model.safetensors"]
    (directory / "model.safetensors").unlink()
    assert files.find_missing(directory) == ["old.safetensors"]
    assert "old.safetensors is missing" in refusal(directory)


# Models that are not embedding models.


@pytest.mark.parametrize(
    ("name", "tensor", "kind"),
    [
        ("tiny-qwen3", "lm_head.weight", "a language model"),
        ("tiny-qwen3-4bit", "lm_head.scales", "a language model"),
        ("tiny-qwen3", "score.weight", "a classifier or a cross-encoder"),
        ("tiny-gemma3", "lm_head.weight", "a language model"),
        ("tiny-bert", "classifier.weight", "a classifier or a cross-encoder"),
        ("tiny-bert", "cls.predictions.bias", "a model of masked words"),
        ("tiny-bert", "qa_outputs.weight", "a model that answers questions"),
        ("tiny-roberta", "classifier.dense.weight", "a classifier or a cross-encoder"),
        ("tiny-roberta", "lm_head.dense.weight", "a language model"),
        ("tiny-distilbert", "pre_classifier.weight", "a classifier or a cross-encoder"),
        ("tiny-distilbert", "vocab_transform.weight", "a model of masked words"),
    ],
)
def test_a_model_with_a_head(tmp_path, name, tensor, kind):
    directory = copy_model(name, tmp_path)
    add(directory, tensor)
    message = refusal(directory, allow_unstated_pooling=True)
    assert f"{tensor} belongs to the head of {kind}" in message


def test_a_cross_encoder_is_called_one(tmp_path):
    """Although it does not say how to pool either."""
    directory = copy_model("tiny-bert", tmp_path, architectures=["BertForSequenceClassification"])
    shutil.rmtree(directory / "1_Pooling")
    (directory / "modules.json").unlink()
    add(directory, "classifier.weight")
    assert "a classifier or a cross-encoder (reranker)" in refusal(directory)


def chat_model(into):
    """A tied causal model as a chat model has it: no sentence-transformers files, no end token from its tokenizer."""
    directory = copy_model("tiny-qwen3-4bit", into)
    edit_json(directory / "tokenizer.json", post_processor=None)
    return directory


def test_a_causal_model_without_a_sign_of_an_embedder(tmp_path):
    message = refusal(chat_model(tmp_path))
    assert "may be a chat model or a reranker" in message
    assert "AKIDB_ALLOW_UNSTATED_POOLING=1" in message


def test_padding_is_no_end_token(tmp_path):
    directory = chat_model(tmp_path)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_padding(pad_token="<|endoftext|>", pad_id=0, length=16)
    tokenizer.save(str(directory / "tokenizer.json"))
    assert "may be a chat model or a reranker" in refusal(directory)


def test_insisting_on_the_architectures_pooling(tmp_path):
    sample = [text for text in TEXTS if len(text) < 400]
    expected = golden("tiny-qwen3-4bit")["none"][[TEXTS.index(text) for text in sample]]
    with load(chat_model(tmp_path), allow_unstated_pooling=True) as one:
        assert np.abs(one.embed_array(sample) - expected).max() <= 2e-5


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", (GOLDENS / "tiny-qwen3/modules.json").read_text()),
        ("1_Pooling/config.json", (GOLDENS / "tiny-qwen3/1_Pooling/config.json").read_text()),
        ("config_sentence_transformers.json", '{"prompts": {"query": "Query: "}}'),
    ],
)
def test_a_file_of_sentence_transformers_is_a_sign(tmp_path, file, content):
    directory = chat_model(tmp_path)
    (directory / file).parent.mkdir(exist_ok=True)
    (directory / file).write_text(content)
    load(directory).close()


# Quantisation.


def requantise(directory, layer, bits, group_size=64):
    import mlx.core as mx

    path = directory / "model.safetensors"
    tensors = mx.load(str(path))
    with mx.stream(mx.cpu):
        plain = tensors[f"{layer}.weight"]
        if f"{layer}.scales" in tensors:
            packed = [tensors.pop(f"{layer}.{part}") for part in ("weight", "scales", "biases")]
            plain = mx.dequantize(*packed, group_size=64, bits=4)
        parts = mx.quantize(plain, group_size=group_size, bits=bits)
        tensors |= {f"{layer}.{part}": array for part, array in zip(("weight", "scales", "biases"), parts, strict=True)}
        mx.save_safetensors(str(path), tensors)


def test_a_null_in_a_layers_packing_is_the_general_value(tmp_path):
    """As mlx-lm's mixed recipes write it."""
    layer = "model.layers.1.mlp.down_proj"
    directory = copy_model("tiny-qwen3-4bit", tmp_path)
    requantise(directory, layer, bits=6)
    packing = {"group_size": 64, "bits": 4, "mode": "affine"}
    override = {layer: {"group_size": None, "bits": 6, "mode": None}}
    edit_json(directory / "config.json", quantization=packing | override)
    sample = [text for text in TEXTS if len(text) < 400]
    expected = golden("tiny-qwen3-4bit")["none"][[TEXTS.index(text) for text in sample]]
    with load(directory) as one:
        assert one.get_model_info()["quantization"] == "4-bit affine, group 64; 6-bit affine, group 64"
        assert (one.embed_array(sample) * expected).sum(axis=1).min() >= 0.999  # 6 bits of what 4 bits had left


@pytest.mark.parametrize("prefix", ["", "distilbert."])
def test_a_layers_packing_is_found_under_distilberts_name(tmp_path, prefix):
    layer = "transformer.layer.1.ffn.lin1"
    directory = copy_model("tiny-distilbert", tmp_path)
    if prefix:
        edit_tensors(directory / "model.safetensors", lambda t: {f"{prefix}{name}": array for name, array in t.items()})
    requantise(directory, f"{prefix}{layer}", bits=8, group_size=32)
    packing = {"group_size": 64, "bits": 4, f"{prefix}{layer}": {"group_size": 32, "bits": 8}}
    edit_json(directory / "config.json", quantization=packing)
    with load(directory) as one:
        assert one.get_model_info()["quantization"] == "8-bit affine, group 32"
        cosine = (one.embed_array(TEXTS) * golden("tiny-distilbert")["none"]).sum(axis=1)
    assert cosine.min() >= 0.9999


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"layers.9.mlp.up_proj": {"bits": 8}}, "quantization names 'layers.9.mlp.up_proj', and"),
        ({"quantize_input": True}, "quantization names 'quantize_input', and"),
        ({"model.layers.0.mlp.up_proj": False}, "up_proj.scales is stored and config.json says that it is not"),
        ({"model.layers.0.mlp.up_proj": {"bits": 8, "signed": 1}}, "up_proj.signed = 1 is a key that"),
        ({"outliers": 3}, "quantization.outliers = 3 is a key that"),
        ({"group_size": None}, "quantization.group_size is missing"),
        ({"bits": True}, "quantization.bits = True"),
    ],
)
def test_an_entry_of_the_quantisation(tmp_path, entry, problem):
    packing = {"group_size": 64, "bits": 4}
    directory = copy_model("tiny-qwen3-4bit", tmp_path, quantization=packing | entry)
    assert problem in refusal(directory)


# Messages say what to do.


@pytest.mark.parametrize(
    ("changes", "source"),
    [({}, "google/embeddinggemma-300m"), ({"_name_or_path": "org/other-gemma"}, "org/other-gemma")],
)
def test_lost_dense_layers_can_be_brought_back(tmp_path, changes, source):
    """mlx-lm leaves them out; the command fetches what a directory lacks."""
    directory = copy_model("tiny-gemma3", tmp_path, **changes)
    for name in ("1_Pooling", "2_Dense", "3_Dense"):
        shutil.rmtree(directory / name)
    (directory / "modules.json").unlink()
    command = refusal(directory).partition("hf download ")[2].split()
    assert command[0] == source
    fetched = command[1:-2]
    assert command[-2:] == ["--local-dir", str(directory)]
    for name in fetched:
        (directory / name).parent.mkdir(exist_ok=True)
        shutil.copy(GOLDENS / "tiny-gemma3" / name, directory / name)
    with load(directory) as one:
        assert np.abs(one.embed_array(TEXTS) - golden("tiny-gemma3")["none"]).max() <= 2e-5


def test_a_missing_key_is_named_alone(tmp_path):
    directory = copy_model("tiny-bert", tmp_path, num_attention_heads=None)
    assert "config.json lacks num_attention_heads" in refusal(directory)


HUGE = "x" * 10**7


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"model_type": HUGE}),
        ("config.json", {"hidden_act": HUGE}),
        ("config.json", {"hidden_size": HUGE}),
        ("config.json", {"hidden_size": {HUGE: HUGE}}),
        ("config.json", {"pad_token_id": HUGE, "model_type": "roberta"}),
        ("config.json", {"max_position_embeddings": HUGE}),
        ("config.json", {"quantization": HUGE}),
        ("config.json", {"quantization": {"quant_method": HUGE}}),
        ("config.json", {"quantization": {"bits": 4, "group_size": 64, HUGE: {"bits": 8}}}),
        ("config.json", {"auto_map": HUGE}),
        ("config.json", {HUGE: HUGE}),
        ("modules.json", [{"type": HUGE, "path": HUGE}]),
        ("1_Pooling/config.json", {"pooling_mode": HUGE}),
        ("1_Pooling/config.json", {HUGE: [HUGE]}),
        ("sentence_bert_config.json", {"max_seq_length": HUGE}),
        ("config_sentence_transformers.json", {"prompts": {HUGE: 3}}),
        ("config_sentence_transformers.json", {"truncate_dim": HUGE}),
    ],
)
def test_huge_values_are_not_quoted_in_full(tmp_path, file, content):
    directory = copy_model("tiny-bert", tmp_path)
    if isinstance(content, list):
        (directory / file).write_text(json.dumps(content))
    else:
        edit_json(directory / file, **content)
    refusal(directory)  # which looks at its length


@pytest.mark.parametrize("name", [f"{HUGE}.safetensors", HUGE, f"../{HUGE}"])
def test_a_huge_name_in_the_index_is_not_quoted_in_full(tmp_path, name):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / "model.safetensors").unlink()
    edit_json(directory / "model.safetensors.index.json", weight_map={"a": name})
    refusal(directory)


def test_a_huge_name_of_a_tensor_is_not_quoted_in_full(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    add(directory, "x" * 10**5)
    refusal(directory)
