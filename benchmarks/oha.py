"""Load over HTTP by oha, which `make .bench/oha/bin/oha` builds."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable
from typing import Any

from benchmarks import environments

_OHA = environments.ROOT / ".bench" / "oha" / "bin" / "oha"


def send(url: str, bodies: Iterable[str], connections: int, seconds: int, *flags: str) -> dict[str, Any]:
    """Send requests with JSON bodies, each on one line, again and again; return oha's report."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl") as file:
        file.write("".join(f"{body}\n" for body in bodies))
        file.flush()
        command = [str(_OHA), "--no-tui", "--output-format", "json", "-z", f"{seconds}s", "-c", str(connections)]
        command += ["-m", "POST", "-T", "application/json", "-Z", file.name, *flags, url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def count_failed(report: dict[str, Any], *accepted: str) -> int:
    """Return how many requests had no answer, or one of another status than those that are accepted.

    Requests that ran when the time was over do not count.
    """
    statuses: dict[str, int] = report["statusCodeDistribution"]
    errors: dict[str, int] = report["errorDistribution"]
    refused = sum(count for status, count in statuses.items() if status not in accepted)
    return refused + sum(count for error, count in errors.items() if "deadline" not in error)
