"""Model directories: reading them, making up for what they lack, and refusing what does not fit."""

import json
import shutil

import numpy as np
import pytest

from akidb_mlx import EmbeddingService
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.errors import ModelLoadError
from tests.support import GOLDENS, TEXTS, copy_model, edit_json, edit_tensors, golden


def load(directory):
    return EmbeddingService(str(directory), device="cpu")


def deviation(directory, name, **options):
    with load(directory) as one:
        return np.abs(one.embed_array(TEXTS, **options) - golden(name)["none"]).max()


# Dialects: each must give the reference's vectors.


def test_older_rope_keys(tmp_path):
    gemma = copy_model("tiny-gemma3", tmp_path, rope_parameters=None, rope_theta=1e6, rope_local_base_freq=1e4)
    qwen = copy_model("tiny-qwen3", tmp_path, rope_parameters=None, rope_theta=1e6, rope_scaling=None)
    assert deviation(gemma, "tiny-gemma3") <= 2e-5
    assert deviation(qwen, "tiny-qwen3") <= 2e-5


@pytest.mark.parametrize("key", ["rope_theta", "rope_local_base_freq"])
def test_rope_keys_are_really_read(tmp_path, key):
    older = {"rope_theta": 1e6, "rope_local_base_freq": 1e4} | {key: 50.0}
    directory = copy_model("tiny-gemma3", tmp_path, rope_parameters=None, **older)
    assert deviation(directory, "tiny-gemma3") > 1e-4


@pytest.mark.parametrize("key", ["sliding_window_pattern", "_sliding_window_pattern"])
def test_older_layer_pattern(tmp_path, key):
    changes = {"layer_types": None, "_sliding_window_pattern": None} | {key: 3}
    assert deviation(copy_model("tiny-gemma3", tmp_path, **changes), "tiny-gemma3") <= 2e-5


def test_prefixed_tensors(tmp_path):
    directory = copy_model("tiny-qwen3", tmp_path)
    edit_tensors(directory / "model.safetensors", lambda t: {f"model.{name}": array for name, array in t.items()})
    assert deviation(directory, "tiny-qwen3") <= 2e-5


def test_shards(tmp_path):
    from safetensors.numpy import load_file, save_file

    directory = copy_model("tiny-bert", tmp_path)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    halves = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    for file, names in halves.items():
        save_file({name: tensors[name] for name in names}, directory / file)
    weight_map = {name: file for file, names in halves.items() for name in names}
    edit_json(directory / "model.safetensors.index.json", weight_map=weight_map)
    assert deviation(directory, "tiny-bert") <= 2e-5


def test_tensors_of_other_tasks_are_passed_over(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    more = {"pooler.dense.weight": np.ones((64, 64), np.float32), "embeddings.position_ids": np.arange(256)}
    edit_tensors(directory / "model.safetensors", lambda tensors: tensors | more)
    assert deviation(directory, "tiny-bert") <= 2e-5


@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_newer_pooling_file(tmp_path, mode):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / "1_Pooling/config.json").write_text(json.dumps({"embedding_dimension": 64, "pooling_mode": mode}))
    assert read_checkpoint(directory).pooling == mode
    assert (deviation(directory, "tiny-bert") <= 2e-5) == (mode == "mean")


