"""Hooks of the documentation's build: pages that are made from other files, and a check of what pages load."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from akidb_mlx.cli.commands import create_app

ROOT = Path(__file__).parent.parent
# Files outside this folder that are also pages.
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "tests/goldens/README.md": "reference-vectors.md",
}
# Tags that make a browser fetch something while it shows a page.
LOADS = re.compile(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?https?:|<link\b[^>]*rel=\"?stylesheet[^>]*href=\"?https?:")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the root's files and from the command line."""
    for source, page in ROOT_PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    files.append(File.generated(config, "cli-reference.md", content=describe_commands()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links that are right in the repository into links between pages."""
    for source, target in ROOT_PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}", f"]({target}", markdown)
    if page.file.src_uri in ROOT_PAGES.values():
        markdown = markdown.replace("](docs/", "](")
    return markdown.replace("```rust,no_run", "```rust")


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Refuse a page that loads something from another host.

    Raises:
        PluginError: a tag of the page names another host.
    """
    if found := LOADS.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from another host: {found[0]}")
    return output


def describe_commands() -> str:
    """Return the reference of the command line, as Typer describes the commands themselves."""
    command = typer.main.get_command(create_app())
    context = command.make_context("akidb-mlx", [], resilient_parsing=True)
    return get_docs_for_click(obj=command, ctx=context, name="akidb-mlx", title="The command line, option by option")
