"""Find and install the Python environments of the contestants: ours is this one, each peer has one in `.bench`.

`python -m benchmarks.compare --install` makes those that are absent.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

from akidb_mlx.runtime import cpu_runtime
from benchmarks.contestants import MODEL2VEC, NAIVE, ONNX_RUNTIME, OPENVINO, OURS, OURS_ON_MLX, REFERENCE

ROOT = Path(__file__).parent.parent
CORES = cpu_runtime.cores()
INSTALL_COMMAND = "python -m benchmarks.compare --install"

_MLX = "mlx[cpu]" if sys.platform == "linux" else "mlx"
_REQUIREMENTS = {
    REFERENCE: ["sentence-transformers==6.2.0", "transformers==5.23.0", "torch==2.15.0"],
    # mlx-embeddings does not declare mlx-lm, which its Gemma imports.
    "mlx-embeddings": [
        "mlx-embeddings==0.1.0",
        "mlx-lm==0.32.2",
        "mlx-vlm==0.7.10",
        "transformers==5.23.0",
        f"{_MLX}=={version('mlx')}",
    ],
    ONNX_RUNTIME: ["onnxruntime==1.32.0", "onnx==1.23.2", "onnxscript==0.7.2"],
    OPENVINO: ["openvino==2026.4.1", "tokenizers==0.23.3"],
    MODEL2VEC: ["model2vec==0.10.0"],
}
# An environment that also sees the packages of another, which it needs to write a graph and not to compute it.
_SEES = {ONNX_RUNTIME: REFERENCE}
_DISTRIBUTIONS = {
    OURS: ["akidb-mlx", "mlx", "onnxruntime"],
    REFERENCE: ["sentence-transformers", "transformers", "torch"],
    "mlx-embeddings": ["mlx-embeddings", "mlx", "mlx-lm", "transformers"],
    ONNX_RUNTIME: ["onnxruntime", "onnx", "torch"],
    OPENVINO: ["openvino"],
    MODEL2VEC: ["model2vec", "numpy", "tokenizers"],
}
# The environment of each contestant.
_ENVIRONMENTS = {
    OURS: OURS,
    OURS_ON_MLX: OURS,
    REFERENCE: REFERENCE,
    "mlx-embeddings": "mlx-embeddings",
    NAIVE: "mlx-embeddings",
    ONNX_RUNTIME: ONNX_RUNTIME,
    OPENVINO: OPENVINO,
    MODEL2VEC: MODEL2VEC,
}


def find_python(contestant: str) -> Path | None:
    """Return the Python that runs a contestant, or None if its environment is absent."""
    if _ENVIRONMENTS[contestant] == OURS:
        return Path(sys.executable)
    python = _directory(contestant) / "bin" / "python"
    return python if python.exists() else None


def process_variables() -> dict[str, str]:
    """Return the environment variables of every contestant: the same number of threads, no NVIDIA GPU, no network.

    ONNX Runtime would else report to its makers how it is used, and take time for it.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(CORES))
    return {**os.environ, **threads, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}


def installed_versions(contestant: str) -> dict[str, str]:
    """Return the versions of a contestant's packages; an empty dictionary if its environment is absent."""
    python = find_python(contestant)
    if python is None:
        return {}
    code = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found = json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)
    return {name: found[name] for name in _DISTRIBUTIONS[_ENVIRONMENTS[contestant]] if name in found}


def install() -> None:
    """Make the peers' environments that are absent."""
    for peer, requirements in _REQUIREMENTS.items():
        if find_python(peer):
            continue
        directory = _directory(peer)
        python = directory / "bin" / "python"
        try:
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            if peer in _SEES:
                seen = _packages(_directory(_SEES[peer]))
                (_packages(directory) / "seen.pth").write_text(f"{seen}\n", encoding="utf-8")
            subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise


def _directory(contestant: str) -> Path:
    return ROOT / ".bench" / _ENVIRONMENTS[contestant]


def _packages(directory: Path) -> Path:
    """Return the folder of an environment's packages."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(directory)}))
