"""Judges directories: makes them, asks both processes, and looks for the smallest edits that are still at fault."""

import json
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from benchmarks.contestants import OURS, REFERENCE
from benchmarks.environments import find_python
from benchmarks.processes import Worker, WorkerError
from tests.fuzz.cases import TEXTS, Case
from tests.fuzz.comparison import FAILED, ORDINARY_REFUSED, REFUSED, Answer, Verdict, compare

# The texts that are embedded with each `input_type`.
CALLS = ((None, TEXTS), ("query", (TEXTS[0], TEXTS[-1])), ("document", (TEXTS[0], TEXTS[-1])))
# For one directory; a process that takes longer hangs. The first call imports torch, for minutes on a busy machine.
_TIMEOUT_S = 300


class Side(Protocol):
    """Embeds the texts of a directory, or raises `WorkerError`."""

    def embed(self, directory: Path) -> Answer: ...

    def close(self) -> None: ...


class ProcessSide:
    """A worker process, started again when it ends or hangs."""

    def __init__(self, contestant: str) -> None:
        python = find_python(contestant)
        if python is None:
            raise SystemExit(f"{contestant} is not installed; run: make bench-peers")
        self._contestant, self._python = contestant, python
        self._worker: Worker | None = None

    def embed(self, directory: Path) -> Answer:
        """Ask the process for the vectors of a directory.

        Raises:
            WorkerError: it raised, ended or hung.
        """
        if self._worker is None:
            self._worker = Worker(self._contestant, self._python, "tests.fuzz.worker", _TIMEOUT_S)
        try:
            return self._worker.ask("embed", directory=str(directory), calls=CALLS)
        except WorkerError:
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.__exit__()
            self._worker = None


class Session:
    """Two sides and a folder for the directories between them."""

    def __init__(self, ours: Side | None = None, reference: Side | None = None) -> None:
        self._ours = ours or ProcessSide(OURS)
        self._reference = reference or ProcessSide(REFERENCE)
        self._folder = tempfile.TemporaryDirectory()

    def judge(self, case: Case) -> Verdict:
        """Return the verdict on a directory."""
        directory = Path(self._folder.name) / "model"
        try:
            case.contents().write(directory)
            try:
                ours = self._ours.embed(directory)
            except WorkerError as error:
                return Verdict(FAILED, str(error))
            if "refused" in ours:
                return Verdict(ORDINARY_REFUSED if case.ordinary else REFUSED, ours["refused"])
            shutil.rmtree(directory)
            case.reference_contents().write(directory)
            return compare(ours, self._ask_reference(directory), case.ordinary)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _ask_reference(self, directory: Path) -> Answer:
        try:
            return self._reference.embed(directory)
        except WorkerError:  # once may be a busy machine
            try:
                return self._reference.embed(directory)
            except WorkerError as error:
                return {"refused": f"the process ended or hung twice: {error}"}

    def smallest(self, case: Case, kind: str) -> Case:
        """Return the case with as few of its edits as still give the verdict."""
        for edit in case.edits:
            smaller = case.without(edit)
            if self.judge(smaller).kind == kind:
                case = smaller
        return case

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        self._reference.close()
        self._folder.cleanup()


def save(case: Case, verdict: Verdict, directory: Path) -> None:
    """Keep a directory, with what makes it again."""
    shutil.rmtree(directory, ignore_errors=True)
    case.contents().write(directory / "model")
    case.reference_contents().write(directory / "reference")
    content: dict[str, Any] = {**case.to_json(), "verdict": verdict.kind, "detail": verdict.detail}
    (directory / "case.json").write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
