"""The cache's folder, also when the disk, a lock or somebody else gets in the way."""

import errno
import fcntl
import json
import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from model_cache import (
    CorruptModelError,
    DownloadError,
    InvalidModelNameError,
    ModelCache,
    ModelCacheError,
    ModelInUseError,
    ModelUnavailableError,
    files,
    locks,
)
from model_cache.names import RepoName
from model_cache.record import CacheRecord
from model_cache.resolver import Resolver
from model_cache.store import Store
from model_cache.transfer import Transfer
from tests.caches import COMMIT, TINY, stored, without_rights


@pytest.fixture
def cache(tmp_path):
    return ModelCache(tmp_path / "models", download_timeout_s=20)


# Folders that cannot be written.
def test_a_cache_that_cannot_be_written_still_serves(public, caplog):
    cache = ModelCache(public / "models")
    path = stored(cache)
    (path / ".akidb-model.json").unlink()
    with without_rights(public):
        assert cache.ensure("org/tiny", download=False) == path
        with cache.acquire("org/tiny", download=False) as found:
            assert found == path
    assert "cannot be written" in caplog.text
    assert not list(path.glob(".*.json.*"))


def test_a_download_into_a_cache_that_cannot_be_written(hub, public):
    hub.add("org/tiny", TINY)
    with (
        without_rights(public),
        pytest.raises(ModelCacheError, match=r"cannot be used: .*Permission denied.* set AKIDB"),
    ):
        ModelCache(public / "models").ensure("org/tiny")


