"""Compare akidb-mlx with sentence-transformers, mlx-embeddings and a naive MLX loop, for docs/performance.md.

python -m benchmarks.compare --install    # install each peer in an environment of its own in .bench (gigabytes)
python -m benchmarks.compare [--models minilm,gemma] [--workloads sts,busy] [--device gpu] [--json FILE] [--plot FILE]

Every contestant has a process of its own, float32 and the same number of threads. They take turns: one untimed round,
then the timed ones, whose median counts. A figure is marked wrong if the cosine of a vector to that of
sentence-transformers is below 0.999, or to ours where sentence-transformers is absent. The workloads are described in
benchmarks/workloads.py.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from akidb_mlx import EmbeddingService
from akidb_mlx.errors import AkidbMlxError
from benchmarks import environments, random_modernbert, random_qwen3
from benchmarks.contestants import MODULES, NAIVE, OURS, REFERENCE, ModelFiles
from benchmarks.processes import Worker, WorkerError
from benchmarks.workloads import CALLERS, NAMES, PLANS, QUERIES, Workload, mean_tokens, workloads
from tests.support import WEIGHTS

_MIN_COSINE = 0.999
_COLD_STARTS = 5
# Models of which the weights are random, and those whose real ones are fetched beforehand.
_RANDOM = {"qwen3": random_qwen3.ensure, "modernbert": random_modernbert.ensure}
_REAL = {"gemma": "embeddinggemma-300m", "mpnet": "all-mpnet-base-v2"}
_UNITS = {"encode": "texts/s", "callers": "texts/s", "busy": "ms", "cold": "s"}

Vectors = NDArray[np.float32]


@dataclass
class Figure:
    """The measured figure of one contestant on one workload of one model."""

    model: str
    workload: str
    contestant: str
    unit: str
    texts: int
    mean_tokens: float
    status: Literal["ok", "wrong", "absent", "failed"] = "ok"
    note: str = ""
    value: float | None = None  # the median; the best of cold starts
    p95: float | None = None  # the 95th percentile of latencies
    speed: float | None = None  # divided by that of akidb-mlx
    min_cosine: float | None = None
    measured: list[float] = field(default_factory=list)

    def check(self, vectors: Vectors, expected: Vectors) -> None:
        """Compare with the reference's vectors; the naive loop has embedded only the first texts."""
        cosine = float((vectors * expected[: len(vectors)]).sum(axis=1).min())
        self.min_cosine = cosine if self.min_cosine is None else min(cosine, self.min_cosine)
        if not self.min_cosine >= _MIN_COSINE:  # NaN too
            self.status = "wrong"

    def fail(self, status: Literal["absent", "failed"], note: str) -> None:
        """Discard what was measured, and note why."""
        self.status, self.note, self.measured = status, note, []

    def summarize(self) -> None:
        """Compute the value and the percentile from what was measured."""
        if not self.measured:
            return
        self.value = min(self.measured) if self.unit == "s" else statistics.median(self.measured)
        if self.unit == "ms":
            self.p95 = float(np.percentile(self.measured, 95))


