"""The execution plan of an embedding model: every choice that depends on the device is made here.

The plan says where a model runs, in which precision, with which kernels, and in batches of what size. Beside it, two
things differ between devices: the allocator's cache limit (`runtime/allocator.py`) and the plan of a language model
(`summarization/generation_plan.py`).

A model runs in one of two ways. The *exact* one is a CPU's: the weights are dequantised once at load, everything is
float32, and functions that vectorise replace MLX's scalar ones. The *native* one is a GPU's: weights stay quantised,
activations have the checkpoint's own precision, and MLX's fused kernels run. A half precision on a CPU also runs the
native way, which is slow there; the tests use it to check the way of a GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx

from akidb_mlx.backends.mlx import activations
from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.attention import (
    METAL_HEAD_SIZES,
    Attention,
    additive_mask,
    biased_mask,
    fused_attention,
    in_blocks,
    vectorised_attention,
)
from akidb_mlx.backends.mlx.rotary import Rotation, fused_rotation, tabulated_rotation
from akidb_mlx.errors import ConfigurationError, ModelLoadError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.runtime.device import find_device
from akidb_mlx.settings import DeviceName, Precision

if TYPE_CHECKING:
    from akidb_mlx.checkpoint.architectures.rotary import RotaryPositions

# Most tokens in one batch. On a CPU core a narrow model is the fastest where its activations stay in the cache, and a
# wide one where more tokens share the reading of its weights; a GPU must be filled: see docs/performance.md.
_TOKEN_BUDGET = {"cpu": 384, "gpu": 8192}
_WIDE_HIDDEN_SIZE, _WIDE_TOKEN_BUDGET = 768, 640
# Most attention scores that are held at once, of all heads. A CPU core should find them in its cache. On a GPU they are
# bounded for the sake of memory: MLX holds them twice, before and after the mask, in the type of the activations, and
# the two arrays may take so large a share of the working set that Metal recommends.
_MAX_SCORES = {"cpu": 400_000, "gpu": 1 << 26}
_SCORE_ARRAYS, _SCORES_SHARE = 2, 1 / 16
# With more lanes than this, they would wait for the one thread that hands out their operations.
_MAX_LANES = 8
# M1 and M2 emulate bfloat16 (GPU families g13 and g14); float32, which holds each of its values, is no slower there.
_SLOW_BFLOAT16 = re.compile(r"applegpu_g1[34]")


@dataclass(frozen=True)
class ExecutionPlan:
    """The way that one model runs on one device.

    Attributes:
        device: the device it runs on.
        dtype: type of the activations and of unquantised weights.
        exact: whether it runs in the exact way or in the native one; see the module.
        token_budget: most tokens in one batch, padding included.
        lanes: how many batches run side by side. A CPU runs every operation but a matrix product on one core, so there
            is a lane for each core; one batch fills a GPU.
    """

    device: mx.Device
    dtype: mx.Dtype
    exact: bool
    token_budget: int
    lanes: int

    @property
    def pipelined(self) -> bool:
        """Return whether a step should be handed over while the one before it runs.

        A GPU then never waits for the host. MLX's CPU backend blocks whoever hands over more than a few operations, so
        there a step would only start later.
        """
        return self.device_name == "gpu"

    @property
    def bucket_lengths(self) -> bool:
        """Return whether to pad sequences to few distinct lengths; a GPU keeps kernels and memory for each length."""
        return self.device_name == "gpu"

    @property
    def device_name(self) -> str:
        """Return the kind of the device: "cpu" or "gpu"."""
        return str(self.device.type.name)

    @property
    def precision(self) -> str:
        """Return the name of the activations' type, as in "float32"."""
        return str(self.dtype).removeprefix("mlx.core.")

    @property
    def attention(self) -> Attention:
        """Return the function that computes attention."""
        if self.device_name == "cpu":
            return in_blocks(vectorised_attention if self.exact else fused_attention, _MAX_SCORES["cpu"])
        return in_blocks(fused_attention, self._max_gpu_scores(), METAL_HEAD_SIZES)

    @property
    def trial_lengths(self) -> tuple[int, ...]:
        """Return the tokens of each text that a model is tried on when it is loaded.

        A GPU compiles the kernels of a padded batch then, and not in the first call. A CPU compiles nothing.
        """
        return (32, 19) if self.device_name == "gpu" else (1,)

    def _max_gpu_scores(self) -> int:
        working_set = mx.device_info(self.device).get("max_recommended_working_set_size")
        if working_set is None:
            return _MAX_SCORES["gpu"]
        affordable = int(int(working_set) * _SCORES_SHARE) // (_SCORE_ARRAYS * self.dtype.size)
        return min(_MAX_SCORES["gpu"], affordable)

    def activation(self, name: str) -> Activation:
        """Return the activation function that config.json calls `name`.

        Raises:
            ModelLoadError: there is none of that name.
        """
        table = activations.VECTORISED if self.exact else activations.NATIVE
        if name not in table:
            raise ModelLoadError(f"activation {name!r} is not supported ({', '.join(table)})")
        function = table[name]
        # One kernel for the chain of element-wise operations. MLX's CPU backend would need a C++ compiler for it.
        return mx.compile(function, shapeless=True) if self.device_name == "gpu" else function

    def mask(self, visible: mx.array | None, bias: mx.array | None = None) -> mx.array | None:
        """Return the mask for `attention`, which is made once and serves all layers.

        Args:
            visible: True where a query (second to last axis) may see a key (last axis); None where it sees all.
            bias: added to the scores, (1, heads, length, key length); None for none.
        """
        if visible is None and bias is None:
            return None
        if self.exact:
            return additive_mask(visible, bias)
        return visible if bias is None else biased_mask(visible, bias.astype(self.dtype))

    def rotation(self, length: int, positions: RotaryPositions, offset: int = 0) -> Rotation:
        """Return the rotation of `length` positions from `offset` on; see `rotary.tabulated_rotation`."""
        return (tabulated_rotation if self.exact else fused_rotation)(length, positions, offset)


