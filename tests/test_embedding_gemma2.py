"""EmbeddingGemma 2: the forms of its config.json, and the parts of a whole model that no text passes through."""

import json
from pathlib import Path

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.config import parse_config
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.errors import ConfigurationError, ModelLoadError
from tests.ordinary_configs import ORDINARY
from tests.support import GOLDENS, TEXTS, copy_model, edit_tensors, golden

WHOLE, TOWER = "tiny-embedding-gemma2", "tiny-embedding-gemma2-text"
SAMPLE = TEXTS[:8]


def text_config(directory: Path) -> dict[str, object]:
    return json.loads((directory / "config.json").read_text())["text_config"]


def with_text_config(into: Path, *without: str, **changes: object) -> Path:
    """A copy of the whole model with other keys in its `text_config`."""
    found = text_config(GOLDENS / WHOLE) | changes
    return copy_model(WHOLE, into, text_config={key: value for key, value in found.items() if key not in without})


def embed(directory: Path) -> np.ndarray:
    with EmbeddingService(str(directory), device="cpu") as one:
        return one.embed_array(SAMPLE)


def expected() -> np.ndarray:
    return golden(WHOLE)["none"][: len(SAMPLE)]


def test_the_models_reach_beyond_their_windows(service):
    """Else the goldens would not tell a window from none."""
    for name, radius in ((WHOLE, 8), (TOWER, 3)):
        assert max(service(name).embed_detailed(TEXTS).token_counts) > 10 * radius


def test_the_published_file_describes_layers_of_two_kinds():
    config = ORDINARY["EmbeddingGemma 2"]
    rule = ARCHITECTURES["embedding_gemma2"]
    rule.wrapper.check(Path("config.json"), config)
    rule.keys.check(Path("config.json"), config["text_config"])
    args = parse_config(rule.config, config["text_config"])
    assert args.types == (["sliding_attention"] * 5 + ["full_attention"]) * 4
    assert args.head_sizes == {"sliding_attention": (256, 2), "full_attention": (512, 1)}
    bases = {kind: positions.theta for kind, positions in args.rotations.items()}
    assert bases == {"sliding_attention": 1e4, "full_attention": 1e6}
    assert args.placeholder_ids == (258_880, 258_884, 258_881)


@pytest.mark.parametrize(
    ("without", "changes"),
    [
        (("per_layer_config",), {"global_head_dim": 16, "num_global_key_value_heads": 1}),
        (("layer_types",), {"sliding_window_pattern": 2}),
        ((), {"per_layer_config": {f"{i:02d}": {"head_dim": 16, "num_key_value_heads": 1} for i in (1, 3)}}),
        # The last layer is full whatever the file says, as in transformers.
        ((), {"layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]}),
    ],
)
def test_other_forms_of_the_same_model(tmp_path, without, changes):
    assert np.abs(embed(with_text_config(tmp_path, *without, **changes)) - expected()).max() <= 2e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_layer_config": {"1": {"head_dim": 16}}}, "per_layer_config gives layers of full_attention different"),
        ({"per_layer_config": {"4": {"head_dim": 16}}}, "per_layer_config names layer 4 of 4"),
        ({"per_layer_config": {"1": {"intermediate_size": 8}}}, "per_layer_config.1.intermediate_size = 8"),
        ({"per_layer_config": {"last": {"head_dim": 16}}}, "per_layer_config"),
        ({"per_layer_config": None}, "layers.1.self_attn.q_proj.weight has shape"),
        ({"rope_theta": 5e5}, "text_config.rope_theta = 500000.0 is not supported"),
        ({"model_type": "gemma3_text"}, "text_config.model_type = 'gemma3_text' is not supported"),
        ({"attn_logit_softcapping": 30.0}, "text_config.attn_logit_softcapping = 30.0 is a key"),
    ],
)
def test_what_would_be_another_model_is_named(tmp_path, changes, message):
    with pytest.raises(ModelLoadError) as caught:
        embed(with_text_config(tmp_path, **changes))
    assert message in str(caught.value)


def test_a_file_without_its_text_tower_is_named(tmp_path):
    with pytest.raises(ModelLoadError, match="text_config must be an object, found None"):
        read_checkpoint(copy_model(WHOLE, tmp_path, text_config=None))


def test_the_towers_of_images_and_sounds_are_passed_over(tmp_path):
    directory = copy_model(WHOLE, tmp_path, vision_config={"hidden_size": 8}, audio_config={"hidden_size": 8})
    towers = ("vision_tower.encoder.x", "embed_vision.y", "audio_tower.z", "model.embed_audio.w")
    extra = {f"{name}.weight": np.full((3, 2), np.nan, np.float32) for name in towers}
    edit_tensors(directory / "model.safetensors", lambda tensors: tensors | extra)
    assert np.abs(embed(directory) - expected()).max() <= 2e-5


def test_a_tensor_of_no_tower_is_named(tmp_path):
    directory = copy_model(WHOLE, tmp_path)
    extra = {"language_model.layers.0.experts.weight": np.zeros((2, 2), np.float32)}
    edit_tensors(directory / "model.safetensors", lambda tensors: tensors | extra)
    with pytest.raises(ModelLoadError, match=r"layers\.0\.experts\.weight is not part of the model"):
        embed(directory)


def test_a_key_of_the_whole_model_counts_outside_its_text_tower_only(tmp_path):
    """The placeholders in `text_config` mean nothing to transformers."""
    directory = with_text_config(tmp_path, image_token_id=35, quantization={"bits": 4, "group_size": 32})
    assert np.abs(embed(directory) - expected()).max() <= 2e-5


def test_placeholders_are_read_as_padding(tmp_path):
    """Another token of a text as a placeholder gives another vector."""
    directory = copy_model(WHOLE, tmp_path, image_token_id=35)
    assert np.abs(embed(directory) - embed(GOLDENS / WHOLE)).max() > 1e-3


def test_float16_is_refused():
    with pytest.raises(ConfigurationError, match="overflow"):
        EmbeddingService(str(GOLDENS / WHOLE), device="cpu", settings=Settings(precision="float16"))


def test_its_vectors_may_be_cut(service):
    one = service(WHOLE)
    assert one.get_model_info()["matryoshka"]
    whole = one.embed_array(SAMPLE)[:, :6]
    cut = one.embed_array(SAMPLE, dimensions=6)
    assert np.abs(cut - whole / np.linalg.norm(whole, axis=1, keepdims=True)).max() <= 1e-6


def test_a_conversion_without_its_prompts_has_the_published_ones(tmp_path):
    directory = copy_model(WHOLE, tmp_path)
    (directory / "config_sentence_transformers.json").unlink()
    with EmbeddingService(str(directory), device="cpu") as one:
        found = one.embed_array(SAMPLE, input_type="query")
    assert np.abs(found - golden(WHOLE)["query"][: len(SAMPLE)]).max() <= 2e-5
