"""The command line in odd environments: locales, no home folder, settings files and tokens that are none."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.settings import Settings, config_file
from model_cache import ModelCache, ModelCacheError
from model_cache.config import CacheConfig
from tests.support import GOLDENS
from tests.test_cli import MODEL, run

# In the second, Python's encoding of arguments and paths is ASCII.
LOCALES = {
    "C": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0"},
    "POSIX": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252:replace"},
    "unbuffered": {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "ascii"},
}
# One in the default run, as each takes several programs.
locales = pytest.mark.parametrize(
    "locale",
    [
        pytest.param(locale, id=name, marks=[] if name == "ASCII" else pytest.mark.slow)
        for name, locale in LOCALES.items()
    ],
)


# Encodings.
@locales
def test_text_is_utf8_whatever_the_locale_says(tiny_ner, tmp_path, locale):
    model = shutil.copytree(tiny_ner, tmp_path / "Čapek")
    line = "0\t0\t5\tPERSON\tČapek\n"
    command = ("entities", "-m", str(model), "--label", "PERSON")
    for done in (run(*command, "Čapek met Bob", **locale), run(*command, stdin="Čapek met Bob", **locale)):
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(line)


@locales
def test_errors_are_utf8_whatever_the_locale_says(locale):
    done = run("embed", "-m", "Čapek", "a", **locale)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("akidb-mlx: 'Čapek' is not a repository name")
    assert done.stderr.count("\n") == 1


@locales
def test_an_argument_that_is_not_utf8_is_named(locale):
    command = [sys.executable, "-m", "akidb_mlx", "embed", "-m", MODEL, b"caf\xe9"]
    done = subprocess.run(command, env={**os.environ, **locale}, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"akidb-mlx: argument 4 is not UTF-8: b'caf\\xe9'\n"


def test_names_that_are_not_utf8(tmp_path):
    """In the environment, where a path may be so."""
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    environment = {**os.environb, b"AKIDB_CACHE_DIR": folder}
    done = subprocess.run(
        [sys.executable, "-m", "akidb_mlx", "doctor"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert b"/caf\\udce9/models\n" in done.stdout


# Home folders.
# A user without a name, as containers have: what the system says of one is played.
NAMELESS = """
import os, pwd, runpy, sys
def nobody(*_):
    raise KeyError("uid not found")
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
sys.argv[0] = "akidb-mlx"
runpy.run_module("akidb_mlx", run_name="__main__", alter_sys=True)
"""


def nameless(*arguments, **environment):
    left_out = ("HOME", "AKIDB_CACHE_DIR", "AKIDB_CONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME")
    return subprocess.run(
        [sys.executable, "-c", NAMELESS, *arguments],
        env={**{name: value for name, value in os.environ.items() if name not in left_out}, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def temporary(tmp_path):
    """The environment with a folder for temporary files that is this test's."""
    (tmp_path / "t").mkdir()
    return {"TMPDIR": str(tmp_path / "t")}


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["embed", "-m", MODEL, "a"], ["list", "--json"], ["doctor"], ["doctor", "--json"]],
    ids=lambda arguments: "".join(arguments[:2])[:12],
)
def test_without_a_home_folder(arguments, temporary):
    done = nameless(*arguments, **temporary)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_without_a_home_folder_models_go_where_this_user_alone_reaches(hub, tmp_path, temporary):
    hub.add("org/tiny", GOLDENS / "tiny-bert")
    environment = {**hub.environment(tmp_path / "hub"), **temporary}
    pulled = nameless("pull", "org/tiny", **environment)
    folder = Path(temporary["TMPDIR"]) / f"akidb-{os.getuid()}"
    assert pulled.stdout.startswith(f"org/tiny: {folder}/models/org--tiny/"), pulled.stderr
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    refused = nameless("list", **environment)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"akidb-mlx: there is no home folder, and {folder} is open to other users: set AKIDB_CACHE_DIR or "
        "XDG_CACHE_HOME to a folder for the cache\n"
    )
    assert nameless("list", AKIDB_CACHE_DIR=str(tmp_path), **environment).returncode == 0


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_planted_folder_is_refused(monkeypatch, tmp_path, kind):
    planted = tmp_path / f"akidb-{os.getuid()}"
    if kind == "file":
        planted.touch()
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        planted.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("model_cache.config.Path.expanduser", _without_home)
    for name in ("AKIDB_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelCacheError, match="set AKIDB_CACHE_DIR or XDG_CACHE_HOME to a folder for the cache"):
        CacheConfig.resolve()
    assert ModelCache(tmp_path / "given").root == tmp_path / "given"  # the default is not looked at


def _without_home(path):
    if str(path).startswith("~"):
        raise RuntimeError("Could not determine home directory.")
    return path


def test_without_a_home_folder_there_is_no_settings_file(monkeypatch):
    monkeypatch.delenv("AKIDB_CONFIG")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", _without_home)
    assert config_file() is None
    assert Settings().precision == "auto"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_a_real_user_without_a_name(tmp_path):
    """It needs a user who can read Python and the package."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "AKIDB_DEVICE": "cpu"}
    tmp_path.chmod(0o777)
    command = [sys.executable, "-m", "akidb_mlx", "list", "--json"]
    options = {"env": environment, "cwd": Path(__file__).parent.parent, "user": 54321, "group": 54321}
    try:
        subprocess.run([sys.executable, "-c", "import typer"], check=True, capture_output=True, **options)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("another user cannot read this Python")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (
            ["embed", "-m", "~no-such-user/model", "a"],
            {},
            "'~no-such-user/model' is in a home folder that is not known",
        ),
        (["pull", "~no-such-user/model"], {}, "'~no-such-user/model' is in a home folder that is not known"),
        (["entities", "-m", "~no-such-user/model", "a"], {}, "'~no-such-user/model' cannot be looked at"),
        (["entities", "-m", "x" * 5000, "a"], {}, "cannot be looked at"),
        (["embed", "-m", "x" * 5000, "a"], {}, "is not a repository name"),
        (["list"], {"AKIDB_CACHE_DIR": "~no-such-user/x"}, "the cache cannot be in '~no-such-user/x'"),
        (["list"], {"AKIDB_CACHE_DIR": "", "XDG_CACHE_HOME": "~no-such-user"}, "set AKIDB_CACHE_DIR or"),
        (["list"], {"AKIDB_CONFIG": "~no-such-user/x"}, "AKIDB_CONFIG is '~no-such-user/x', and this home folder"),
        (["embed", "-m", "org/none", "a"], {"HF_HOME": "~no-such-user/x"}, "org/none is not on this machine"),
    ],
)
def test_home_folders_of_nobody(arguments, environment, message):
    done = run(*arguments, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# The settings file.
def _fifo(path):
    os.mkfifo(path)


# What is wrong in the first three depends on the release of the reader of TOML, which may bound the depth itself.
FILES = {
    "deep": (
        lambda path: path.write_text("device = " + "[" * 100_000),
        "cannot be read: (maximum recursion|TOML inline)",
    ),
    "deep and valid": (
        lambda path: path.write_text("x" + ".x" * 3_000 + " = 1"),
        "'x' is not a setting|TOML key has more",
    ),
    "deep value": (lambda path: path.write_text("precision" + ".x" * 3_000 + " = 1"), "precision: |TOML key has more"),
    "not UTF-8": (lambda path: path.write_bytes(b"device = '\xff'"), "cannot be read: 'utf-8' codec"),
    "folder": (lambda path: path.mkdir(), "cannot be read: it is not a file"),
    "pipe": (_fifo, "cannot be read: it is not a file"),
    "huge": (lambda path: os.truncate(_created(path), 1 << 40), "cannot be read: it has more than 1048576 bytes"),
    "long number": (lambda path: path.write_text(f"token_budget = {'9' * 100_000}"), "settings"),
    "loop of links": (lambda path: path.symlink_to(path), "cannot be read: "),
}


def _created(path):
    path.touch()
    return path


@pytest.mark.parametrize(("make", "message"), FILES.values(), ids=FILES)
def test_a_settings_file_that_is_none(tmp_path, monkeypatch, make, message):
    file = tmp_path / "mlx.toml"
    make(file)
    done = run("list", AKIDB_CONFIG=str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("akidb-mlx: settings")
    assert re.search(message, done.stderr)
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 1500
    monkeypatch.setenv("AKIDB_CONFIG", str(file))
    with pytest.raises(ConfigurationError):
        Settings()


def test_the_null_device_is_an_empty_settings_file():
    assert run("list", AKIDB_CONFIG=os.devnull).returncode == 0


# The Hub's token.
@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "file"])
@pytest.mark.parametrize(
    "token", ["hf_sécret", "hf_se\ncret", "hf_se\x1bcret", "hf_se cret", b"hf_se\xffcret"], ids=ascii
)
def test_a_token_that_no_request_can_carry(hub, tmp_path, name, token):
    hub.add("org/tiny", GOLDENS / "tiny-bert")
    environment = {os.fsencode(key): os.fsencode(value) for key, value in hub.environment(tmp_path).items()}
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        environment[os.fsencode(variable)] = b""
    token = token if isinstance(token, bytes) else token.encode()
    if name == "file":
        file = tmp_path / "token"
        file.write_bytes(token)
        environment[b"HF_TOKEN_PATH"] = os.fsencode(file)
        name = str(file)
    else:
        environment[os.fsencode(name)] = token
    command = [sys.executable, "-m", "akidb_mlx", "pull", "org/tiny"]
    done = subprocess.run(
        command, env={**os.environb, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"akidb-mlx: the Hub's token in {name} ")
    assert done.stderr.count("\n") == 1
    assert "cret" not in done.stderr


def test_a_token_with_a_line_feed_at_its_end(hub, tmp_path):
    """The client drops it."""
    hub.add("org/tiny", GOLDENS / "tiny-bert")
    done = run("pull", "org/tiny", **{**hub.environment(tmp_path), "HF_TOKEN": "hf_secret\r\n"})
    assert done.returncode == 0, done.stderr
    assert "Bearer hf_secret" in [request.headers.get("authorization") for request in hub.requests]