class Comparison:
    """One workload, on which the contestants take turns."""

    def __init__(self, model: str, files: ModelFiles, workload: Workload) -> None:
        self._files = files
        self._workload = workload
        self._prompt = asdict(workload.prompt) if workload.prompt else None
        self._warm_up_seconds: dict[str, float] = {}
        self._expected: Vectors | None = None
        unit, tokens = _UNITS[workload.kind], round(mean_tokens(workload, files), 1)
        self.figures = {
            name: Figure(model, workload.name, name, unit, len(texts), tokens)
            for name in MODULES
            if (texts := self._texts(name))
        }
        if NAIVE in self.figures:
            self.figures[NAIVE].note = f"first {workload.naive_texts} texts"

    def run(self, workers: dict[str, Worker], rounds: int) -> None:
        """Measure the contestants that have loaded the model."""
        names = self._run_round(self.figures.keys() & workers.keys(), lambda name: self._warm_up(name, workers[name]))
        for _ in range(rounds):
            names = self._run_round(names, lambda name: self._measure(name, workers[name]))
        self._summarize()

    def run_cold_starts(self, pythons: dict[str, Path]) -> None:
        """Measure each contestant in fresh processes."""
        names = list(self.figures.keys() & pythons.keys())
        for _ in range(_COLD_STARTS):
            names = self._run_round(names, lambda name: self._measure_cold_start(name, pythons[name]))
        self._summarize()

    def _run_round(self, names: Iterable[str], turn: Callable[[str], Vectors]) -> list[str]:
        """Give each contestant its turn, in the order of the table; return those that did not fail."""
        vectors: dict[str, Vectors] = {}
        for name in sorted(names, key=list(MODULES).index):
            try:
                vectors[name] = turn(name)
            except WorkerError as error:
                self.figures[name].fail("failed", str(error))
        if self._expected is None:
            self._expected = vectors.get(REFERENCE, vectors.get(OURS))
        if self._expected is not None:
            for name, found in vectors.items():
                self.figures[name].check(found, self._expected)
        return list(vectors)

    def _warm_up(self, name: str, worker: Worker) -> Vectors:
        if self._workload.kind == "callers":
            return self._measure_callers(worker)[1]
        answer, vectors = worker.ask_vectors("encode", texts=self._texts(name), prompt=self._prompt)
        self._warm_up_seconds[name] = answer["seconds"]
        return vectors

    def _measure(self, name: str, worker: Worker) -> Vectors:
        texts, measured = self._texts(name), self.figures[name].measured
        if self._workload.kind == "busy":
            bulk, queries = texts[:-QUERIES], texts[-QUERIES:]
            # The last query is also sent before the bulk call ends.
            spread = 0.9 * self._warm_up_seconds[name]
            answer, vectors = worker.ask_vectors("busy", texts=bulk, queries=queries, spread=spread)
            measured += [1000 * seconds for seconds in answer["latencies"]]
            return vectors
        if self._workload.kind == "callers":
            answer, vectors = self._measure_callers(worker)
        else:
            answer, vectors = worker.ask_vectors("encode", texts=texts, prompt=self._prompt)
        measured.append(len(texts) / answer["seconds"])
        return vectors

    def _measure_callers(self, worker: Worker) -> tuple[dict[str, Any], Vectors]:
        return worker.ask_vectors("callers", texts=self._workload.texts, callers=CALLERS)

    def _measure_cold_start(self, name: str, python: Path) -> Vectors:
        start = time.perf_counter()
        with Worker(name, python) as worker:
            worker.ask("load", model=asdict(self._files))
            _, vectors = worker.ask_vectors("encode", texts=self._texts(name), prompt=self._prompt)
            self.figures[name].measured.append(time.perf_counter() - start)
        return vectors

    def _texts(self, name: str) -> list[str]:
        return self._workload.texts[: self._workload.naive_texts] if name == NAIVE else self._workload.texts

    def _summarize(self) -> None:
        for figure in self.figures.values():
            figure.summarize()
        ours = self.figures[OURS].value
        for figure in self.figures.values():
            if ours and figure.value:
                figure.speed = figure.value / ours if figure.unit == "texts/s" else ours / figure.value


def find_model(name: str, device: str = "cpu") -> ModelFiles | None:
    """Return the files of a model, or None if its weights are not on this machine and cannot be obtained."""
    if name == "minilm":
        try:
            with EmbeddingService("minilm-l6-v2", device="cpu") as service:
                model, directory = "minilm-l6-v2", Path(service.get_model_info()["path"])
        except AkidbMlxError:
            return None
    else:
        directory = _RANDOM[name]() if name in _RANDOM else WEIGHTS / _REAL[name]
        if not directory.is_dir():
            return None
        model = str(directory)
    limits = json.loads((directory / "sentence_bert_config.json").read_text(encoding="utf-8"))
    return ModelFiles(model, str(directory), limits["max_seq_length"], device)


