"""`akidb-mlx rerank`, as a process."""

import json
import re

import pytest

from akidb_mlx import Reranker
from tests.support import GOLDENS, TEXTS, run_in_terminal
from tests.test_cli import run

MODEL = str(GOLDENS / "reranker-bert")
QUERY = "What is the capital?"
DOCUMENTS = [text for text in TEXTS if text.strip() and "\n" not in text and "\0" not in text and len(text) < 200][:6]


@pytest.fixture(scope="module")
def ranked():
    with Reranker(MODEL, device="cpu") as reranker:
        return reranker.rerank(QUERY, DOCUMENTS)


def test_json(ranked):
    done = run("rerank", "-m", MODEL, "--json", "--top-k", "3", QUERY, *DOCUMENTS)
    result = json.loads(done.stdout)
    assert (result["model"], result["query"]) == (MODEL, QUERY)
    assert [one["index"] for one in result["results"]] == [index for index, _ in ranked[:3]]
    assert [one["score"] for one in result["results"]] == pytest.approx([score for _, score in ranked[:3]], abs=1e-6)
    assert [one["document"] for one in result["results"]] == [DOCUMENTS[index] for index, _ in ranked[:3]]
    assert done.stderr == ""


def test_a_pipe_gets_a_line_for_each_document(ranked):
    done = run("rerank", "-m", MODEL, QUERY, stdin="\n".join(DOCUMENTS))
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [int(row[0]) for row in rows] == [index for index, _ in ranked]
    assert [float(row[1]) for row in rows] == pytest.approx([score for _, score in ranked], rel=1e-4)


def test_a_file_is_one_document(tmp_path):
    (tmp_path / "one.txt").write_text("a\nb")
    done = run("rerank", "-m", MODEL, "--json", QUERY, "--file", str(tmp_path / "one.txt"))
    assert [one["document"] for one in json.loads(done.stdout)["results"]] == ["a\nb"]


def test_no_documents():
    assert json.loads(run("rerank", "-m", MODEL, "--json", QUERY, stdin="").stdout)["results"] == []


def test_what_was_cut_is_said():
    done = run("rerank", "-m", MODEL, QUERY, "word " * 300, "short")
    assert done.stderr == "akidb-mlx: 1 of 2 documents were cut to the model's limit (see --on-overflow)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", MODEL, "--top-k", "0", QUERY, "a"], "top_k"),
        (["-m", MODEL, "--on-overflow", "error", QUERY, "a", "word " * 300], "text 1 has"),
        (["-m", str(GOLDENS / "reranker-bert-labels"), QUERY, "a"], "gives 3 for each pair"),
        (["-m", str(GOLDENS / "tiny-bert"), QUERY, "a"], "akidb_mlx.EmbeddingService"),
    ],
)
def test_failures_are_one_line(arguments, message):
    done = run("rerank", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_terminal_gets_a_table(ranked):
    status, shown = run_in_terminal("rerank", "-m", MODEL, "--device", "cpu", QUERY, *DOCUMENTS)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert status == 0
    assert lines[0].split() == ["score", "number", "document"]
    assert [int(line.split()[1]) for line in lines[1:]] == [index for index, _ in ranked]