def test_mixed_quantisation(tmp_path):
    """A layer is packed exactly when it has scales, in its own way where the config says so."""
    import mlx.core as mx

    directory = copy_model("tiny-qwen3-4bit", tmp_path)
    path = directory / "model.safetensors"
    tensors = mx.load(str(path))
    plain, finer = "model.layers.0.mlp.up_proj", "model.layers.1.self_attn.o_proj"

    def unpack(layer):
        packed = [tensors.pop(f"{layer}.{part}") for part in ("weight", "scales", "biases")]
        return mx.dequantize(*packed, group_size=64, bits=4)

    with mx.stream(mx.cpu):
        tensors[f"{plain}.weight"] = unpack(plain)
        parts = mx.quantize(unpack(finer), group_size=32, bits=8)
        tensors |= {f"{finer}.{part}": array for part, array in zip(("weight", "scales", "biases"), parts, strict=True)}
        mx.save_safetensors(str(path), tensors)
    config = json.loads((directory / "config.json").read_text())
    override = {finer: {"bits": 8, "group_size": 32}, plain: False}
    edit_json(directory / "config.json", quantization=config["quantization"] | override)
    edit_json(directory / "sentence_bert_config.json", max_seq_length=512)
    with load(directory) as one:
        assert one.get_model_info()["quantization"] == "4-bit affine, group 64; 8-bit affine, group 32"
        cosine = (one.embed_array(TEXTS) * golden("tiny-qwen3-4bit")["none"]).sum(axis=1)
    assert cosine.min() >= 0.9999  # 8 bits of what 4 bits had left


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_modes_of_quantisation(tmp_path, mode, bits, group_size, precision):
    import mlx.core as mx

    from akidb_mlx import Settings

    directory = copy_model("tiny-qwen3", tmp_path, quantization={"bits": bits, "group_size": group_size, "mode": mode})
    path = directory / "model.safetensors"
    tensors, packed, plain = mx.load(str(path)), {}, {}
    with mx.stream(mx.cpu):
        for name, array in tensors.items():
            if array.ndim == 2:
                weight, scales = mx.quantize(array, group_size=group_size, bits=bits, mode=mode)
                packed |= {name: weight, name.replace(".weight", ".scales"): scales}
                plain[name] = mx.dequantize(weight, scales, group_size=group_size, bits=bits, mode=mode)
            else:
                packed[name] = plain[name] = array
        mx.save_safetensors(str(path), packed)
        unpacked = copy_model("tiny-qwen3", tmp_path / "plain")
        mx.save_safetensors(str(unpacked / "model.safetensors"), {n: a.astype(mx.float32) for n, a in plain.items()})
    sample = TEXTS[:8]
    with EmbeddingService(str(directory), device="cpu", settings=Settings(precision=precision)) as one:
        found = one.embed_array(sample)
    with load(unpacked) as one:
        assert (found * one.embed_array(sample)).sum(axis=1).min() >= (0.999999 if precision == "float32" else 0.995)


# Lost metadata: the architecture decides, and the report says so.


@pytest.mark.parametrize(
    ("name", "pooling", "source"),
    [
        ("tiny-bert", "mean", "1_Pooling/config.json"),
        ("tiny-qwen3", "last", "1_Pooling/config.json"),
        ("tiny-qwen3-4bit", "last", "the qwen3 architecture (1_Pooling/config.json is missing)"),
        ("tiny-gemma3-4bit", "mean", "the gemma3_text architecture (1_Pooling/config.json is missing)"),
    ],
)
def test_where_the_pooling_came_from(service, name, pooling, source):
    info = service(name).get_model_info()
    assert (info["pooling"], info["pooling_source"]) == (pooling, source)