def measure(model: str, wanted: list[str], rounds: int, device: str, console: Console) -> list[Figure]:
    """Measure all contestants on the wanted workloads of a model, which each keeps in memory until the end."""
    with console.status(f"{model}: preparing") as status, ExitStack() as stack:
        files = find_model(model, device)
        if files is None:
            return [Figure(model, "", "", "", 0, 0.0, "absent", "its weights are not on this machine")]
        comparisons = [(w, Comparison(model, files, w)) for w in workloads(PLANS[model], files) if w.name in wanted]
        pythons = {name: python for name in MODULES if (python := environments.find_python(name))}
        for _, comparison in comparisons:
            for name, figure in comparison.figures.items():
                if name not in pythons:
                    figure.fail("absent", environments.INSTALL_COMMAND)
        for workload, comparison in comparisons:
            if workload.kind == "cold":
                status.update(f"{model}: cold")
                comparison.run_cold_starts(pythons)
        warm = [(workload, comparison) for workload, comparison in comparisons if workload.kind != "cold"]
        workers: dict[str, Worker] = {}
        for name in pythons if warm else ():
            worker = stack.enter_context(Worker(name, pythons[name]))
            try:
                worker.ask("load", model=asdict(files))
                workers[name] = worker
            except WorkerError as error:
                for _, comparison in warm:
                    if name in comparison.figures:
                        comparison.figures[name].fail("failed", str(error))
        for workload, comparison in warm:
            status.update(f"{model}: {workload.name}")
            comparison.run(workers, rounds)
        return [figure for _, comparison in comparisons for figure in comparison.figures.values()]


def describe_machine(device: str) -> dict[str, Any]:
    """Return the CPU, its cores and memory, the system, the version of Python and the device that all compute on."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        cpu = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": environments.CORES,
        "memory_gb": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.mac_ver()[0]}".strip(),
        "python": platform.python_version(),
        "device": device,
    }


def print_table(figures: list[Figure]) -> None:
    """Print the figures as a table."""
    fixed = [Column(name, no_wrap=True) for name in ("workload", "contestant")]
    table = Table(*fixed, Column("figure", overflow="fold"), "speed divided by ours", "min cosine")
    for (model, workload), group in groupby(figures, lambda figure: (figure.model, figure.workload)):
        for figure in group:
            speed = "" if figure.speed is None else f"{figure.speed:.2g}"
            table.add_row(
                f"{model} {workload}", figure.contestant, _format_figure(figure), speed, _format_cosine(figure)
            )
        table.add_section()
    Console().print(table)


def _format_figure(figure: Figure) -> str:
    if figure.value is None:
        return f"[red]{figure.status}[/]: {escape(figure.note)}"
    p95 = "" if figure.p95 is None else f", p95 {_format_number(figure.p95)}"
    note = f" ({figure.note})" if figure.note else ""
    return f"{_format_number(figure.value)} {figure.unit}{p95}{note}"


def _format_number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _format_cosine(figure: Figure) -> str:
    if figure.min_cosine is None:
        return ""
    wrong = " [red]wrong[/]" if figure.status == "wrong" else ""
    return f"{figure.min_cosine:.6f}{wrong}"


def _parse_names(given: str, known: Iterable[str], option: str) -> list[str]:
    names = given.split(",")
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; known: {', '.join(known)}", param_hint=option)
    return names


def main(
    models: Annotated[str, typer.Option(help="Models, separated by commas.")] = ",".join(PLANS),
    workload_names: Annotated[str, typer.Option("--workloads", help="Workloads, separated by commas.")] = ",".join(
        NAMES
    ),
    device: Annotated[Literal["cpu", "gpu"], typer.Option(help="Device that all compute on; a Mac has a gpu.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Number of timed rounds; the median counts.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the throughputs in this SVG file.")] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install the peers that are absent, and measure nothing.")
    ] = False,
) -> None:
    """Measure akidb-mlx and its peers on the same texts."""
    if install:
        environments.install()
        return
    if plot_file:
        from benchmarks.plot import draw  # before measuring, as matplotlib may be absent
    chosen = _parse_names(models, PLANS, "--models")
    wanted = _parse_names(workload_names, NAMES, "--workloads")
    console = Console(stderr=True)
    versions = {name: environments.installed_versions(name) for name in MODULES}
    figures = [figure for model in chosen for figure in measure(model, wanted, rounds, device, console)]
    rows = [asdict(figure) for figure in figures]
    report = {"machine": describe_machine(device), "versions": versions, "rounds": rounds, "figures": rows}
    print_table(figures)
    if json_file:
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if plot_file:
        draw(report, plot_file)


if __name__ == "__main__":
    typer.run(main)