def execution_plan(
    device: DeviceName,
    precision: Precision,
    token_budget: int | None,
    stored_dtype: str,
    float16_overflows: bool,
    hidden_size: int,
) -> ExecutionPlan:
    """Choose how a model runs.

    Args:
        device: "auto" takes a GPU where there is one.
        precision: "auto" is float32 on a CPU and, on a GPU, the type the checkpoint is stored in, unless the model
            overflows that (then bfloat16) or the GPU emulates it (then float32).
        token_budget: most tokens in one batch; None for the device's default.
        stored_dtype: the checkpoint's own type, as in "float16".
        float16_overflows: whether the model's activations leave the range of float16.
        hidden_size: values of a token's vector between its layers.

    Raises:
        ConfigurationError: there is no GPU, or float16 was asked for a model that overflows it.
    """
    target = find_device(device)
    name = str(target.type.name)
    if precision == "float16" and float16_overflows:
        raise ConfigurationError(
            "precision float16: this model's activations overflow it; use bfloat16, float32 or auto"
        )
    dtype: str = precision
    if precision == "auto":
        dtype = "float32" if name == "cpu" else _gpu_precision(target, stored_dtype, float16_overflows)
    wide = name == "cpu" and hidden_size >= _WIDE_HIDDEN_SIZE
    return ExecutionPlan(
        device=target,
        dtype=getattr(mx, dtype),
        exact=name == "cpu" and dtype == "float32",
        token_budget=token_budget or (_WIDE_TOKEN_BUDGET if wide else _TOKEN_BUDGET[name]),
        lanes=min(cpu_runtime.cores(), _MAX_LANES) if name == "cpu" else 1,
    )


def _gpu_precision(device: mx.Device, stored_dtype: str, float16_overflows: bool) -> str:
    dtype = "bfloat16" if stored_dtype == "float16" and float16_overflows else stored_dtype
    architecture = str(mx.device_info(device).get("architecture", ""))
    return "float32" if dtype == "bfloat16" and _SLOW_BFLOAT16.match(architecture) else dtype
