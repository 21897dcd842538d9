"""The numbers that macOS tells about itself."""

from __future__ import annotations

import ctypes
import os
import sys


def sysctl(name: str) -> int | None:
    """Return the number that the system keeps under a name of `sysctl`; None where there is none of that name."""
    if sys.platform != "darwin":
        return None
    # Zero and little-endian: it is right for a system that writes four of the eight bytes, too.
    value = ctypes.c_int64(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    failed = ctypes.CDLL(None).sysctlbyname(
        name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return None if failed else value.value


def performance_cores() -> int | None:
    """Return how many cores are the fast ones; None where the system does not tell."""
    return sysctl("hw.perflevel0.logicalcpu")


def is_translated() -> bool:
    """Return whether this is a program for Intel that Rosetta translates."""
    return bool(sysctl("sysctl.proc_translated"))


def available_memory() -> int | None:
    """Return the bytes that the system could give without swapping: pages that are free, purgeable or read from files.

    None where the system does not tell.
    """
    counts = [sysctl(f"vm.page_{kind}_count") for kind in ("free", "purgeable", "pageable_external")]
    if None in counts:
        return None
    return sum(count or 0 for count in counts) * os.sysconf("SC_PAGE_SIZE")
