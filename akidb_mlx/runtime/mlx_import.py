"""The import of MLX into a process that is ready for it.

MLX takes some of its behaviour from the environment, which it reads when it first computes, and on Linux it calls the
BLAS that was loaded before it. So whatever uses MLX calls `prepare` first. A variable that is set already stays as it
is.

- `MLX_BFS_MAX_WIDTH`: MLX hands out the operations of a graph breadth first, so those of several lanes in turn, only
  while the graph is at most 20 wide; beyond, lane after lane, of which the second waits until the first is nearly done.
- `MLX_ENABLE_TF32`: from the M5 on, MLX rounds the factors of float32 products to the 10 bits of TF32 unless this is 0.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.runtime import cpu_runtime, macos
from akidb_mlx.runtime.descriptors import open_standard_descriptors

logger = logging.getLogger(__name__)

# Wide enough for the lanes of any model.
_GRAPH_WIDTH = "1000"
_LONGEST_REASON = 300
# Of which MLX has wheels.
_CUDA_VERSIONS = (12, 13)


def prepare(allow_tf32: bool = False) -> None:
    """Make the process ready for MLX and import it; doing it twice changes nothing.

    Args:
        allow_tf32: whether a GPU may round the factors of float32 products, where the environment does not say.

    Raises:
        ConfigurationError: MLX is not installed, or cannot start on this machine.
        ModelLoadError: a limit on the address space leaves too little for OpenBLAS.
    """
    open_standard_descriptors()
    os.environ.setdefault("MLX_BFS_MAX_WIDTH", _GRAPH_WIDTH)
    if os.environ.setdefault("MLX_ENABLE_TF32", str(int(allow_tf32))) == "0" and allow_tf32:
        logger.warning("allow_tf32 has no effect, because MLX_ENABLE_TF32 is 0 in this process")
    cpu_runtime.prepare()
    check_installed()
    try:
        import mlx.core as mx

        mx.array(0.0)  # On a Mac, all arrays are allocated through Metal.
    except (ImportError, RuntimeError) as error:
        raise ConfigurationError(
            f"MLX cannot start on this machine, {_machine()}: {_reason(error)}{_needs_metal()}"
        ) from error


def may_have_gpu() -> bool:
    """Return whether MLX may compute on a GPU here, as on a Mac and with its wheel for CUDA; imports nothing."""
    if sys.platform == "darwin":
        return True
    return any(_is_installed(f"mlx-cuda-{version}") for version in _CUDA_VERSIONS)


def check_installed() -> None:
    """Look for MLX, without importing it.

    Raises:
        ConfigurationError: it is not there; the message says what it needs and what this machine is.
    """
    try:
        found = find_spec("mlx.core") is not None
    except ModuleNotFoundError:  # not even the package `mlx`
        found = False
    if not found:
        needed = (
            "a native arm64 Python on macOS 14 or newer"
            if sys.platform == "darwin"
            else "Linux with glibc on x86-64 or arm64, or a Mac with Apple silicon (pip install 'mlx[cpu]')"
        )
        raise ConfigurationError(f"MLX is not installed for this Python, {_machine()}: it needs {needed}")


def _machine() -> str:
    """Describe the machine as this Python sees it."""
    if sys.platform != "darwin":
        return f"{platform.system()} {platform.machine()}"
    translated = " under Rosetta" if macos.is_translated() else ""
    return f"macOS {platform.mac_ver()[0]} {platform.machine()}{translated}"


def _needs_metal() -> str:
    if sys.platform != "darwin":
        return ""
    return (
        "; it needs macOS 14 or newer and a Metal device, which a headless session, a sandbox or a virtual machine may "
        "not have, also with device=cpu, whose arrays are allocated through Metal"
    )


def _reason(error: Exception) -> str:
    """Return the message of an error on one line, cut short."""
    return " ".join(str(error).split())[:_LONGEST_REASON]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
