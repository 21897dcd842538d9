"""`akidb-mlx entities`, as a process."""

import json
import os

import pytest

from tests.ner import install
from tests.support import run_in_terminal
from tests.test_cli import run

pytest.importorskip("spacy")

TEXTS = ["Alice met Bob in Paris", "nothing", "Zoë met Čapek in Brno"]


@pytest.fixture
def model(tiny_ner):
    return str(tiny_ner)


def test_a_pipe_gets_a_line_for_each_entity(model):
    done = run("entities", "-m", model, *TEXTS)
    assert done.stdout.splitlines()[:3] == ["0\t0\t5\tPERSON\tAlice", "0\t10\t13\tPERSON\tBob", "0\t17\t22\tGPE\tParis"]
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == {"0", "2"}
    assert run("entities", "-m", model, stdin="\n".join(TEXTS)).stdout == done.stdout
    assert done.stderr == ""


def test_json(model):
    done = run("entities", "-m", model, "--json", "--label", "GPE", "--label", "PERSON", "😀 Zoë met Bob in Paris", "x")
    result = json.loads(done.stdout)
    assert sorted(result) == ["counts", "entities", "model"]
    assert result["model"] == model
    assert result["counts"] == {"PERSON": 2, "GPE": 1}
    assert [len(one) for one in result["entities"]] == [3, 0]
    assert result["entities"][0][0] == {
        "text": "Zoë",
        "label": "PERSON",
        "start": 2,
        "end": 5,
        "start_byte": 5,
        "end_byte": 9,
    }


def test_files_are_one_text_each(model, tmp_path):
    (tmp_path / "one").write_text("Alice\nmet Bob\nin Paris\n", encoding="utf-8")
    expected = "0\t0\t5\tPERSON\tAlice\n"
    both = run("entities", "-m", model, "-f", str(tmp_path / "one"), "--file", "-", stdin="Alice met\nBob in Paris")
    assert both.stdout.startswith(expected)
    assert {line.split("\t")[0] for line in both.stdout.splitlines()} == {"0", "1"}


def test_an_entity_over_two_lines_stays_on_one(tmp_path):
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "X", "pattern": [{"TEXT": "a"}, {}, {"TEXT": "b"}]}])
    nlp.to_disk(tmp_path / "rules")
    done = run("entities", "-m", str(tmp_path / "rules"), "-f", "-", stdin="a\n\tb")
    assert done.stdout == "0\t0\t4\tX\ta b\n"


def test_settings(model):
    assert run("entities", TEXTS[0], AKIDB_NER_MODEL=model).stdout.count("\n") == 3


def test_a_terminal_gets_colours(model):
    status, shown = run_in_terminal("entities", "-m", model, "--label", "PERSON", "Alice met Bob in [b]Paris[/b]")
    assert status == 0
    assert b"\x1b[1;36mAlice\x1b[0m\x1b[2;36m PERSON" in shown
    assert b" in [b]Paris[/b]" in shown
    assert b"PERSON 2" in shown


def test_lines_before_one_whose_language_has_no_model_are_written(tiny_ner, tmp_path):
    """Both are in one slice, and the line's number is the message's."""
    install(tmp_path, tiny_ner, "en-core-web-sm", "en", "core_web_sm")
    english = "The old man and the young woman met Alice in Paris on a rainy day in September"
    ukrainian = "Вона зустріла його у Києві, коли він повертався додому зі своєї нової роботи"
    done = run(
        *("entities", "-l", "auto", "--label", "GPE"),
        stdin="\n".join([english, english, ukrainian, english]),
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == {"0", "1"}
    assert done.stderr.startswith("akidb-mlx: line 3 of standard input needs uk_core_news_sm: ")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "{model}", "--label", "NONE", "x"], "en_tiny has no label 'NONE'"),
        (["-m", "org/none", "x"], "org/none is not on this machine"),
        (["-l", "tlh", "x"], "no model is known for the language 'tlh'"),
        (["-l", "auto", "-m", "{model}", "x"], "leave out model"),
        (["-m", "{model}", "-f", "/no/such/file"], "/no/such/file cannot be read: No such file"),
        (["-m", "{model}", "-f", "{model}/ner/model"], "is not UTF-8"),
    ],
)
def test_failures(model, arguments, message):
    done = run("entities", *(one.format(model=model) for one in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
