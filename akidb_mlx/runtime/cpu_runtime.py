"""The CPU that MLX computes on: its BLAS, cores and memory.

On Linux the MLX wheel carries a reference BLAS; a system OpenBLAS that is loaded first, with its symbols global, is
what the wheel's calls then reach (80 times the speed in a float32 matrix product). And glibc gives every large block
back to the system as soon as it is freed, where MLX frees and takes the same sizes again for every operation; with
these thresholds it keeps them, at the price of a resident size that stays at its peak.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from pathlib import Path

from akidb_mlx.runtime import address_space, macos

logger = logging.getLogger(__name__)

# Debian and Ubuntu, Fedora and Arch: the first that loads.
_OPENBLAS = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")
# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_blas = "accelerate" if sys.platform == "darwin" else "reference"
_openblas: ctypes.CDLL | None = None
_malloc_keeps = False


def prepare() -> None:
    """On Linux, load OpenBLAS and set malloc's thresholds, before MLX is imported; doing it twice changes nothing.

    Raises:
        ModelLoadError: a limit on the address space leaves too little for OpenBLAS.
    """
    if sys.platform != "linux":
        return
    if "mlx.core" in sys.modules and _blas == "reference":
        logger.warning("mlx was imported before akidb_mlx could load OpenBLAS: matrix products on the CPU may be slow")
    if _openblas is None:
        _load_openblas()
    _keep_freed_memory()


def blas() -> str:
    """Return the BLAS that MLX's CPU backend computes with: "accelerate", "openblas" or "reference" (slow)."""
    return _blas


def cores() -> int:
    """Return how many cores this process may use; on a Mac the performance cores, as the others hold up each step."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return macos.performance_cores() or os.cpu_count() or 1


def set_blas_threads(count: int) -> None:
    """Let one matrix product use `count` threads; only OpenBLAS can be told."""
    if _openblas is not None:
        _openblas.openblas_set_num_threads(count)


def malloc_keeps_memory() -> bool:
    """Return whether malloc keeps freed memory for the next array, so that nobody else has to."""
    return _malloc_keeps


def release_memory() -> None:
    """Give memory that malloc keeps for reuse back to the system."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def available_memory() -> int:
    """Return the bytes that the system could give without swapping; half of all memory where it does not say."""
    if sys.platform == "linux":
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    if (available := macos.available_memory()) is not None:
        return available
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _load_openblas() -> None:
    global _blas, _openblas
    limited = address_space.is_limited()
    # A product on each core and each of OpenBLAS's threads, one fewer, take a buffer.
    threads, buffers = cores() - 1, 2 * cores() - 1
    if limited:
        address_space.share_malloc_arena()
        address_space.check_capacity(buffers + threads)  # the threads may have theirs before the others are reserved
    for name in _OPENBLAS:
        try:
            _openblas = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        _blas = "openblas"
        if limited:
            address_space.reserve_buffers(_openblas, buffers)
        return
    logger.warning(
        "OpenBLAS is not installed: the CPU backend is far slower (Debian: apt install libopenblas0-pthread)"
    )


def _keep_freed_memory() -> None:
    global _malloc_keeps
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # musl has none
        return
    _malloc_keeps = bool(libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    if not _malloc_keeps:
        logger.warning("malloc did not take its thresholds: the CPU backend is slower")
