"""Rotary positions: frequencies worked out by hand, rotations against NumPy, and the keys that ask for them."""

import mlx.core as mx
import numpy as np
import pytest

from akidb_mlx.backends.mlx.plan import ExecutionPlan
from akidb_mlx.checkpoint.architectures.config import parse_config
from akidb_mlx.checkpoint.architectures.gemma3 import Gemma3Config
from akidb_mlx.checkpoint.architectures.qwen3 import Qwen3Config
from akidb_mlx.checkpoint.architectures.rotary import RotaryPositions
from akidb_mlx.errors import ModelLoadError
from tests.ordinary_configs import ORDINARY

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}


def positions(**rope: object) -> RotaryPositions:
    """Heads of 8 values; the frequencies of the base 10 000 are 1, 0.1, 0.01 and 0.001."""
    config = ORDINARY["Qwen3 of transformers 5"] | {"head_dim": 8, "rope_parameters": {"rope_theta": 1e4, **rope}}
    return parse_config(Qwen3Config, config).rotations["full_attention"]


@pytest.mark.parametrize(
    ("rope", "frequencies", "amplitude"),
    [
        ({"rope_type": "linear", "factor": 4.0}, [0.25, 0.025, 0.0025, 0.00025], 1),
        ({"rope_type": "dynamic", "factor": 4.0}, [1, 0.1, 0.01, 0.001], 1),
        # The wavelengths are 6, 63, 628 and 6283: kept below 100 / 4, divided by 8 above 100 / 1, and between them
        # 100 / 62.83 is a share of 0.19718 of the way from 1 to 4.
        ({**LLAMA3, "original_max_position_embeddings": 100}, [1, 0.02975352, 0.00125, 0.000125], 1),
        # 32 turns in 100 tokens are before the first frequency, and one turn is at 1.2, so the ramp is from 0 to 2.
        (YARN, [1, 0.0625, 0.0025, 0.00025], 1.1386294),
        ({**YARN, "truncate": False}, [1, 0.1 * (1 - 0.75 * 0.832071), 0.0025, 0.00025], 1.1386294),
        ({**YARN, "mscale": 2.0, "mscale_all_dim": 0.5}, [1, 0.0625, 0.0025, 0.00025], 1.1944649),
        ({**YARN, "mscale": 2.0}, [1, 0.0625, 0.0025, 0.00025], 1.1386294),
        ({**YARN, "attention_factor": 0.7, "mscale": 2.0, "mscale_all_dim": 0.5}, [1, 0.0625, 0.0025, 0.00025], 0.7),
        # One turn in 10 tokens is at 0.2 (1 when rounded up), 0.1 turns are at 1.2 (2).
        (
            {**YARN, "beta_fast": 10, "beta_slow": 0.1},
            [1, 0.1 * (1 - 0.75 / 3), 0.01 * (1 - 1.5 / 3), 0.00025],
            1.1386294,
        ),
        ({"rope_type": "proportional", "partial_rotary_factor": 0.5}, [1, 0.1, 0, 0], 1),
        ({"rope_type": "proportional", "partial_rotary_factor": 0.8, "factor": 2.0}, [0.5, 0.05, 0.005, 0], 1),
    ],
)
def test_frequencies_worked_out_by_hand(rope, frequencies, amplitude):
    found = positions(**rope)
    assert np.allclose(found.frequencies, frequencies, rtol=2e-6, atol=0)
    assert found.amplitude == pytest.approx(amplitude, rel=1e-6)


def test_the_plain_type_has_no_frequencies_of_its_own():
    assert positions() == positions(rope_type="default") == RotaryPositions(8, 1e4)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    "found",
    [
        RotaryPositions(8, 1e4),
        positions(**YARN),
        positions(rope_type="proportional", partial_rotary_factor=0.5),
        positions(rope_type="linear", factor=3.0),
    ],
)
@pytest.mark.parametrize("offset", [0, 5])
def test_a_rotation_is_one_of_complex_numbers(exact, found, offset):
    x = np.random.default_rng(1).normal(size=(2, 3, 70, 8)).astype(np.float32)
    frequencies = found.frequencies or [1, 0.1, 0.01, 0.001]
    turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * np.outer(np.arange(offset, offset + 70), frequencies))
    expected = found.amplitude * np.concatenate([turned.real, turned.imag], axis=-1)
    with mx.stream(mx.cpu):
        plan = ExecutionPlan(mx.Device(mx.cpu), mx.float32, exact, 1, 1)
        rotated = np.array(plan.rotation(70, found, offset)(mx.array(x)))
    assert np.abs(rotated - expected).max() < 2e-5


