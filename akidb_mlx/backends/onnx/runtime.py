"""ONNX Runtime: its import, its devices and its sessions."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from akidb_mlx.errors import ConfigurationError, ModelLoadError
from akidb_mlx.settings import DeviceName

_LONGEST_REASON = 300
_CPU = "CPUExecutionProvider"
_GPUS = ("CUDAExecutionProvider", "CoreMLExecutionProvider")
# CUDA rounds the factors of float32 products to TF32 unless it is told not to.
_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
# Only what ends the process is logged; all else comes as an exception.
_FATAL = 4
# Since version 1.29, ONNX Runtime reports to its makers how it is used, unless it finds this when it is imported.
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


def is_installed() -> bool:
    """Return whether ONNX Runtime is installed, without importing it."""
    return find_spec("onnxruntime") is not None


def check_installed() -> None:
    """Look for ONNX Runtime, without importing it.

    Raises:
        ConfigurationError: it is not installed.
    """
    if not is_installed():
        raise ConfigurationError("backend onnx: ONNX Runtime is not installed: pip install 'akidb-mlx[onnx]'")


def find_provider(device: DeviceName) -> str:
    """Return the execution provider for a device; "auto" is the CPU.

    Raises:
        ConfigurationError: this ONNX Runtime has none for a GPU, or cannot be imported.
    """
    if device != "gpu":
        return _CPU
    available = _import().get_available_providers()
    found = next((provider for provider in _GPUS if provider in available), None)
    if found is None:
        raise ConfigurationError(
            f"device gpu: this ONNX Runtime has neither CUDA nor CoreML (found {', '.join(available)}); install "
            "onnxruntime-gpu, or use cpu or auto"
        )
    return found


def open_session(file: Path, provider: str, threads: int) -> Any:
    """Return a session, an object of ONNX Runtime, for a file that was inspected.

    Args:
        file: the model.
        provider: what computes; the operators that it lacks run on the CPU.
        threads: how many compute one batch; 0 lets ONNX Runtime choose.

    Raises:
        ModelLoadError: ONNX Runtime refuses the file.
        ConfigurationError: the provider cannot start.
    """
    runtime = _import()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _FATAL
    # Threads that wait would else take a core from those of other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [(name, _OPTIONS.get(name, {})) for name in dict.fromkeys((provider, _CPU))]
    try:
        session = runtime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:
        # Its exceptions have no common class but this one.
        raise ModelLoadError(f"{file} cannot be loaded by ONNX Runtime: {shorten(error)}") from error
    if provider not in session.get_providers():
        raise ConfigurationError(f"device gpu: ONNX Runtime cannot start {provider} on this machine")
    return session


def shorten(error: BaseException) -> str:
    """Return the message of an error of ONNX Runtime, on one line and not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _import() -> Any:
    check_installed()
    os.environ.setdefault(_NO_TELEMETRY, "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(
            f"backend onnx: ONNX Runtime cannot start on this machine: {shorten(error)}"
        ) from error
    onnxruntime.disable_telemetry_events()  # for a process that had imported it before
    return onnxruntime
