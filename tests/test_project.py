"""The repository's own promises."""

import ast
import re
from pathlib import Path

import akidb_mlx

ROOT = Path(__file__).parent.parent


def test_one_version_everywhere():
    """The package's metadata take it from `akidb_mlx/__init__.py`; tests/package.py compares the built wheel's."""
    assert first_match(r"^version = (.+)$", "pyproject.toml") is None
    assert first_match(r"^dynamic = (.+)$", "pyproject.toml") == '["version"]'
    assert first_match(r'^\[tool\.hatch\.version\]\npath = "(.+)"$', "pyproject.toml") == "akidb_mlx/__init__.py"
    for crate in ("akidb-embedding", "akidb-selection"):
        assert first_match(r'^version = "(.+)"$', f"crates/{crate}/Cargo.toml") == akidb_mlx.__version__
    assert first_match(r"^## (\S+)", "CHANGELOG.md") == akidb_mlx.__version__


def test_actions_are_pinned_by_commit():
    """A tag can be moved to other code; a commit cannot."""
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for action in re.findall(r"uses: (.+)", workflow.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), f"{workflow.name}: {action}"


def test_links_inside_the_documentation_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_setting_is_documented():
    documented = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for name in akidb_mlx.Settings.model_fields:
        assert f"`AKIDB_{name.upper()}`" in documented


def first_match(pattern: str, name: str) -> str | None:
    """The pattern's group where it first occurs in a file of the repository."""
    found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return found and found[1]


# Openings that make a reader wait for the verb.
_NO_VERB = re.compile(
    r"^(What|Whether|How|By|Which|Where|When|Who|One|The|An?|No|All|Its|Those|That|This|Everything|Whatever|Of|From"
    r"|With|Told|True|False|Any|Some|Seconds|Bytes|Runs|Makes|Takes)\b|^\("
)


def test_class_variables_state_their_type():
    """On Python 3.10, pydantic refuses a class whose ClassVar has none."""
    for package in ("akidb_mlx", "embedded_db", "model_cache"):
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r": ClassVar\s*(=|$)", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_docstrings_of_functions_begin_with_a_verb():
    found = []
    for package in ("akidb_mlx", "embedded_db", "model_cache", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    docstring = ast.get_docstring(node) or ""
                    if _NO_VERB.match(docstring):
                        found.append(f"{path.relative_to(ROOT)}: {node.name}: {docstring.splitlines()[0]}")
    assert found == []


def test_no_docstring_opens_with_a_noun_clause():
    clause = re.compile(r"(What|Whether|How|By which|Which|Where|When|Who|Why)\b")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for package in ("akidb_mlx", "embedded_db", "model_cache", "benchmarks", "tests", "examples"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, documented) and clause.match(ast.get_docstring(node) or ""):
                    found.append(f"{path.relative_to(ROOT)}: {ast.get_docstring(node)}")
    assert found == []


def test_an_opening_without_a_verb_is_noticed():
    assert all(map(_NO_VERB.match, ("What it is.", "Whether it is.", "(batch, size) → the same.", "The vectors.")))
    assert not any(map(_NO_VERB.match, ("Return the vectors.", "Embed texts.", "Note the time.")))