def test_bert_without_pooling_is_refused(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    shutil.rmtree(directory / "1_Pooling")
    with pytest.raises(ModelLoadError, match="does not say how to pool"):
        load(directory)


def test_gemma_without_its_dense_layers_is_refused(tmp_path):
    directory = copy_model("tiny-gemma3-4bit", tmp_path)
    edit_tensors(directory / "model.safetensors", lambda t: {n: a for n, a in t.items() if not n.startswith("dense.1")})
    with pytest.raises(ModelLoadError, match=r"dense\.1\.weight is missing"):
        load(directory)


def test_gemma_that_lost_modules_json_keeps_two_dense_layers(tmp_path):
    directory = copy_model("tiny-gemma3-4bit", tmp_path)
    (directory / "modules.json").unlink()
    assert deviation(directory, "tiny-gemma3-4bit") <= 2e-5


def test_a_dense_layer_with_tanh_and_bias(tmp_path):
    from safetensors.numpy import save_file

    directory = copy_model("tiny-bert", tmp_path)
    modules = json.loads((directory / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "2_Dense").mkdir()
    edit_json(directory / "2_Dense/config.json", activation_function="torch.nn.modules.activation.Tanh")
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(16, 64)).astype(np.float32), rng.normal(size=16).astype(np.float32)
    save_file({"linear.weight": weight, "linear.bias": bias}, directory / "2_Dense/model.safetensors")
    with load(GOLDENS / "tiny-bert") as plain, load(directory) as dense:
        expected = np.tanh(plain.embed_array(TEXTS, normalize=False) @ weight.T + bias)
        assert np.abs(dense.embed_array(TEXTS, normalize=False) - expected).max() < 1e-5
        assert dense.get_model_info()["native_dimension"] == 16


# What does not fit is refused, by name.


def drop(name):
    return lambda tensors: {other: array for other, array in tensors.items() if other != name}


def reshape(name, shape):
    return lambda tensors: tensors | {name: np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("tiny-bert", drop("encoder.layer.1.output.dense.bias"), r"encoder\.layer\.1\.output\.dense\.bias is missing"),
        ("tiny-bert", reshape("stray.weight", (2, 2)), r"stray\.weight is not part of the model"),
        (
            "tiny-bert",
            reshape("embeddings.word_embeddings.weight", (700, 64)),
            r"word_embeddings\.weight has shape \(700, 64\), expected \(615, 64\)",
        ),
        ("tiny-qwen3", drop("layers.2.self_attn.k_norm.weight"), r"layers\.2\.self_attn\.k_norm\.weight is missing"),
        ("tiny-qwen3", reshape("layers.0.mlp.up_proj.weight", (64, 128)), r"up_proj\.weight has shape \(64, 128\)"),
        ("tiny-gemma3", reshape("layers.9.mlp.up_proj.weight", (8, 8)), r"layers\.9\.mlp\.up_proj\.weight is not part"),
        ("tiny-qwen3-4bit", drop("model.layers.0.mlp.up_proj.biases"), r"layers\.0\.mlp\.up_proj\.biases is missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, name, change, problem):
    directory = copy_model(name, tmp_path)
    edit_tensors(directory / "model.safetensors", change)
    with pytest.raises(ModelLoadError, match=problem):
        load(directory)


def test_many_problems_are_counted(tmp_path):
    with pytest.raises(ModelLoadError, match=r"and \d+ more$"):
        load(copy_model("tiny-bert", tmp_path, hidden_size=32))


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("tiny-bert", {"model_type": "t5"}, "model_type 't5' is not supported"),
        ("tiny-bert", {"model_type": ["bert"]}, "is not supported"),
        ("tiny-bert", {"hidden_act": "swish9"}, "activation 'swish9' is not supported"),
        ("tiny-bert", {"num_attention_heads": 7}, "7 heads do not divide"),
        ("tiny-bert", {"num_hidden_layers": "three"}, "num_hidden_layers = 'three'"),
        ("tiny-bert", {"vocab_size": 10**12}, "vocab_size = 1000000000000"),
        ("tiny-bert", {"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000"),
        ("tiny-bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("tiny-roberta", {"pad_token_id": "none"}, "pad_token_id = 'none'"),
        ("tiny-qwen3", {"use_sliding_window": "yes"}, "use_sliding_window"),
        ("tiny-qwen3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "lacks rope_parameters.factor"),
        ("tiny-qwen3", {"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "lacks rope_scaling.factor"),
        ("tiny-gemma3", {"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ("tiny-gemma3", {"layer_types": ["full_attention"]}, "1 layer_types for 6 layers"),
        ("tiny-gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("tiny-qwen3-4bit", {"quantization": None, "quantization_config": None}, "its bits are unknown"),
        ("tiny-qwen3-4bit", {"quantization": {"bits": 7, "group_size": 64}}, r"quantization\.bits = 7"),
        ("tiny-qwen3-4bit", {"quantization": {"quant_method": "awq", "bits": 4}}, "'awq' is not MLX's"),
    ],
)
def test_configurations_that_are_not_supported(tmp_path, name, changes, problem):
    with pytest.raises(ModelLoadError, match=problem):
        load(copy_model(name, tmp_path, **changes))


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.json", "{", "is not valid JSON"),
        ("config.json", "[" * 100_000, "is not valid JSON"),
        ("config.json", "[]", "must hold a JSON object, found list"),
        ("modules.json", '[{"path": ""}]', "must be a list of objects"),
        ("modules.json", "[]", "lists nothing"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": false}', r"pooling \[\] is not supported"),
        ("1_Pooling/config.json", '{"pooling_mode": ["mean", "median"]}', "one or more of"),
        ("1_Pooling/config.json", '{"pooling_mode": [["mean"]]}', "one or more of"),
        ("config_sentence_transformers.json", '{"prompts": {"query": 3}}', "prompts must map names to strings"),
        ("sentence_bert_config.json", '{"max_seq_length": "long"}', "does not say how many tokens"),
        ("sentence_bert_config.json", '{"max_seq_length": 2}', "leaves no room beside the special tokens"),
        ("tokenizer.json", "{}", "is not a tokenizer"),
        ("model.safetensors", "garbage", "is not a readable safetensors file"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, problem):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / file).write_text(content)
    with pytest.raises(ModelLoadError, match=problem):
        load(directory)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_missing_files_are_named(tmp_path, file):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / file).unlink()
    with pytest.raises(ModelLoadError, match=f"{file} is missing"):
        load(directory)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", "x\0"])
def test_shard_names_cannot_leave_the_folder(tmp_path, name):
    directory = copy_model("tiny-bert", tmp_path)
    shutil.move(directory / "model.safetensors", tmp_path / "outside.safetensors")
    edit_json(directory / "model.safetensors.index.json", weight_map={"a": name})
    with pytest.raises(ModelLoadError, match=r"which is not a weight file|not the name of a file"):
        load(directory)


@pytest.mark.parametrize("path", ["../outside", "/etc"])
def test_module_folders_cannot_leave_the_folder(tmp_path, path):
    directory = copy_model("tiny-bert", tmp_path)
    modules = json.loads((directory / "modules.json").read_text())
    modules[1]["path"] = path
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelLoadError, match="is not a folder inside the model directory"):
        load(directory)


def test_a_module_that_is_not_supported_is_named(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    modules = json.loads((directory / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.LSTM"
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelLoadError, match="lists Transformer, LSTM, Normalize"):
        load(directory)


@pytest.mark.parametrize("entry", ["AutoModel", "AutoConfig", "AutoModelForMaskedLM"])
def test_nothing_from_a_model_directory_is_executed(tmp_path, entry):
    directory = copy_model("tiny-bert", tmp_path, auto_map={entry: "modeling.Evil"})
    sentinel = tmp_path / "executed"
    (directory / "modeling.py").write_text(f"open({str(sentinel)!r}, 'w')")
    if entry == "AutoModelForMaskedLM":  # the reference would not run it for token vectors
        assert deviation(directory, "tiny-bert") <= 2e-5
    else:
        with pytest.raises(ModelLoadError, match=f"auto_map asks for code of the model's own .{entry} = 'modeling"):
            load(directory)
    assert not sentinel.exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    directory = copy_model("tiny-bert", tmp_path)
    edit_tensors(
        directory / "model.safetensors",
        lambda t: t | {"encoder.layer.0.output.dense.bias": np.full(64, bad, np.float32)},
    )
    with pytest.raises(ModelLoadError, match="not finite"):
        load(directory)


def test_a_lost_list_of_modules_is_warned_of(tmp_path, caplog):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / "modules.json").unlink()
    read_checkpoint(directory)
    assert caplog.text == ""
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    edit_json(directory / "1_Pooling/config.json", **pooling)
    assert read_checkpoint(directory).pooling == "cls"
    assert "modules.json is missing; texts are pooled as 1_Pooling/config.json says (cls)" in caplog.text
