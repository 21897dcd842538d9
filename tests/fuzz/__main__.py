"""Compare random model directories with sentence-transformers.

python -m tests.fuzz [--count N] [--seed N] [--json FILE] [--case FILE …]

The exit status is 1 if a directory's vectors differ in silence, if an ordinary directory is refused, or if this package
fails in another way than by an error of its own. Such directories are kept, with their smallest edits.
"""

import argparse
import json
import secrets
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.environments import CORES
from tests.fuzz.cases import Case, describe, draw_case
from tests.fuzz.comparison import EQUAL, FAULTS, KINDS, Verdict
from tests.fuzz.session import Session, save

_MAX_CAUSES = 40


def main() -> int:
    """Judge the directories that the arguments ask for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--count", type=int, default=2000, help="how many directories (default %(default)s)")
    add("--seed", type=int, default=secrets.randbelow(10**9), help="one seed always gives the same directories")
    add("--json", type=Path, help="file for all results")
    add("--case", type=Path, nargs="+", help="judge only these files case.json of an earlier run")
    add("--keep", type=Path, default=Path(".fuzz"), help="folder for faulty directories (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.case:
        cases = [Case.from_json(json.loads(path.read_text(encoding="utf-8"))) for path in arguments.case]
    else:
        print(f"seed {arguments.seed}")
        cases = [draw_case(arguments.seed, number) for number in range(arguments.count)]
    results = judge_all(cases, arguments.keep)
    report(results)
    if arguments.json:
        content = [{**case.to_json(), "verdict": verdict.kind, "detail": verdict.detail} for case, verdict in results]
        summary = {"seed": arguments.seed, "counts": Counter(verdict.kind for _, verdict in results), "cases": content}
        arguments.json.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(verdict.kind in FAULTS for _, verdict in results))


def judge_all(cases: list[Case], keep: Path) -> list[tuple[Case, Verdict]]:
    """Return the verdicts in order, of each faulty case that on its smallest form; faulty directories are kept."""
    sessions: SimpleQueue[Session] = SimpleQueue()
    for _ in range(CORES):
        sessions.put(Session())

    def judge(number: int, case: Case) -> tuple[Case, Verdict]:
        session = sessions.get()
        try:
            verdict = session.judge(case)
            if verdict.kind in FAULTS:
                case = session.smallest(case, verdict.kind)
                verdict = session.judge(case)
                save(case, verdict, keep / str(number))
            return case, verdict
        finally:
            sessions.put(session)

    console = Console(stderr=True)
    try:
        with Progress(console=console, disable=not console.is_terminal) as progress, ThreadPoolExecutor(CORES) as pool:
            return list(progress.track(pool.map(judge, range(len(cases)), cases), total=len(cases)))
    finally:
        for _ in range(CORES):
            sessions.get().__exit__(None, None, None)


def report(results: list[tuple[Case, Verdict]]) -> None:
    """Print how many directories had each verdict, the causes, and every fault."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    counts = Counter(verdict.kind for _, verdict in results)
    table = Table("verdict", "directories", "of them ordinary")
    for kind in KINDS:
        ordinary = sum(case.ordinary for case, verdict in results if verdict.kind == kind)
        table.add_row(kind, str(counts[kind]), str(ordinary))
    console.print(table)
    causes = Counter((v.kind, v.cause) for _, v in results if v.kind != EQUAL and v.kind not in FAULTS)
    for (kind, cause), count in causes.most_common(_MAX_CAUSES):
        console.print(f"{count:5}  {kind}: {cause}", markup=False, highlight=False)
    groups: dict[tuple[str, str], list[Any]] = {}
    for number, (case, verdict) in enumerate(results):
        if verdict.kind in FAULTS:
            groups.setdefault((verdict.kind, "; ".join(map(str, case.edits))), []).append((number, case, verdict))
    for (kind, _), found in sorted(groups.items(), key=lambda item: -len(item[1])):
        number, case, verdict = found[0]
        console.print(f"\n{kind}, {len(found)} times, first {number}", markup=False, highlight=False)
        console.print(f"  {describe(case)}\n  {verdict.detail}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
