"""Packages the crate, and follows docs/rust.md to the letter with the packaged one, in a crate outside the workspace.

    python -m tests.crate

Files of the page are the blocks after a line that holds nothing but a file's name; the console block that runs them is
run in their folder, and its output compared. Needs cargo, and the environment that `make demo` sets up in .venv.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CRATE = "crates/akidb-embedding"
PAGE = ROOT / "docs" / "rust.md"
_FILE = re.compile(r"^`([\w./]+)`:\n\n```\w+[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Files that a build of the crate, its documentation or its licence needs.
_NEEDED = {"Cargo.toml", "build.rs", "src/lib.rs", "src/python/ml_module.py", "README.md", "LICENSE"}


def main() -> None:
    target = ROOT / "target"
    for old in (target / "package").glob("*.crate"):
        old.unlink()
    subprocess.run(["cargo", "package", "--no-verify", "--allow-dirty", "--locked"], cwd=ROOT / CRATE, check=True)
    (archive,) = (target / "package").glob("*.crate")
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) / "akidb-mlx"
        unpack(archive, beside / CRATE)
        (beside / ".venv").symlink_to(ROOT / ".venv")
        newcomer = Path(folder) / "my-search"
        page = PAGE.read_text(encoding="utf-8")
        for name, content in files(page).items():
            path = newcomer / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        # The same dependencies as in the workspace, so that no release of one of them fails this.
        shutil.copy(ROOT / "Cargo.lock", newcomer)
        commands, expected = console(page)
        found = run(commands, newcomer, target)
    if found.splitlines() != expected:
        sys.exit(f"the program of {PAGE.name} printed {found!r}, expected {expected}")
    print(f"{archive.name}: {archive.stat().st_size / 1e3:.0f} kB, and {PAGE.name} works as it is written")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a packaged crate, as its registry's users have it."""
    with tempfile.TemporaryDirectory() as unpacked, tarfile.open(archive) as tar:
        tar.extractall(unpacked)
        (source,) = Path(unpacked).iterdir()
        held = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
        if lacking := _NEEDED - held:
            sys.exit(f"{archive.name} lacks {', '.join(sorted(lacking))}")
        if links := [path.name for path in source.rglob("*") if path.is_symlink()]:
            sys.exit(f"{archive.name} holds links: {', '.join(links)}")
        shutil.copytree(source, folder)


def files(page: str) -> dict[str, str]:
    """Return the files that a page has its reader write, by name."""
    found = dict(_FILE.findall(page))
    if set(found) != {"Cargo.toml", "build.rs", "src/main.rs"}:
        sys.exit(f"{PAGE.name} holds the files {', '.join(found)}, expected Cargo.toml, build.rs and src/main.rs")
    return found


def console(page: str) -> tuple[list[str], list[str]]:
    """Return the commands of the block that ends with `cargo run`, and the lines that are shown below it."""
    for block in _CONSOLE.findall(page):
        lines = block.splitlines()
        commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if commands[-1] == "cargo run":
            return commands, [line for line in lines if not line.startswith("$ ")]
    sys.exit(f"{PAGE.name} has no console block that ends with `cargo run`")


def run(commands: list[str], folder: Path, target: Path) -> str:
    """Run commands as a newcomer's shell does, without the Makefile's settings; return what they print."""
    ours = ("PYO3_", "AKIDB_", "VIRTUAL_ENV", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["CARGO_TARGET_DIR"] = str(target)
    script = " && ".join(commands)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{script} ended with exit status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
