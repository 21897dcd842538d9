"""Compare akidb-mlx with sentence-transformers, ONNX Runtime, OpenVINO, mlx-embeddings and a naive MLX loop.

python -m benchmarks.compare --install    # install each peer in an environment of its own in .bench (gigabytes)
python -m benchmarks.compare [--models minilm,gemma] [--workloads sts,busy] [--contestants akidb-mlx,onnxruntime]
    [--device gpu] [--json FILE [--resume]] [--plot FILE]

Every contestant has a process of its own, float32 and the same number of threads. They take turns: one untimed round,
then the timed ones, whose median counts. A figure is marked wrong if the cosine of a vector to that of
sentence-transformers is below 0.999, or to ours where sentence-transformers is absent. On a CPU, akidb-mlx has the
model that `akidb-mlx export` makes and chooses the backend itself; a second contestant is akidb-mlx on MLX. ONNX
Runtime and OpenVINO have a graph that torch writes. The workloads are described in benchmarks/workloads.py.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from akidb_mlx import EmbeddingService
from akidb_mlx.errors import AkidbMlxError
from benchmarks import environments, random_modernbert, random_qwen3
from benchmarks.contestants import MODULES, NAIVE, OURS, REFERENCE, ModelFiles
from benchmarks.figures import Figure, Vectors, print_table
from benchmarks.graphs import with_graphs
from benchmarks.processes import Worker, WorkerError
from benchmarks.workloads import CALLERS, NAMES, PLANS, QUERIES, Workload, mean_tokens, workloads
from tests.support import WEIGHTS

_COLD_STARTS = 5
# Models of which the weights are random, and those whose real ones are fetched beforehand.
_RANDOM = {"qwen3": random_qwen3.ensure, "modernbert": random_modernbert.ensure}
_REAL = {"gemma": "embeddinggemma-300m", "mpnet": "all-mpnet-base-v2"}
_UNITS = {"encode": "texts/s", "callers": "texts/s", "busy": "ms", "cold": "s"}


class Comparison:
    """One workload, on which the contestants take turns."""

    def __init__(self, model: str, files: ModelFiles, workload: Workload, contestants: Iterable[str]) -> None:
        self._files = files
        self._workload = workload
        self._prompt = asdict(workload.prompt) if workload.prompt else None
        self._warm_up_seconds: dict[str, float] = {}
        self._expected: Vectors | None = None
        unit, tokens = _UNITS[workload.kind], round(mean_tokens(workload, files), 1)
        self.figures = {
            name: Figure(model, workload.name, name, unit, len(texts), tokens)
            for name in contestants
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
        self.figures[name].measured_cpu_s.append(answer["cpu_seconds"])
        self.figures[name].note = answer["note"] or self.figures[name].note
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
        ours = self.figures[OURS].value if OURS in self.figures else None
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


def measure(
    model: str, wanted: list[str], contestants: list[str], rounds: int, device: str, console: Console
) -> Iterator[list[Figure]]:
    """Measure contestants on the wanted workloads of a model, which each keeps in memory until the end.

    Yields:
        The figures of one workload.
    """
    with console.status(f"{model}: preparing") as status, ExitStack() as stack:
        files = find_model(model, device)
        if files is None:
            yield [Figure(model, "", "", "", 0, 0.0, "absent", "its weights are not on this machine")]
            return
        planned = [workload for workload in workloads(PLANS[model], files) if workload.name in wanted]
        if not planned:
            return
        files, lacking = with_graphs(model, files, contestants)
        pythons = {name: python for name in contestants if (python := environments.find_python(name))}
        lacking |= {name: environments.INSTALL_COMMAND for name in contestants if name not in pythons}
        workers: dict[str, Worker] = {}
        for workload in sorted(planned, key=lambda one: one.kind != "cold"):  # cold starts while nothing else runs
            status.update(f"{model}: {workload.name}")
            comparison = Comparison(model, files, workload, contestants)
            if workload.kind == "cold":
                comparison.run_cold_starts(without(pythons, lacking))
            else:
                for name in without(pythons, lacking).keys() - workers.keys():
                    worker = stack.enter_context(Worker(name, pythons[name]))
                    try:
                        worker.ask("load", model=asdict(files))
                        workers[name] = worker
                    except WorkerError as error:
                        lacking[name] = str(error)
                comparison.run(workers, rounds)
            for name, reason in lacking.items():
                if name in comparison.figures:
                    comparison.figures[name].fail("absent" if name not in pythons else "failed", reason)
            yield list(comparison.figures.values())


def without(pythons: dict[str, Path], lacking: Mapping[str, str]) -> dict[str, Path]:
    """Return the interpreters of the contestants that lack nothing."""
    return {name: python for name, python in pythons.items() if name not in lacking}


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
    contestant_names: Annotated[
        str, typer.Option("--contestants", help="Contestants, separated by commas.")
    ] = ",".join(MODULES),
    device: Annotated[Literal["cpu", "gpu"], typer.Option(help="Device that all compute on; a Mac has a gpu.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Number of timed rounds; the median counts.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the workloads that the file of --json has, and measure the others.")
    ] = False,
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
    contestants = _parse_names(contestant_names, MODULES, "--contestants")
    console = Console(stderr=True)
    figures: list[Figure] = []
    if resume and json_file and json_file.exists():
        figures = [Figure(**row) for row in json.loads(json_file.read_text(encoding="utf-8"))["figures"]]
    report: dict[str, Any] = {
        "machine": describe_machine(device),
        "versions": {name: environments.installed_versions(name) for name in contestants},
        "rounds": rounds,
    }
    for model in chosen:
        done = {figure.workload for figure in figures if figure.model == model}
        for measured in measure(
            model, [name for name in wanted if name not in done], contestants, rounds, device, console
        ):
            figures += measured
            report["figures"] = [asdict(figure) for figure in figures]
            if json_file:
                json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_table(figures)
    if plot_file:
        draw(report, plot_file)


if __name__ == "__main__":
    typer.run(main)
