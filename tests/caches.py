"""Helpers that the tests of the cache share: models without a Hub, users, processes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_cache import ModelCache
from model_cache.names import RepoName
from model_cache.record import CacheRecord
from model_cache.store import Store
from tests.support import GOLDENS

TINY = GOLDENS / "tiny-bert"
COMMIT = "c" * 40


def stored(cache: ModelCache, repo_id: str = "org/tiny", commit: str = COMMIT) -> Path:
    """Put the tiny model into a cache with no Hub."""
    store = Store(cache.root)
    staged = store.staging_folder(RepoName(repo_id), commit)
    shutil.copytree(TINY, staged, dirs_exist_ok=True)
    return store.publish(staged, CacheRecord.from_files(staged, repo_id, commit, "hub", ("main",))).path


def add_small_model(root: Path, repo_id: str, commit: str = COMMIT) -> Path:
    """Put a model of one small file into a cache, so that there can be many."""
    path = root / repo_id.replace("/", "--") / commit
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    CacheRecord.from_files(path, repo_id, commit, "hub", ("main",)).write(path)
    path.with_name(f"{commit}.lock").touch()
    return path


@contextmanager
def without_rights(folder: Path, mode: int = 0o555):
    """A folder and all below it have this mode; root is somebody else inside, since modes do not bind it."""
    for path in (*folder.rglob("*"), folder):
        path.chmod(mode if path.is_dir() else mode & 0o444)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
        folder.chmod(0o755)
        for parent, folders, names in os.walk(folder):
            for name in folders:
                Path(parent, name).chmod(0o755)
            for name in names:
                Path(parent, name).chmod(0o644)


@contextmanager
def as_user(user: int, group: int) -> Iterator[None]:
    """Be another user, who belongs to one group and lets it write; only root can."""
    groups, mask = os.getgroups(), os.umask(0o002)
    os.setgroups([])
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        os.umask(mask)


def start_python(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a program in a fresh interpreter; what it prints is for the test, its errors for whoever runs it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=GOLDENS.parent.parent,
        env={**os.environ, **environment},
    )


def run_together(programs: list[subprocess.Popen[str]]) -> list[str]:
    """Let programs go on at the same time that wait for a line, once all have printed one; return what they print."""
    for one in programs:
        assert one.stdout.readline() == "ready\n"
    for one in programs:
        one.stdin.write("go\n")
        one.stdin.flush()
    answers = [one.communicate(timeout=500)[0] for one in programs]
    assert [one.returncode for one in programs] == [0] * len(programs)
    return answers
