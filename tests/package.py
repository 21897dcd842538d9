"""Checks the built wheel and sdist, and runs the sdist's tests against the installed wheel.

    python -m tests.package DIST [PYTEST ARGUMENTS ...]

It needs the standard library and git only. It is also a pytest plugin, which makes sure that the run of the tests
imports the installed packages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib import import_module
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parent.parent
PACKAGES = ("akidb_mlx", "embedded_db", "model_cache")
VERSIONS = "import akidb_mlx, importlib.metadata as m; print(m.version('akidb-mlx'), akidb_mlx.__version__)"


def main() -> None:
    dist, arguments = Path(sys.argv[1]).resolve(), sys.argv[2:]
    wheel, sdist = only_file(dist, "*.whl"), only_file(dist, "*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        source = unpack(sdist, Path(folder) / "sdist")
        check_sdist(source)
        check_wheel(wheel, source)
        for file in (wheel, sdist):
            print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB", flush=True)

        python = create_environment(Path(folder) / "venv")
        run(python, "-m", "pip", "install", "--quiet", str(wheel))
        try_command_line(python, source / "tests" / "goldens" / "tiny-bert")

        run(python, "-m", "pip", "install", "--quiet", f"{wheel}[test]")
        # pytest puts the source folder first in sys.path; without these files it does not hide the installed packages.
        for name in PACKAGES:
            (source / name / "__init__.py").unlink()
        run(python, "-m", "pytest", "-p", "tests.package", *arguments, cwd=source)


def only_file(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder} holds {len(found)} files {pattern}, expected one: run `make package`")
    return found[0]


def unpack(sdist: Path, folder: Path) -> Path:
    shutil.unpack_archive(sdist, folder)
    (source,) = folder.iterdir()
    return source


def check_sdist(source: Path) -> None:
    """It must hold the files that git tracks, goldens included."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    compare("sdist", files(source), {*listed.split("\0")[:-1], "PKG-INFO"})


def check_wheel(wheel: Path, source: Path) -> None:
    """It must hold the two packages, typed, and its metadata."""
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    packages = {f"{name}/{file}" for name in PACKAGES for file in files(source / name)}
    compare("wheel", held, {*packages, *(f"{name}/py.typed" for name in PACKAGES)})


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def compare(what: str, held: set[str], expected: set[str]) -> None:
    if held != expected:
        sys.exit(f"the {what} lacks {sorted(expected - held)} and should not hold {sorted(held - expected)}")


def create_environment(folder: Path) -> str:
    venv.create(folder, with_pip=True)
    return str(folder / "bin" / "python")


def try_command_line(python: str, model: Path) -> None:
    """Run the installed wheel with its required dependencies only."""
    packaged, imported = run(python, "-c", VERSIONS, capture_output=True).stdout.split()
    if packaged != imported:
        sys.exit(f"the wheel's metadata say version {packaged}, akidb_mlx.__version__ is {imported}")
    command = str(Path(python).with_name("akidb-mlx"))
    run(command, "--version")
    run(command, "doctor")
    answer = json.loads(run(command, "embed", "-m", str(model), "--json", "Hello", capture_output=True).stdout)
    if len(answer["embeddings"][0]) != answer["dimension"]:
        sys.exit(f"akidb-mlx embed gave {len(answer['embeddings'][0])} values, expected {answer['dimension']}")


def run(*command: str, cwd: Path | None = None, capture_output: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command away from the source tree; exit when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            command,
            cwd=cwd or empty,
            env=environment,
            stdout=subprocess.PIPE if capture_output else None,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with exit status {done.returncode}")
    return done


def pytest_sessionstart() -> None:
    """Refuse to test anything but the installed packages."""
    from pytest import UsageError

    installed = Path(sysconfig.get_path("purelib")).resolve()
    for name in PACKAGES:
        origin = Path(str(import_module(name).__file__)).resolve()
        if installed not in origin.parents:
            raise UsageError(f"{name} was imported from {origin}, expected it below {installed}")
        print(f"testing {origin.parent}")


if __name__ == "__main__":
    main()
