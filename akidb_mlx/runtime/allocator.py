"""MLX's memory allocator: its bound, its gauge, and how memory is given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

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

    That is what the system says is available, or half of its memory where it does not say. On a GPU it is also bounded
    by the working set that Metal recommends for one process, less what this process has in use.
    """
    available = cpu_runtime.available_memory()
    recommended = _recommended_working_set(device)
    if recommended is None:
        return available
    return max(0, min(available, recommended - int(mx.get_active_memory())))


# Bytes that each user of `wired` needs beside what MLX holds, and MLX's limit before the first of them.
_wired_lock = threading.Lock()
_wired_needs: list[int] = []
_wired_before = 0


@contextmanager
def wired(device: mx.Device, more_bytes: int) -> Iterator[None]:
    """Keep what MLX holds on a GPU, and so many bytes more, from being paged out inside the `with` block.

    A large model would else be paged in again for each token. No more is wired than that, and no more than the working
    set that Metal recommends: the rest of the system needs memory too, and a Mac without any freezes. Nothing on the
    device may run when the block ends.
    """
    recommended = _recommended_working_set(device)
    if recommended is None:
        yield
        return
    _change_wired(recommended, add=more_bytes)
    try:
        yield
    finally:
        _change_wired(recommended, remove=more_bytes)


def _change_wired(recommended: int, add: int | None = None, remove: int | None = None) -> None:
    global _wired_before
    with _wired_lock:
        first = not _wired_needs
        if add is not None:
            _wired_needs.append(add)
        if remove is not None:
            _wired_needs.remove(remove)
        if not _wired_needs:
            mx.set_wired_limit(_wired_before)
            return
        held = mx.get_active_memory() + mx.get_cache_memory()
        before = mx.set_wired_limit(min(recommended, held + sum(_wired_needs)))
        if first:
            _wired_before = before


def _recommended_working_set(device: mx.Device) -> int | None:
    """Return the bytes that Metal recommends one process to use on a GPU at most; None on other devices."""
    recommended = mx.device_info(device).get("max_recommended_working_set_size")
    return None if recommended is None else int(recommended)
