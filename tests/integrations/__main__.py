"""Make an environment for each framework, or for those that are named, and run the tests of its adapter there.

An environment in `.integrations` is kept, and made anew where the requirements in pyproject.toml or here changed.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# Beside the extra of the same name, for each framework: what its tests need.
REQUIREMENTS = {
    "langchain": ["langchain-tests>=1.1,<2"],
    "llama-index": [],
    "chroma": [],
    "lancedb": [],
    "haystack": [],
    "llm": [],
    "mteb": [],
}
ALWAYS = ["pytest>=8.2,<10"]


def main(names: list[str]) -> int:
    """Run the tests of these frameworks, or of all; return how many failed."""
    if unknown := set(names) - set(REQUIREMENTS):
        raise SystemExit(f"no such integration: {', '.join(sorted(unknown))}; there are {', '.join(REQUIREMENTS)}")
    return sum(run(name) != 0 for name in names or REQUIREMENTS)


def run(name: str) -> int:
    """Run the tests of one framework, and return pytest's status."""
    python = environment(name) / "bin" / "python"
    file = f"tests/integrations/test_{name.replace('-', '_')}.py"
    # The frameworks' own warnings are none of ours, and the other tests' fixtures need what is not installed there.
    options = ["-o", "filterwarnings=", "-m", "", "-p", "no:cacheprovider", "--confcutdir=tests/integrations"]
    print(f"== {name}", flush=True)
    return subprocess.run([python, "-m", "pytest", *options, file], cwd=ROOT, check=False).returncode


def environment(name: str) -> Path:
    """Return the environment of a framework, which is made where it is absent or of other requirements."""
    folder = ROOT / ".integrations" / name
    wanted = [*ALWAYS, *REQUIREMENTS[name]]
    stamp, mark = folder / "requirements", hashlib.sha256(repr(wanted).encode())
    mark.update((ROOT / "pyproject.toml").read_bytes())
    if stamp.is_file() and stamp.read_text() == mark.hexdigest():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--editable", f"{ROOT}[{name}]", *wanted], check=True)
    stamp.write_text(mark.hexdigest())
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
