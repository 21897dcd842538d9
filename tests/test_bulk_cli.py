"""`akidb-mlx embed-files`."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pip install 'akidb-mlx[bulk]'")
pytest.importorskip("fsspec")

from akidb_mlx import cli
from tests.support import GOLDENS
from tests.test_bulk import BODIES, ROOT, ROWS, TABLE, shards, vectors, write

MODEL = str(GOLDENS / "tiny-bert")


def run(*arguments, status=0):
    """Run the command in this process, whose streams `main` would set up."""
    assert cli._run(["embed-files", "-m", MODEL, *map(str, arguments)]) == status


def test_the_command_writes_shards_and_says_what_it_did(service, tmp_path, capsys):
    path, output = write(tmp_path / "a.parquet", {**TABLE, "body": [None, *BODIES[1:]]}), tmp_path / "out"
    options = ["--column", "body", "--id-column", "key", "--keep", "year", "--shard-rows", "100", "-o", output]
    run(path, *options)
    out, err = capsys.readouterr()
    assert out.startswith(f"299 of 300 rows in 3 shards in {output}: ")
    assert "1 rows without a text, 0 refused" in out
    assert err == "", "quiet in a pipe"
    table = shards(output)
    assert table.column_names == ["key", "year", "embedding", "token_count", "truncated"]
    assert np.abs(vectors(table) - service("tiny-bert").embed_array(BODIES[1:])).max() < 1e-6
    run(path, *options, "--dtype", "float16", status=1)
    assert "the options changed since this job was begun: dtype was 'float32'" in capsys.readouterr().err
    run(path, *options, "--dtype", "float16", "--fresh", "--json")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in events] == ["begin", *(["progress", "shard"] * 3), "end"]
    assert sum(one["rows"] for one in events if one["event"] == "progress") == ROWS
    assert events[-1]["embedded"] == 299


def test_a_dry_run_and_refused_rows_are_told(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n' + '{"text": 1}\n' * 12)
    run(path, "-o", tmp_path / "out", "--dry-run")
    assert capsys.readouterr().out.startswith("13 rows in 1 shards; about ")
    run(path, "-o", tmp_path / "out")
    out, err = capsys.readouterr()
    assert "12 refused" in out
    lines = err.splitlines()
    assert len(lines) == 11
    assert lines[0] == f"akidb-mlx: refused: {path}, row 2: its text is no string: 1"
    assert "only written to rejected.jsonl" in lines[-1]
    run(path, "-o", tmp_path / "few", "--max-rejected", 11, status=1)
    assert "12 rows were refused, and max_rejected is 11" in capsys.readouterr().err
    run(tmp_path / "no.jsonl", "-o", tmp_path / "no", status=1)
    assert "no.jsonl does not exist: name a file" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_bar_shows_rows_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(write(tmp_path / "a.txt"), "-o", tmp_path / "out")
    assert f"{ROWS}/{ROWS}" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    path = write(tmp_path / "a.txt", {"body": BODIES * 100})
    arguments = [sys.executable, "-m", "akidb_mlx", "embed-files", path, "-m", MODEL, "-o", tmp_path / "out"]
    arguments += ["--json", "--shard-rows", "500"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as job:
        while '"shard"' not in job.stdout.readline():
            pass
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=60)
    assert job.returncode == 130
    assert err == (
        f"akidb-mlx: interrupted; the shards in {tmp_path / 'out'} are whole, and the same command goes on after them\n"
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["state"] == "begun"
    assert len(manifest["shards"]) == len(list((tmp_path / "out").glob("shard-*"))) >= 1
    assert not list((tmp_path / "out").glob(".work/*.partial"))
    run(path, "-o", tmp_path / "out", "--shard-rows", 500)
