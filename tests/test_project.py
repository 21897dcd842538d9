"""The repository's own promises."""

import re
from pathlib import Path

import akidb_mlx

ROOT = Path(__file__).parent.parent


def test_one_version_everywhere():
    assert f'version = "{akidb_mlx.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == akidb_mlx.__version__


def test_links_inside_the_documentation_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_setting_is_documented():
    documented = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for name in akidb_mlx.Settings.model_fields:
        assert f"`AKIDB_{name.upper()}`" in documented
