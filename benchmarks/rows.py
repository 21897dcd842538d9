"""Measure scenarios, each in a process of its own, and compare the measured figures with their bounds."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table


@dataclass
class Row:
    """One measured quantity and its bound, a row of the printed table."""

    name: str
    bound: str
    measured: str
    met: bool


def run(scenarios: dict[str, Callable[[], list[Row]]], description: str) -> None:
    """Run the command line of a benchmark that is made of scenarios; `description` is its help."""
    names = ",".join(scenarios)

    def main(
        only: Annotated[str, typer.Option(help=f"Scenarios to measure, separated by commas: {names}.")] = names,
        json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    ) -> None:
        measure(scenarios, only, json_file)

    main.__doc__ = description
    typer.run(main)


def measure(scenarios: dict[str, Callable[[], list[Row]]], only: str, json_file: Path | None) -> None:
    """Measure the scenarios named in `only`, print their rows, and exit with status 1 if one misses its bound."""
    names = only.split(",")
    if unknown := set(names) - set(scenarios):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; known: {', '.join(scenarios)}", param_hint="--only")
    measured: list[Row] = []
    with Console(stderr=True).status("measuring") as status:
        for name in names:
            status.update(name)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                measured += process.submit(scenarios[name]).result()
    table = Table("scenario: quantity", "bound", "measured", "")
    for row in measured:
        table.add_row(row.name, row.bound, row.measured, "" if row.met else "[red]missed[/]")
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps([asdict(row) for row in measured], indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(not all(row.met for row in measured))


@contextmanager
def sample_resident_memory(skip_s: float, process: psutil.Process | None = None) -> Iterator[list[int]]:
    """Collect the resident memory of a process, in bytes, every half second after the first `skip_s` seconds.

    Args:
        skip_s: seconds in which memory still grows.
        process: this one if None.
    """
    process = process or psutil.Process()
    samples: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        ended.wait(skip_s)
        while not ended.wait(0.5):
            samples.append(process.memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    yield samples
    ended.set()
    thread.join()
