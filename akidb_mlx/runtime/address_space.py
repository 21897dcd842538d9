"""The address space that OpenBLAS needs, which a limit (`ulimit -v`) may deny."""

from __future__ import annotations

import ctypes
import mmap
import resource
from contextlib import ExitStack

from akidb_mlx.errors import ModelLoadError

# OpenBLAS works in a buffer of this size for each of its threads and for each product that runs beside others. Where it
# cannot map one, it tries again for ever (`blas_memory_alloc` in driver/others/memory.c).
BUFFER_BYTES = 128 << 20
# Used by libraries, threads' stacks and malloc's arenas, while a small model is loaded and runs.
_OTHER_BYTES = 512 << 20
_LIMITS = {"ulimit -v": resource.RLIMIT_AS, "ulimit -d": resource.RLIMIT_DATA}


def check_address_space(buffers: int) -> None:
    """Fail if this process may not map what OpenBLAS and a small model need.

    Raises:
        ModelLoadError: there is a limit; the message names it and what is needed.
    """
    needed = buffers * BUFFER_BYTES + _OTHER_BYTES
    with ExitStack() as mapped:
        try:
            # In pieces: the system refuses a single mapping that is larger than its memory.
            for _ in range(needed // BUFFER_BYTES):
                mapped.enter_context(mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        except OSError as error:
            raise ModelLoadError(
                f"this process may not map the {needed >> 20} MB of address space that loading a model needs beside "
                f"what it has ({_describe_limits()}): raise the limit, or let the process run on fewer cores, each of "
                f"which takes {2 * BUFFER_BYTES >> 20} MB"
            ) from error


def reserve_buffers(openblas: ctypes.CDLL, count: int) -> None:
    """Let OpenBLAS map buffers now, while there is room; it keeps them. They take no memory before they are used."""
    if not hasattr(openblas, "blas_memory_alloc"):  # a build that exports its public functions only
        return
    allocate, free = openblas.blas_memory_alloc, openblas.blas_memory_free
    allocate.restype, allocate.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_int], [ctypes.c_void_p]
    for buffer in [allocate(0) for _ in range(count)]:
        free(buffer)


def _describe_limits() -> str:
    limits = {name: resource.getrlimit(kind)[0] for name, kind in _LIMITS.items()}
    found = [f"{name} is {limit >> 10}" for name, limit in limits.items() if limit != resource.RLIM_INFINITY]
    return ", ".join(found) or "no limit of its own: the system is short of memory"
