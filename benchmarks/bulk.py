"""Compare `embed_files` with `embed_array` on the same texts, and with what people run today.

python -m benchmarks.bulk [--model minilm|tiny-bert] [--rows 20000] [--peers] [--install] [--json FILE]

Each way has a process of its own, and all take turns. The texts are sentences of the STS benchmark, each different by
another one's words; for tiny-bert, short pieces of them. Times leave out loading the model.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from akidb_mlx import EmbeddingService
from benchmarks.environments import CORES, ROOT, process_variables
from tests.support import GOLDENS, sts_pairs

_OURS = ("embed_files", "embed_array")
# The environment of each peer; datasets has one of its own, with sentence-transformers.
_PEERS = {
    "encode": "sentence-transformers",
    "encode, a process per core": "sentence-transformers",
    "datasets.map": "datasets",
}
_REQUIREMENTS = ["datasets==5.2.0", "sentence-transformers==6.2.0", "transformers==5.23.0", "torch==2.15.0"]


def main(
    model: Annotated[str, typer.Option(help="minilm, or tiny-bert on short rows.")] = "minilm",
    rows: Annotated[int, typer.Option(help="Rows to embed.")] = 20_000,
    rounds: Annotated[int, typer.Option(help="Turns of each way; the median counts.")] = 1,
    peers: Annotated[bool, typer.Option("--peers", help="Measure the peers too.")] = False,
    install: Annotated[bool, typer.Option("--install", help="Make the environment of datasets if absent.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measure each way on the same rows."""
    if install:
        _install()
    pythons = dict.fromkeys(_OURS, Path(sys.executable))
    if peers:
        pythons |= {way: ROOT / ".bench" / name / "bin" / "python" for way, name in _PEERS.items()}
    texts = make_texts(rows, short=model == "tiny-bert")
    directory = _directory(model)
    measured: dict[str, list[dict[str, Any]]] = {way: [] for way in pythons}
    with tempfile.TemporaryDirectory() as name, Console(stderr=True).status("measuring") as status:
        folder = Path(name)
        pq.write_table(pa.table({"text": texts}), folder / "rows.parquet")
        (folder / "rows.json").write_text(json.dumps(texts), encoding="utf-8")
        for turn in range(rounds):
            for number, (way, python) in enumerate(pythons.items()):
                status.update(f"{way}, round {turn + 1}")
                data = folder / ("rows.json" if way.startswith("encode") else "rows.parquet")
                arguments = [way, str(data), directory, f"{folder}/{turn}-{number}", str(CORES)]
                script = ROOT / "benchmarks" / "bulk_contestant.py"
                variables = process_variables() | {"PYTHONPATH": str(ROOT) if way in _OURS else ""}
                done = subprocess.run(
                    [python, script, *arguments], env=variables, stdout=subprocess.PIPE, text=True, check=True
                )
                measured[way].append(json.loads(done.stdout.splitlines()[-1]))
    table = Table("", "rows/s", "of embed_array", "CPU ms a row", "peak MB")
    speeds = {way: statistics.median(one["rows"] / one["seconds"] for one in every) for way, every in measured.items()}
    for way, speed in speeds.items():
        memory = max(one["peak_MB"] for one in measured[way])
        used = statistics.median(1000 * one["cpu_seconds"] / one["rows"] for one in measured[way])
        # The pool's work is in processes of its own.
        shown = "" if way == "encode, a process per core" else f"{used:.3f}"
        table.add_row(way, f"{speed:,.0f}", f"{speed / speeds['embed_array']:.3f}", shown, f"{memory:,.0f}")
    Console().print(table)
    if json_file:
        report = {"model": model, "rows": rows, "rounds": rounds, "cores": CORES, "figures": measured}
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def make_texts(count: int, short: bool) -> list[str]:
    """Return different texts of the lengths of the STS sentences, or of a few words."""
    first, second, _ = sts_pairs()
    sentences = [sentence.split() for sentence in dict.fromkeys([*first, *second])]
    rng = np.random.default_rng(0)
    texts = []
    for number in range(count):
        words = list(sentences[rng.integers(len(sentences))])
        other = sentences[rng.integers(len(sentences))]
        if short:
            texts.append(f"{words[0]} {other[-1]} {number}")
        else:
            words[rng.integers(len(words))] = other[rng.integers(len(other))]
            texts.append(" ".join(words))
    return texts


def _directory(model: str) -> str:
    if model == "tiny-bert":
        return str(GOLDENS / "tiny-bert")
    with EmbeddingService("minilm-l6-v2", device="cpu") as service:
        return service.get_model_info()["path"]


def _install() -> None:
    directory = ROOT / ".bench" / "datasets"
    if not directory.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "--quiet", *_REQUIREMENTS], check=True)


if __name__ == "__main__":
    typer.run(main)
