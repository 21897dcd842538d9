"""The address space of a process, which a limit (`ulimit -v`) may make too small for OpenBLAS."""

from __future__ import annotations

import ctypes
import mmap
import resource
from contextlib import ExitStack

from akidb_mlx.errors import ModelLoadError

# OpenBLAS works in a buffer of this size, at most, for each of its threads and for each product that runs beside
# others. Where it cannot map one, it tries again for ever (`blas_memory_alloc` in driver/others/memory.c).
_BUFFER_BYTES = 128 << 20
# What libraries, the stacks of threads and the arrays of a step take while a small model is loaded and runs.
_OTHER_BYTES = 512 << 20
# <malloc.h>
_M_ARENA_MAX = -8

_LIMITS = {"ulimit -v": resource.RLIMIT_AS, "ulimit -d": resource.RLIMIT_DATA}


def is_limited() -> bool:
    """Return whether this process has a limit on its address space."""
    return bool(_limits())


def check_capacity(buffers: int) -> None:
    """Fail if this process may not map `buffers` of OpenBLAS's and what a small model needs.

    Raises:
        ModelLoadError: a limit is too low; the message names it and what is needed.
    """
    needed = buffers * _BUFFER_BYTES + _OTHER_BYTES
    with ExitStack() as mapped:
        try:
            # In pieces: the system may refuse a single mapping that is larger than its memory.
            for _ in range(-(-needed // _BUFFER_BYTES)):
                mapped.enter_context(mmap.mmap(-1, _BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        except OSError as error:
            limits = ", ".join(f"{name} is {limit >> 10}" for name, limit in _limits().items())
            raise ModelLoadError(
                f"the address space is too small: running a model takes {needed >> 20} MB beside what the process "
                f"has mapped ({limits}): raise the limit, or let the process use fewer cores (taskset)"
            ) from error


def share_malloc_arena() -> None:
    """Let all threads allocate from one arena: by default each maps 64 MB for itself."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(_M_ARENA_MAX, 1)


def reserve_buffers(openblas: ctypes.CDLL, count: int) -> None:
    """Let OpenBLAS map buffers while that is possible; it keeps them. They take no memory before they are used."""
    if not hasattr(openblas, "blas_memory_alloc"):  # a build that exports its public functions only
        return
    allocate, free = openblas.blas_memory_alloc, openblas.blas_memory_free
    allocate.restype, allocate.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_int], [ctypes.c_void_p]
    for buffer in [allocate(0) for _ in range(count)]:
        free(buffer)


def _limits() -> dict[str, int]:
    found = {name: resource.getrlimit(kind)[0] for name, kind in _LIMITS.items()}
    return {name: limit for name, limit in found.items() if limit != resource.RLIM_INFINITY}