@pytest.mark.parametrize(
    ("rope", "problem"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, "'longrope' are not supported, only default, linear"),
        ({"rope_type": ["yarn"]}, "of type .* are not supported"),
        ({"rope_type": "linear"}, "lacks rope_parameters.factor"),
        ({"rope_type": "linear", "factor": "2"}, "rope_parameters.factor = '2' is not supported"),
        ({"rope_type": "linear", "factor": float("nan")}, "rope_parameters.factor = nan"),
        ({"rope_type": "linear", "factor": 2.0, "beta_fast": 1}, "rope_parameters.beta_fast = 1 is a key"),
        ({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}, "rope_parameters.partial_rotary_factor"),
        ({**YARN, "original_max_position_embeddings": None}, "rope_parameters.original_max_position_embeddings = None"),
        ({**YARN, "truncate": None}, "rope_parameters.truncate = None"),
        ({**YARN, "rope_theta": 1.0}, "a rotary base of 1.0 is not supported with rope_type 'yarn'"),
        ({"rope_type": "llama3", "factor": 8.0}, "lacks rope_parameters.low_freq_factor"),
        ({**LLAMA3, "low_freq_factor": 4.0}, "high_freq_factor 4.0 .* must be above low_freq_factor 4.0"),
        ({"full_attention": {"rope_type": "default"}}, "not objects for each type of layer|beside objects"),
    ],
)
def test_parameters_that_are_not_supported(rope, problem):
    with pytest.raises(ModelLoadError, match=problem):
        positions(**rope)


def test_objects_for_types_of_layers_need_an_architecture_with_several():
    config = ORDINARY["Qwen3 of transformers 5"] | {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}
    with pytest.raises(ModelLoadError, match="not objects for each type of layer"):
        parse_config(Qwen3Config, config)
    older = ORDINARY["EmbeddingGemma"] | {"rope_scaling": {"full_attention": {"rope_theta": 1e4}}}
    with pytest.raises(ModelLoadError, match="not objects for each type of layer"):
        parse_config(Gemma3Config, older)


def test_dynamic_positions_need_the_length_that_they_change_at():
    config = ORDINARY["Qwen3 of transformers 5"] | {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}
    parse_config(Qwen3Config, config)
    del config["max_position_embeddings"]
    with pytest.raises(ModelLoadError, match="lacks max_position_embeddings"):
        parse_config(Qwen3Config, config)


def test_what_the_reference_does_not_read_for_one_type_of_layer_is_refused():
    rope = {"full_attention": {**YARN, "truncate": False}}
    older = {key: value for key, value in ORDINARY["EmbeddingGemma"].items() if not key.startswith("rope_")}
    parse_config(Gemma3Config, older | {"rope_parameters": {"full_attention": YARN}})
    with pytest.raises(ModelLoadError, match="truncate = False is not supported"):
        parse_config(Gemma3Config, older | {"rope_parameters": rope})


def test_an_older_name_that_the_reference_does_not_read_is_refused():
    """In Gemma's `rope_scaling` transformers reads `rope_type` only, and would not scale."""
    older = {key: value for key, value in ORDINARY["EmbeddingGemma"].items() if key != "rope_scaling"}
    scaling = {"rope_type": "linear", "factor": 8.0}
    found = parse_config(Gemma3Config, older | {"rope_scaling": scaling}).rotations
    assert found["full_attention"].frequencies is not None
    assert found["sliding_attention"].frequencies is None
    with pytest.raises(ModelLoadError, match="must be called rope_type"):
        parse_config(Gemma3Config, older | {"rope_scaling": {"type": "linear", "factor": 8.0}})