def test_folders_that_cannot_be_read(public):
    cache = ModelCache(public / "models")
    stored(cache)
    with without_rights(public, 0o000):
        for use in (cache.list, lambda: cache.ensure("org/tiny", download=False), lambda: cache.remove("org/tiny")):
            with pytest.raises(ModelCacheError, match=r"cannot be used: .*Permission denied"):
                use()


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("model_cache.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(tmp_path / "record.json", "{}")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def drive(monkeypatch):
    """A Mac's F_FULLFSYNC; its errors are raised one after another."""
    flushed, errors = [], []

    def control(descriptor, command):
        assert command == 51
        if errors:
            raise OSError(errors.pop(0), "refused")
        flushed.append(descriptor)

    monkeypatch.setattr(files, "fcntl", SimpleNamespace(F_FULLFSYNC=51, fcntl=control))
    monkeypatch.setattr(files.os, "fsync", lambda _: flushed.append("fsync"))
    return flushed, errors


def test_a_macs_drive_is_flushed_too(tmp_path, drive):
    flushed, _ = drive
    files.write_atomically(tmp_path / "record.json", "{}")
    assert len(flushed) == 2  # the file, then the folder
    assert "fsync" not in flushed


def test_a_file_system_that_cannot_flush_its_drive_is_synced(tmp_path, drive):
    flushed, errors = drive
    errors += [errno.ENOTSUP, errno.EINVAL]
    files.write_atomically(tmp_path / "record.json", "{}")
    assert flushed == ["fsync", "fsync"]


def test_a_drive_that_fails_is_an_error(tmp_path, drive):
    flushed, errors = drive
    errors.append(errno.EIO)
    with pytest.raises(OSError, match="refused"):
        files.write_atomically(tmp_path / "record.json", "{}")
    assert flushed == []
    assert list(tmp_path.iterdir()) == []


def test_names_that_differ_in_case_are_one_model_on_a_disk_that_does_not_tell_them_apart(hub, cache):
    """As a Mac's does by default; a link takes the part of the second name elsewhere."""
    hub.add("org/tiny", TINY)
    path = cache.ensure("org/tiny")
    other = path.parent.with_name("Org--Tiny")
    stand_in = not other.exists()
    if stand_in:
        other.symlink_to(path.parent)
    requests = hub.count("*")
    assert cache.ensure("Org/Tiny").samefile(path)
    assert hub.count("*") == requests
    with cache.acquire("Org/Tiny", download=False), pytest.raises(ModelInUseError):
        cache.remove("org/tiny")
    cache.remove("Org/Tiny")
    if stand_in:
        other.unlink()
    assert not path.exists()
    assert cache.list() == []


def test_a_disk_that_fills_up_during_a_download(hub, cache, monkeypatch):
    attempts = []

    def full(*arguments):
        attempts.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.add("org/tiny", TINY)
    monkeypatch.setattr(Transfer, "_receive", full)
    with pytest.raises(DownloadError, match="could not be written: No space left on device"):
        cache.ensure("org/tiny")
    assert len(attempts) == 1  # which no retry would mend
    assert cache.list() == []


# Locks.
def test_a_download_that_another_process_never_ends(hub, tmp_path):
    hub.add("org/tiny", TINY)
    cache = ModelCache(tmp_path / "models", download_timeout_s=0.2)
    with (
        locks.exclusive(cache.root / "org--tiny/download.lock", 5),
        pytest.raises(DownloadError, match="another process has been downloading org/tiny"),
    ):
        cache.ensure("org/tiny")


def test_a_lock_whose_file_goes_while_it_is_waited_for(tmp_path):
    path = tmp_path / "lock"
    taken = threading.Event()

    def wait():
        with locks.shared(path, 5):
            taken.set()

    waiting = threading.Thread(target=wait)
    with locks.exclusive(path, 5):
        waiting.start()
        assert not taken.wait(0.2)
        path.unlink()
    waiting.join(5)
    assert taken.is_set()
    assert path.exists()  # the one that was waited for is gone, so it made another
    assert not locks.is_held(path)
    assert not locks.is_held(tmp_path / "none")


def test_a_model_that_goes_between_finding_and_opening_is_looked_for_again(cache, monkeypatch):
    stored(cache, commit="a" * 40)
    kept = stored(cache, commit="b" * 40)
    resolve = Resolver.resolve

    def resolve_too_early(self, repo, **options):
        found = resolve(self, repo, **options)
        if found.path != kept:
            shutil.rmtree(found.path)
        return found

    os.utime(kept)
    record = CacheRecord.read(kept)
    record.model_copy(update={"created": 0.0}).write(kept)  # so that the other one is preferred
    monkeypatch.setattr(Resolver, "resolve", resolve_too_early)
    with cache.acquire("org/tiny", download=False) as path:
        assert path == kept


def test_the_last_use_is_the_last_opening(cache):
    path = stored(cache)
    os.utime(path.with_name(f"{COMMIT}.lock"), (1, 1))
    assert cache.list()[0].last_used == 1
    cache.ensure("org/tiny", download=False)
    assert abs(cache.list()[0].last_used - time.time()) < 5
    path.with_name(f"{COMMIT}.lock").unlink()
    assert abs(cache.list()[0].last_used - CacheRecord.read(path).created) < 1


def test_where_locks_do_nothing_each_download_has_a_folder_of_its_own_and_the_first_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    store, repo = Store(tmp_path), RepoName("org/tiny")
    both = [store.staging_folder(repo, COMMIT) for _ in range(2)]
    assert both[0] != both[1]
    for staged in both:
        shutil.copytree(TINY, staged, dirs_exist_ok=True)
    record = CacheRecord.from_files(both[0], "org/tiny", COMMIT, "hub")
    first, second = (store.publish(staged, record).path for staged in both)
    inode = (first / "model.safetensors").stat().st_ino
    assert first == second
    assert (second / "model.safetensors").stat().st_ino == inode
    assert not any(staged.exists() for staged in both)


# What is left behind.
def test_what_was_left_behind_goes_with_the_next_download(hub, cache, monkeypatch, caplog):
    hub.add("org/tiny", TINY)
    old, recent, trash = (cache.root / name for name in (".staging/org--a@b", ".staging/org--c@d", ".trash/half"))
    for folder in (old, recent, trash):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    (cache.root / ".trash/file").touch()
    cache.ensure("org/tiny")
    assert [path.exists() for path in (old, recent, trash)] == [False, True, False]
    assert not list((cache.root / ".trash").iterdir())

    def refuse(*_):
        raise PermissionError("no")

    trash.mkdir()
    monkeypatch.setattr("model_cache.folders.shutil.rmtree", refuse)
    hub.add("org/other", TINY)
    assert cache.ensure("org/other").is_dir()
    assert "cannot be deleted" in caplog.text


# Files that are not what they should be.
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{",
        (9).to_bytes(8, "little") + b'{"a":  1}',
        (24).to_bytes(8, "little") + b'{"a":{"data_offsets":0}}',
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        (2).to_bytes(8, "little") + b"{} ",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_weights_that_are_cut_off_or_garbage(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert files.find_truncated(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": []}', "{}", "[" * 100_000])
def test_an_index_that_is_garbage(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CorruptModelError, match="is not an index of weights"):
        files.find_missing(tmp_path)


def test_weights_whole_and_in_parts_are_fetched_whole():
    names = ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"]
    assert files.select_needed(names) == ["config.json", "model.safetensors"]
    assert files.select_needed(names[1:]) == ["config.json", *names[1:3]]


@pytest.mark.parametrize("fault", ["hostile index", "no tokenizer"])
def test_a_folder_that_is_no_model_is_passed_over(cache, caplog, fault):
    path = stored(cache)
    (path / ".akidb-model.json").unlink()
    if fault == "hostile index":
        (path / "model.safetensors").unlink()
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    else:
        (path / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailableError):
        cache.ensure("org/tiny", download=False)
    assert "is ignored" in caplog.text
    assert path.is_dir()  # which is for a person to look at


# What the Hub says.
def test_weights_in_parts(hub, cache):
    tree = {path.name: path.read_bytes() for path in TINY.glob("*.json")}
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    tree.update(dict.fromkeys(parts, (TINY / "model.safetensors").read_bytes()))
    tree["model.safetensors.index.json"] = json.dumps({"weight_map": dict(zip("ab", parts, strict=True))}).encode()
    hub.add("org/parts", tree)
    path = cache.ensure("org/parts")
    assert [part for part in parts if not (path / part).is_file()] == []
    (path / parts[1]).unlink()
    with pytest.raises(CorruptModelError, match=parts[1]):
        cache.ensure("org/parts", download=False)


def test_a_repository_that_is_not_whole(hub, cache):
    hub.add("org/part", {path.name: path.read_bytes() for path in TINY.glob("*") if path.name in _PART})
    with pytest.raises(ModelUnavailableError, match=r"is not a complete model: tokenizer\.json is missing"):
        cache.ensure("org/part")
    assert cache.list() == []


_PART = ("config.json", "model.safetensors")


# Offline, and names.
@pytest.mark.parametrize("what", ["update", "repair"])
def test_offline_nothing_is_fetched_anew(cache, what):
    path = stored(cache)
    (path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailableError, match="HF_HUB_OFFLINE is set"):
        getattr(cache, what)("org/tiny")


def test_contradicting_revisions():
    with pytest.raises(InvalidModelNameError, match="names one revision"):
        RepoName.parse("org/tiny@v1", "v2")
