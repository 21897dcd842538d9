"""Every choice that depends on the device: where, in which precision, with which kernels, in batches of what size.

Two ways to run a model exist. The *exact* one is a CPU's: the weights are dequantised once at load, everything is
float32, and vectorisable functions stand in for MLX's scalar ones. The *native* one is a GPU's: weights stay quantised,
activations have the checkpoint's own precision, and MLX's fused kernels run. Asking for a half precision on a CPU runs
the native way there, which is slow and shows that what a GPU will run is right.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mlx.core as mx

from akidb_mlx.backends.mlx import activations
from akidb_mlx.backends.mlx.activations import Activation
from akidb_mlx.backends.mlx.attention import Attention, additive, fused_attention, in_blocks, vectorised_attention
from akidb_mlx.errors import ConfigurationError, ModelLoadError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.settings import DeviceName, Precision

Rotation = Callable[[mx.array], mx.array]

# Most tokens in one batch. On a CPU core a narrow model is the fastest where its activations stay in the cache, and a
# wide one where more tokens share the reading of its weights; a GPU must be filled: see docs/performance.md.
_TOKEN_BUDGET = {"cpu": 384, "gpu": 8192}
_WIDE, _WIDE_TOKEN_BUDGET = 768, 640
# Most attention scores that are held at once, of all heads. A CPU core should find them in its cache; a GPU's kernel
# seldom holds them at all.
_MAX_SCORES = {"cpu": 400_000, "gpu": 1 << 26}
# Beyond this many lanes, the one thread that hands out their operations would be what they wait for.
_MAX_LANES = 8
# Tokens of a prompt that a language model reads in one turn on the device: a fraction of a second.
_PREFILL_TOKENS = {"cpu": 64, "gpu": 512}
# M1 and M2 emulate bfloat16 (GPU families g13 and g14).
_SLOW_BFLOAT16 = re.compile(r"applegpu_g1[34]")

# Bytes that MLX may keep for reuse: the buffers of a few full batches. On a CPU only where malloc does not keep them,
# which finds the next one faster.
_CACHE_LIMIT = {"cpu": 128 << 20, "gpu": 1 << 30}

_thread = threading.local()
_claim_lock = threading.Lock()
_claimed: mx.Device | None = None


@dataclass(frozen=True)
class ExecutionPlan:
    """How one model runs on one device.

    Attributes:
        device: where.
        dtype: type of the activations and of unquantised weights.
        exact: whether this is the exact way (see the module) or the native one.
        token_budget: most tokens in one batch, padding included.
        lanes: how many batches run side by side. A CPU runs every operation but a matrix product on one core, so there
            is a lane for each core; a GPU is filled by one batch.
    """

    device: mx.Device
    dtype: mx.Dtype
    exact: bool
    token_budget: int
    lanes: int

    @property
    def pipelined(self) -> bool:
        """Whether a step should be handed over while the one before it runs.

        A GPU then never waits for the host. MLX's CPU backend blocks whoever hands over more than a few operations, so
        there a step would only start later.
        """
        return self.device_name == "gpu"

    @property
    def bucket_lengths(self) -> bool:
        """Whether sequences should be padded to few distinct lengths: a GPU keeps kernels and memory for each."""
        return self.device_name == "gpu"

    @property
    def device_name(self) -> str:
        """Kind of the device: "cpu" or "gpu"."""
        return str(self.device.type.name)

    @property
    def precision(self) -> str:
        """Name of the activations' type, as in "float32"."""
        return str(self.dtype).removeprefix("mlx.core.")

    def activation(self, name: str) -> Activation:
        """The activation that config.json calls `name`.

        Raises:
            ModelLoadError: there is none of that name.
        """
        table = activations.VECTORISED if self.exact else activations.NATIVE
        if name not in table:
            raise ModelLoadError(f"activation {name!r} is not supported ({', '.join(table)})")
        function = table[name]
        # One kernel for the chain of element-wise operations. MLX's CPU backend would need a C++ compiler for it.
        return mx.compile(function, shapeless=True) if self.device_name == "gpu" else function

    @property
    def attention(self) -> Attention:
        """How attention is computed."""
        return in_blocks(vectorised_attention if self.exact else fused_attention, _MAX_SCORES[self.device_name])

    def mask(self, visible: mx.array) -> mx.array:
        """What `attention` takes for an array that is True where a query may see a key; made once for all layers."""
        return additive(visible) if self.exact else visible

    def rotation(self, length: int, dimensions: int, theta: float, offset: int = 0) -> Rotation:
        """Rotary position embedding (Su et al. 2021), halves rotated against each other.

        Args:
            length: number of positions.
            dimensions: size of a head.
            theta: base of the frequencies.
            offset: the first position.

        Returns:
            A function on arrays (..., length, dimensions).
        """
        if not self.exact:
            return partial(mx.fast.rope, dims=dimensions, traditional=False, base=theta, scale=1.0, offset=offset)
        # The CPU's own kernel takes sines anew for every head and layer; these are shared by all that call `rotation`.
        half = dimensions // 2
        frequencies = 1.0 / mx.power(theta, mx.arange(half, dtype=mx.float32) / half)
        angles = mx.arange(offset, offset + length, dtype=mx.float32)[:, None] * frequencies
        cos, sin = mx.cos(angles), mx.sin(angles)

        def rotate(x: mx.array) -> mx.array:
            first, second = x[..., :half], x[..., half:]
            return mx.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

        return rotate


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
        precision: "auto" is float32 on a CPU and, on a GPU, the type the checkpoint is stored in.
        token_budget: most tokens in one batch; None for the device's default.
        stored_dtype: the checkpoint's own type, as in "float16".
        float16_overflows: whether the model's activations leave the range of float16.
        hidden_size: values of a token's vector between its layers.

    Raises:
        ConfigurationError: there is no GPU, or float16 was asked for a model that overflows it.
    """
    target = _device(device)
    name = str(target.type.name)
    if precision == "float16" and float16_overflows:
        raise ConfigurationError(
            "precision float16: this model's activations overflow it; use bfloat16, float32 or auto"
        )
    dtype: str = precision
    if precision == "auto":
        dtype = "float32" if name == "cpu" else _gpu_precision(target, stored_dtype, float16_overflows)
    return ExecutionPlan(
        device=target,
        dtype=getattr(mx, dtype),
        exact=name == "cpu" and dtype == "float32",
        token_budget=token_budget
        or (_WIDE_TOKEN_BUDGET if name == "cpu" and hidden_size >= _WIDE else _TOKEN_BUDGET[name]),
        lanes=min(cpu_runtime.cores(), _MAX_LANES) if name == "cpu" else 1,
    )


@dataclass(frozen=True)
class GenerationPlan:
    """How a language model runs on a device.

    Attributes:
        device: where.
        dequantized: whether its weights are unpacked once, at load, to float32; MLX's quantised and half-precision
            products are 30 to 1000 times slower than that on a CPU. A GPU takes them as they are.
        prefill_tokens: how many tokens of a prompt are read in one turn.
    """

    device: mx.Device
    dequantized: bool
    prefill_tokens: int


def generation_plan(device: DeviceName) -> GenerationPlan:
    """Choose how a language model runs; "auto" takes a GPU where there is one.

    Raises:
        ConfigurationError: there is no GPU.
    """
    target = _device(device)
    name = str(target.type.name)
    return GenerationPlan(device=target, dequantized=name == "cpu", prefill_tokens=_PREFILL_TOKENS[name])


def available_memory(device: mx.Device) -> int:
    """Bytes that new arrays may take without harm: what Metal recommends less what is in use, or what the system has.

    Where the system does not say what is available, half of its memory counts as that.
    """
    recommended = mx.device_info(device).get("max_recommended_working_set_size")
    if recommended is not None:
        return max(0, int(recommended) - int(mx.get_active_memory()))
    return cpu_runtime.available_memory()


def claim(device: mx.Device) -> None:
    """Make a device the one that this process computes on.

    MLX's default device belongs to the process and not to a thread, so services on different devices would move each
    other's work; the first one decides.

    Raises:
        ConfigurationError: a service of this process computes on another device.
    """
    global _claimed
    with _claim_lock:
        if _claimed is not None and _claimed != device:
            raise ConfigurationError(
                f"device {device.type.name}: this process already computes on its {_claimed.type.name}, and MLX has "
                "one device for each process; use another process, or the same device for all services"
            )
        mx.set_default_device(device)
        _claimed = device


def lane_streams(device: mx.Device, count: int) -> list[mx.Stream]:
    """One stream of this thread for each lane; MLX never frees a stream, so a thread that is used again keeps its."""
    streams: list[mx.Stream] = _thread.__dict__.setdefault("streams", [mx.default_stream(device)])
    streams.extend(mx.new_stream(device) for _ in range(count - len(streams)))
    return streams[:count]


def limit_memory(device: mx.Device) -> None:
    """Bound what MLX's allocator keeps for reuse; without a limit it keeps a buffer of every size it ever met."""
    name = str(device.type.name)
    kept_elsewhere = name == "cpu" and cpu_runtime.malloc_keeps_memory()
    mx.set_cache_limit(0 if kept_elsewhere else _CACHE_LIMIT[name])


