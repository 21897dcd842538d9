"""MLX's memory allocator: its bound, its gauge, and how memory is given back."""

from __future__ import annotations

import mlx.core as mx

from akidb_mlx.runtime import cpu_runtime

# Bytes that MLX may keep for reuse: the buffers of a few full batches.
_CACHE_LIMIT = {"cpu": 128 << 20, "gpu": 1 << 30}


def limit_memory(device: mx.Device) -> None:
    """Bound the memory that MLX keeps for reuse; without a limit it keeps a buffer of every size it ever met.

    On a CPU it keeps none where malloc does, which finds the next buffer faster.
    """
    name = str(device.type.name)
    malloc_keeps = name == "cpu" and cpu_runtime.malloc_keeps_memory()
    mx.set_cache_limit(0 if malloc_keeps else _CACHE_LIMIT[name])


def memory() -> dict[str, int]:
    """Return the bytes that MLX holds: `active` in arrays, `cached` for reuse, and the `peak` of the active ones."""
    return {"active": mx.get_active_memory(), "cached": mx.get_cache_memory(), "peak": mx.get_peak_memory()}


def release_memory() -> None:
    """Give back the memory that MLX and malloc only keep for reuse."""
    mx.clear_cache()
    cpu_runtime.release_memory()


def available_memory(device: mx.Device) -> int:
    """Return the bytes that new arrays may take without harm.

    A GPU has the working set that Metal recommends, less the memory in use; a CPU what the system says is available, or
    half of the system's memory where it does not say.
    """
    recommended = mx.device_info(device).get("max_recommended_working_set_size")
    if recommended is not None:
        return max(0, int(recommended) - int(mx.get_active_memory()))
    return cpu_runtime.available_memory()
