"""Make the ONNX files of a model for `benchmarks.compare`: ours with `akidb-mlx export`, the peers' with torch."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from akidb_mlx.cli.commands import create_app
from benchmarks import environments
from benchmarks.contestants import ONNX_RUNTIME, OPENVINO, OURS, ModelFiles

_FOLDER = environments.ROOT / ".bench" / "onnx"


def with_graphs(model: str, files: ModelFiles, contestants: Collection[str]) -> tuple[ModelFiles, dict[str, str]]:
    """Return a model's files with the ONNX files that contestants need, and the reason for each who has none."""
    lacking: dict[str, str] = {}
    folder = _FOLDER / model
    if files.device == "cpu" and OURS in contestants:
        ours = folder / "akidb-mlx"
        shutil.rmtree(ours, ignore_errors=True)  # the export may have changed
        done = CliRunner().invoke(create_app(), ["export", files.name, "-o", str(ours)])
        if done.exit_code:
            lacking[OURS] = done.output.strip()
        files = replace(files, exported=str(ours))
    peers = [name for name in (ONNX_RUNTIME, OPENVINO) if name in contestants]
    if peers:
        reason = _export_with_torch(files.directory, folder / "torch")
        lacking |= dict.fromkeys(peers, reason) if reason else {}
        files = replace(files, onnx=str(folder / "torch"))
    return files, lacking


def _export_with_torch(directory: str, folder: Path) -> str:
    """Write the peers' files if they are absent; return the reason if they cannot be."""
    report = folder / "report.json"
    if report.exists():
        return ""
    python = environments.find_python(ONNX_RUNTIME)
    if python is None:
        return environments.INSTALL_COMMAND
    done = subprocess.run(
        [python, "-m", "benchmarks.contestants.onnx_export", directory, str(folder)],
        cwd=environments.ROOT,
        env=environments.process_variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"torch cannot write its graph: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    report.write_text(done.stdout.splitlines()[-1], encoding="utf-8")
    return ""
