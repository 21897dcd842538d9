"""`akidb-mlx db`: most of it in this process, and as a process of its own what concerns the terminal and signals."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import typer

from akidb_mlx.cli import _run
from akidb_mlx.cli.conditions import parse_condition
from akidb_mlx.cli.database import _is_idle
from embedded_db import EmbeddedDB, EnrichmentError
from tests.support import GOLDENS, run_in_terminal, run_python, wait_until

pytest.importorskip("spacy")

# It has no prompts, so a message and the same words as a query have the same vector.
MODEL = str(GOLDENS / "tiny-bert")

LINES = [
    {"content": "Alice met Bob in Paris", "sender": "Alice", "chat": "trip", "chat_title": "The trip", "id": "m1"},
    {"content": "We should use Rust", "sender": "Bob", "chat": "work", "id": "m2", "metadata": {"priority": 3}},
    {"content": "It rains in Paris", "sender": "Alice", "chat": "trip", "id": "m3", "metadata": {"priority": "3"}},
]
TIMES = ["2026-01-31T12:00:00Z", "2026-02-01T12:00:00Z", "2026-02-02T12:00:00Z"]


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps({**line, "time": time}) + "\n" for line, time in zip(LINES, TIMES, strict=True)))
    return file


@pytest.fixture
def path(log, tmp_path):
    """A database that was filled without the command."""
    with EmbeddedDB(tmp_path / "a.db", weaver=False) as db:
        from embedded_db.chat_log import ChatLogs

        assert list(ChatLogs(db).add(log)) == []
    return str(tmp_path / "a.db")


@pytest.fixture
def call(capsys, monkeypatch, tiny_ner):
    """Runs the command line, and returns its status, standard output and standard error."""
    monkeypatch.setenv("AKIDB_NER_MODEL", str(tiny_ner))

    def run_here(*arguments):
        status = _run(["db", *arguments])
        return status, *capsys.readouterr()

    return run_here


@pytest.fixture
def ids(call):
    """Asks, and returns the ids of the results."""

    def ask(*arguments):
        status, out, err = call("query", *arguments, "--json")
        assert (status, err) == (0, "")
        return [result["id"] for result in json.loads(out)["results"]]

    return ask


def test_from_a_log_to_answers(log, tmp_path, call, ids):
    path = str(tmp_path / "a.db")
    assert call("import", path, str(log)) == (0, "3 messages added, 2 new chats, 0 lines left out\n", "")
    assert json.loads(call("status", path, "--json")[1])["waiting"] == {"embedding": 3, "entities": 3}

    status, out, err = call("work", path, "--until-idle", "-m", MODEL, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"jobs": 9, "queue_size": 0, "failed": 0, "failures": []}

    found = json.loads(call("status", path, "--json")[1])
    assert (found["nodes"]["Message"], found["embeddings"], found["waiting"], found["failures"]) == (3, 3, {}, [])
    assert found["edges"]["MENTIONS"] >= 3
    # The model is the database's own.
    status, out, err = call("query", path, "Alice met Bob in Paris", "--json", "--threshold", "0.999")
    (only,) = json.loads(out)["results"]
    assert sorted(only) == [
        *("created_at", "fused_score", "id", "properties", "rerank_score", "similarity_score", "type")
    ]
    assert (only["id"], only["created_at"], only["properties"]["chat_id"]) == ("m1", 1769860800.0, "trip")
    assert only["similarity_score"] == pytest.approx(1, abs=1e-6)
    assert only["fused_score"] is None
    near = ["--near", "m1", "--depth", "2", "--direction", "Both", "--edge", "MENTIONS"]
    assert ids(path, *near, "-w", "type=Message") == ["m1", "m3"]


def test_bad_lines_are_named_and_the_others_are_added(log, tmp_path, call):
    other = tmp_path / "other.csv"
    other.write_text("content,sender\na,b,c\nfine,Bob\n")
    with log.open("a") as opened:
        opened.write("{\n")
    path = str(tmp_path / "a.db")
    status, out, err = call("import", path, str(log), str(other), "--json")
    assert status == 1
    result = json.loads(out)
    assert (result["messages"], result["chats"], result["queue_size"]) == (4, 3, 8)
    assert [(one["file"], one["line"]) for one in result["bad_lines"]] == [(str(log), 4), (str(other), 2)]
    assert [line.split(": ")[1] for line in err.splitlines()] == [f"{log}:4", f"{other}:2"]


def test_a_pipe_gets_rows_and_a_terminal_a_table(path, call):
    status, out, err = call("query", path, "-w", "chat_id=trip", "-w", "type=Message")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "\t2026-01-31 12:00\tAlice\tAlice met Bob in Paris\tm1",
        "\t2026-02-02 12:00\tAlice\tIt rains in Paris\tm3",
    ]
    status, shown = run_in_terminal("db", "query", path, "-w", "chat_id=trip", "-w", "type=Message")
    assert status == 0
    lines = shown.decode().splitlines()
    assert re.findall(r"\w+", re.sub(r"\x1b\[[0-9;]*m", "", lines[0])) == ["score", "time", "from", "text", "id"]
    assert len(lines) == 3 and "It rains in Paris" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-w", "sender=Alice"], ["m1", "m3"]),
        (["-w", "metadata.priority=3"], ["m2"]),
        (["-w", 'metadata.priority="3"'], ["m3"]),
        (["-w", "metadata.priority>=2.5", "-w", "sender!=Alice"], ["m2"]),
        (["-w", 'sender=["Bob", "Carol"]'], ["m2"]),
        (["-w", "content~Paris", "-w", "created_at>2026-02-01"], ["m3"]),
        (["--words", "paris alice"], ["m1"]),
        (["--near", "trip", "-w", "type=Message", "-n", "1", "--offset", "1"], ["m3"]),
    ],
)
def test_parts_of_a_query(path, arguments, expected, ids):
    assert ids(path, *arguments) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sender=Alice", ("sender", "Equals", "Alice")),
        (" a.b >= 1 ", ("a.b", "GreaterThanOrEqual", 1)),
        ("a<=-2.5", ("a", "LessThanOrEqual", -2.5)),
        ("a>b", ("a", "GreaterThan", "b")),
        ("a<true", ("a", "LessThan", True)),
        ("a!=null", ("a", "NotEquals", None)),
        ("a=", ("a", "Equals", "")),
        ("a=b=c", ("a", "Equals", "b=c")),
        ("a~x y", ("a", "Contains", "x y")),
        ('a=["x", 1]', ("a", "In", ["x", 1])),
        ("a=NaN", ("a", "Equals", "NaN")),
        ('a="1"', ("a", "Equals", "1")),
        ("id=12", ("id", "Equals", "12")),
        ("chat_id=1e5", ("chat_id", "Equals", "1e5")),
        ("content~2024", ("content", "Contains", "2024")),
        ("type=true", ("type", "Equals", "true")),
        ("id=[1, 2.0, true]", ("id", "In", ["1", "2.0", "true"])),
        ("chat_id=null", ("chat_id", "Equals", None)),
    ],
)
def test_conditions(given, expected):
    assert tuple(parse_condition(given).values()) == expected


@pytest.mark.parametrize("given", ["", "sender", "=x", "a={}", "a>[1]", "a!=[1]"])
def test_what_is_no_condition(given):
    with pytest.raises(typer.BadParameter, match="is no condition"):
        parse_condition(given)


def test_mistakes_are_explained(path, tmp_path, call):
    for arguments, status, part in [
        (["query", str(tmp_path / "none.db"), "x"], 1, "there is no database"),
        (["status", str(tmp_path)], 1, "there is no database"),
        (["import", path, str(tmp_path / "none.jsonl")], 1, "none.jsonl is no file"),
        (["query", path], 1, "asks for nothing"),
        (["query", path, "-w", "sender"], 2, "is no condition"),
        (["query", path, "--near", "nobody"], 1, "nobody"),
        (["query", path, "-w", "created_at>soon"], 1, "time must be"),
    ]:
        found, out, err = call(*arguments)
        assert (found, out) == (status, "")
        assert part in err and len(err.splitlines()) == 1
    assert not (tmp_path / "none.db").exists()


def test_without_the_extra_it_is_named(tmp_path):
    code = (
        "import sys; sys.modules['apsw'] = None\n"
        f"from akidb_mlx.cli import main; main(['db', 'import', {str(tmp_path / 'a.db')!r}, {__file__!r}])"
    )
    done = run_python(code)
    assert done.returncode == 1
    assert "akidb-mlx[db]" in done.stderr and "Traceback" not in done.stderr


def test_failures_end_work_with_a_status_and_are_retried_on_demand(path, call):
    with EmbeddedDB(path, weaver=False) as db, db._connections.write() as tx:
        tx.run("UPDATE job SET failed = 1, attempts = 5, error = 'no luck' WHERE kind = 'entities'")
    work = ("work", path, "--until-idle", "-m", MODEL)
    assert call(*work) == (1, "", "akidb-mlx: 3 jobs failed: see `akidb-mlx db status`\n")
    assert call("status", path)[2].count("failed 5 times: no luck\n") == 3
    status, out, err = call(*work, "--retry-failed", "--json")
    assert (status, json.loads(out)["jobs"], err) == (0, 3, "")


def test_work_that_cannot_be_done_is_no_endless_wait(path, call, monkeypatch):
    monkeypatch.setenv("AKIDB_NER_MODEL", "/nowhere")
    status, out, err = call("work", path, "--until-idle", "-m", "/nowhere")
    assert (status, out) == (1, "")
    assert "embedding cannot be done" in err and "entities cannot be done" in err and "/nowhere" in err


def test_only_a_cause_that_does_not_pass_ends_the_wait():
    waiting = {"waiting": {"embedding": 1}, "queue_size": 1, "paused": {"embedding": "busy"}}
    assert not _is_idle({**waiting, "blocked": []})
    with pytest.raises(EnrichmentError, match="embedding cannot be done: busy"):
        _is_idle({**waiting, "blocked": ["embedding"]})


def test_a_time_that_no_calendar_has_is_a_number(path, call):
    with EmbeddedDB(path, weaver=False) as db:
        db.create_node({"type": "Note", "id": "late", "created_at": 1769853600000.0})
    status, out, err = call("query", path, "-w", "type=Note")
    assert (status, out, err) == (0, "\t1.76985e+12\tNote\t\tlate\n", "")


def test_reembed(path, call, ids):
    with EmbeddedDB(path, weaver=False) as db:
        db.insert_embeddings([("m1", [1.0, 0.0]), ("m2", [0.0, 1.0])], model="old")
    status, out, err = call("reembed", path, MODEL, "--dry-run", "--json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert (found["vectors"], found["done"], found["dry_run"]) == (2, 0, True)
    assert json.loads(call("status", path, "--json")[1])["model"] == "'old' (2 dimensions)"
    status, out, err = call("reembed", path, MODEL)
    assert (status, err) == (0, "")
    assert out.startswith("2 vectors of ") and f" {found['tokens']} tokens: took " in out
    assert MODEL in json.loads(call("status", path, "--json")[1])["model"]
    assert ids(path, "Alice met Bob in Paris", "--threshold", "0.999") == ["m1"]


def test_the_best_results_are_ordered_anew_by_a_reranker(path, call):
    status, out, err = call("query", path, "--words", "paris", "--rerank", str(GOLDENS / "reranker-bert"), "--json")
    assert (status, err) == (0, "")
    scores = [one["rerank_score"] for one in json.loads(out)["results"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_work_is_stopped_cleanly(path, number, expected, tiny_ner):
    command = [sys.executable, "-m", "akidb_mlx", "db", "work", path, "-m", MODEL]
    environment = {**os.environ, "AKIDB_NER_MODEL": str(tiny_ner)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        with EmbeddedDB(path, weaver=False) as db:
            wait_until(lambda: db.weaver_status()["queue_size"] == 0)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (expected, "", "")
