"""Figures with bounds, each measured in a process of its own."""

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
    """One bound and what was measured."""

    name: str
    bound: str
    measured: str
    met: bool


def run(rows: dict[str, Callable[[], list[Row]]], what: str) -> None:
    """The command line of a benchmark that is made of rows; `what` is its help."""
    names = ",".join(rows)

    def main(
        only: Annotated[str, typer.Option(help=f"Which rows, with commas between: {names}.")] = names,
        json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    ) -> None:
        _measure(rows, only, json_file)

    main.__doc__ = what
    typer.run(main)


def _measure(rows: dict[str, Callable[[], list[Row]]], only: str, json_file: Path | None) -> None:
    """Measure some rows (names with commas between), show them, and end with status 1 where one misses its bound."""
    names = only.split(",")
    if unknown := set(names) - set(rows):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; known: {', '.join(rows)}", param_hint="--only")
    measured: list[Row] = []
    with Console(stderr=True).status("measuring") as status:
        for name in names:
            status.update(name)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                measured += alone.submit(rows[name]).result()
    table = Table("figure", "bound", "measured", "")
    for row in measured:
        table.add_row(row.name, row.bound, row.measured, "" if row.met else "[red]missed[/]")
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps([asdict(row) for row in measured], indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(not all(row.met for row in measured))


@contextmanager
def resident(skip: float) -> Iterator[list[int]]:
    """The resident memory of this process, in bytes, every half second after the first `skip` seconds."""
    samples: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        ended.wait(skip)
        while not ended.wait(0.5):
            samples.append(psutil.Process().memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    yield samples
    ended.set()
    thread.join()
