"""Compare embedded_db with Chroma and LanceDB on the part that they have: vectors, and a filter on metadata.

python -m benchmarks.database_peers [--messages 50000] [--json FILE] [--install]

Each works in a process of its own, in its own environment in `.bench`, on the same unit vectors, which lie around 500
random centres, with a sender out of 20. Recall is the share of the ten nearest by NumPy that were found; a result that
the filter excludes is an error. Everything is on the disk, and as each one's documentation shows it: Chroma builds
HNSW, LanceDB searches a table without an index exactly, and with IVF-PQ approximately.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.environments import ROOT, process_variables

QUERIES, NEAREST, SENDERS, DIMENSION = 50, 10, 20, 384
OURS = "embedded_db"
# Vectors lie around so many centres, at cosines of about 0.5, since approximate indexes find little among plain noise.
_TOPICS = 500
_REQUIREMENTS = {"chroma": ["chromadb==1.5.9"], "lancedb": ["lancedb==0.40.0", "pyarrow"]}
# The contestants, and the environment of each.
_ENVIRONMENTS = {OURS: OURS, "chroma": "chroma", "lancedb": "lancedb", "lancedb, IVF-PQ": "lancedb"}
_FIGURES = ("messages_per_s", "all_ms", "all_recall", "filtered_ms", "filtered_recall", "MB")


def main(
    messages: Annotated[int, typer.Option(help="Vectors to search.")] = 50_000,
    install: Annotated[bool, typer.Option("--install", help="Make the peers' environments that are absent.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measure embedded_db, Chroma and LanceDB one after the other."""
    if install:
        _install()
    report: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        truth = _prepare(Path(folder), messages)
        with Console(stderr=True).status("measuring") as status:
            for name, environment in _ENVIRONMENTS.items():
                python = Path(sys.executable) if name == OURS else _python(environment)
                if not python.exists():
                    report[name] = {"note": "not installed: --install"}
                    continue
                status.update(name)
                report[name] = _measure(python, name, Path(folder), truth)
    columns = ("", "inserts/s", "query, ms", "recall", "filtered, ms", "recall", "MB on disk")
    table = Table(*columns)
    for name, figures in report.items():
        cells = [f"{figures[key]:.4g}" for key in _FIGURES] if "note" not in figures else [figures["note"]]
        table.add_row(f"{name} {figures.get('version', '')}", *cells)
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps({"messages": messages, "figures": report}, indent=1) + "\n", encoding="utf-8")


def _prepare(folder: Path, messages: int) -> dict[str, list[list[int]]]:
    """Write vectors, senders and queries; return the nearest of each query by NumPy, without and with the filter."""
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((_TOPICS, DIMENSION), dtype=np.float32)
    vectors, queries = (
        topics[rng.integers(0, _TOPICS, count)] + rng.standard_normal((count, DIMENSION), dtype=np.float32)
        for count in (messages, QUERIES)
    )
    for one in (vectors, queries):
        one /= np.linalg.norm(one, axis=1, keepdims=True)
    senders = rng.integers(0, SENDERS, messages)
    asked = rng.integers(0, SENDERS, QUERIES)
    np.savez(folder / "data.npz", vectors=vectors, queries=queries, senders=senders, asked=asked)
    scores = queries @ vectors.T
    truth = {"all": np.argsort(-scores, axis=1)[:, :NEAREST].tolist()}
    scores[senders[np.newaxis] != asked[:, np.newaxis]] = -2
    truth["filtered"] = np.argsort(-scores, axis=1)[:, :NEAREST].tolist()
    return truth


def _measure(python: Path, name: str, folder: Path, truth: dict[str, list[list[int]]]) -> dict[str, Any]:
    """Run one contestant in a process, and compare its results with NumPy's."""
    with tempfile.TemporaryDirectory() as store:
        script = Path(__file__).parent / "database_contestant.py"
        environment = {**process_variables(), "PYTHONPATH": str(ROOT) if name == OURS else "", "DO_NOT_TRACK": "1"}
        command = [python, script, name, folder / "data.npz", store]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"note": f"failed: {done.stderr.strip().splitlines()[-1:]}"}
        found = json.loads(done.stdout.splitlines()[-1])
        size = sum(file.stat().st_size for file in Path(store).rglob("*") if file.is_file())
    senders, asked = (np.load(folder / "data.npz")[key] for key in ("senders", "asked"))
    for results, sender in zip(found["filtered"], asked, strict=True):
        assert all(senders[number] == sender for number in results), f"{name} returned what the filter excludes"
    figures = {key: found[key] for key in ("version", "messages_per_s", "all_ms", "filtered_ms")}
    for kind, nearest in truth.items():
        hits = [len(set(one) & set(other)) for one, other in zip(found[kind], nearest, strict=True)]
        figures[f"{kind}_recall"] = float(np.mean(hits)) / NEAREST
    return {**figures, "MB": size / 1e6}


def _python(environment: str) -> Path:
    return ROOT / ".bench" / environment / "bin" / "python"


def _install() -> None:
    for name, requirements in _REQUIREMENTS.items():
        if not _python(name).exists():
            subprocess.run([sys.executable, "-m", "venv", ROOT / ".bench" / name], check=True)
            pip = [_python(name), "-m", "pip", "install", "--quiet", *requirements, "numpy"]
            subprocess.run(pip, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


if __name__ == "__main__":
    typer.run(main)