def memory() -> dict[str, int]:
    """Bytes that MLX's allocator holds: `active` in arrays, `cached` for reuse, and the `peak` of the active ones."""
    return {"active": mx.get_active_memory(), "cached": mx.get_cache_memory(), "peak": mx.get_peak_memory()}


def release_memory() -> None:
    """Give back what is only kept for reuse, by MLX's allocator and by malloc."""
    mx.clear_cache()
    cpu_runtime.release_memory()


def describe(name: DeviceName) -> dict[str, str]:
    """The device of that name, for a person: its kind, model and architecture, and the BLAS that a CPU uses.

    Raises:
        ConfigurationError: there is no such device.
    """
    device = _device(name)
    info = mx.device_info(device)
    return {
        "device": str(device.type.name),
        "device_name": str(info.get("device_name", "unknown")),
        "architecture": str(info.get("architecture", "unknown")),
        "blas": cpu_runtime.blas(),
    }


def _device(name: DeviceName) -> mx.Device:
    if name == "cpu":
        return mx.Device(mx.cpu)
    if mx.is_available(mx.gpu):
        return mx.Device(mx.gpu)
    if name == "gpu":
        raise ConfigurationError("device gpu: MLX finds none on this machine; use cpu or auto")
    return mx.Device(mx.cpu)


def _gpu_precision(device: mx.Device, stored_dtype: str, float16_overflows: bool) -> str:
    if stored_dtype == "float32" or not float16_overflows:
        return stored_dtype
    architecture = str(mx.device_info(device).get("architecture", ""))
    return "float32" if _SLOW_BFLOAT16.match(architecture) else "bfloat16"
