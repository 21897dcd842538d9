"""llama.cpp through llama-cpp-python: its import, its messages and its models."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from akidb_mlx.errors import ConfigurationError, ModelLoadError
from akidb_mlx.settings import DeviceName

logger = logging.getLogger(__name__)

# The level of the messages that are kept for errors.
_ERROR = 4
_ALL_LAYERS = -1
_LONGEST_REASON = 300
# The latest messages that llama.cpp gave as errors.
_complaints: deque[str] = deque(maxlen=3)


def is_installed() -> bool:
    """Return whether llama-cpp-python is installed, without importing it."""
    return find_spec("llama_cpp") is not None


def check_installed() -> None:
    """Look for llama-cpp-python, without importing it.

    Raises:
        ConfigurationError: it is not installed.
    """
    if not is_installed():
        raise ConfigurationError(
            "backend llama.cpp: llama-cpp-python is not installed: pip install 'akidb-mlx[llama-cpp]' (it compiles C++)"
        )


@cache
def import_llama_cpp() -> Any:
    """Import llama-cpp-python, and take its messages, which would else go to standard error.

    Raises:
        ConfigurationError: it is not installed, or cannot start.
    """
    check_installed()
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigurationError(f"backend llama.cpp: it cannot start on this machine: {error}") from error
    callback = llama_cpp.llama_log_callback(_note)
    llama_cpp.llama_log_set(callback, None)
    llama_cpp.llama_backend_init()
    _kept.append(callback)
    return llama_cpp


# Functions that llama.cpp calls until the process ends.
_kept: list[Any] = []


class LoadedGguf:
    """A model of llama.cpp's, freed when it is collected, so that no call can use one that was freed.

    Attributes:
        handle: llama.cpp's pointer to it.
        on_gpu: whether its layers are on a GPU.
        vocabulary: the pointer to its tokens.
    """

    def __init__(self, file: Path, device: DeviceName, *, vocabulary_only: bool = False) -> None:
        """Load a file whose header was checked.

        Args:
            file: the file.
            device: "gpu" puts all layers there, and so does "auto" if llama.cpp was built for one.
            vocabulary_only: whether no weights are read.

        Raises:
            ModelLoadError: llama.cpp refuses the file.
            ConfigurationError: llama-cpp-python is not installed, or has no GPU.
        """
        self.handle: Any = None
        self._library = library = import_llama_cpp()
        has_gpu = bool(library.llama_supports_gpu_offload())
        if device == "gpu" and not has_gpu:
            raise ConfigurationError("device gpu: this llama-cpp-python was built without one; use cpu or auto")
        self.on_gpu = has_gpu and device != "cpu" and not vocabulary_only
        parameters = library.llama_model_default_params()
        parameters.vocab_only = vocabulary_only
        parameters.n_gpu_layers = _ALL_LAYERS if self.on_gpu else 0
        parameters.check_tensors = not vocabulary_only  # no NaN and no infinite scale
        _complaints.clear()
        self.handle = library.llama_model_load_from_file(str(file).encode(), parameters)
        if not self.handle:
            raise ModelLoadError(f"{file} cannot be loaded by llama.cpp: {complaint() or 'it does not say why'}")
        self.vocabulary: Any = library.llama_model_get_vocab(self.handle)

    def __del__(self) -> None:
        if self.handle:
            self._library.llama_model_free(self.handle)


def complaint() -> str:
    """Return the latest errors that llama.cpp gave, on one line and not too long."""
    text = "; ".join(_complaints)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _note(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Take a message of llama.cpp's, on any of its threads."""
    message = " ".join(text.decode(errors="replace").split())
    if not message:
        return
    logger.debug("%s", message)
    if level == _ERROR:
        _complaints.append(message)
