"""Many processes in one cache: what one of them removes, holds or asks for is no failure of another."""

import json
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest

from model_cache import (
    CacheAccessError,
    CacheLockedError,
    ModelCache,
    ModelInUseError,
    ModelUnavailableError,
    locks,
    record,
)
from model_cache.cache import _find_damaged
from model_cache.config import CacheConfig
from model_cache.eviction import Evictor
from model_cache.names import RepoName
from model_cache.record import CacheRecord
from model_cache.store import Store
from model_cache.stored_model import StoredModel
from tests.caches import COMMIT, TINY, add_small_model, run_together, start_python, stored
from tests.hub import Hub

WEIGHTS = "model.safetensors"


@pytest.fixture
def cache(tmp_path):
    return ModelCache(tmp_path / "models")


@pytest.fixture
def short(monkeypatch):
    """Locks that are never held for long are waited for a moment only."""
    monkeypatch.setattr("model_cache.stored_model.LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr("model_cache.store.LOCK_TIMEOUT_S", 0.1)


# Who asks whether a model is in use.
def test_one_that_asks_is_not_taken_for_a_user(cache, monkeypatch):
    """The lock is held by one that asks, at the very moment when others ask and remove."""
    path = add_small_model(cache.root, "org/asked")
    asks, go_on = threading.Event(), threading.Event()
    real = locks._try_lock

    def stop_while_it_is_held(descriptor, *arguments):
        held = real(descriptor, *arguments)
        if threading.current_thread() is asker and os.fstat(descriptor).st_ino == inode:
            asks.set()
            go_on.wait(30)
        return held

    inode = path.with_name(f"{COMMIT}.lock").stat().st_ino
    asker = threading.Thread(target=cache.list)
    monkeypatch.setattr(locks, "_try_lock", stop_while_it_is_held)
    asker.start()
    assert asks.wait(30)
    threading.Timer(0.3, go_on.set).start()
    assert [model.in_use for model in cache.list()] == [False]
    go_on.clear()
    asks.clear()
    asker = threading.Thread(target=cache.list)
    asker.start()
    assert asks.wait(30)
    threading.Timer(0.3, go_on.set).start()
    assert [model.repo_id for model in cache.remove("org/asked")] == ["org/asked"]
    asker.join()


ASKING = """
import sys
from pathlib import Path
from model_cache import ModelCache, ModelInUseError
root, own, models, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
cache, asked, wrong, removed = ModelCache(root), 0, 0, 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(models):
    for _ in range(rounds):
        listed = cache.list()
        asked += len(listed)
        wrong += sum(model.in_use for model in listed)
    try:
        removed += len(cache.remove(f"org/{own}-{number}"))
    except ModelInUseError:
        wrong += 1
print(asked, wrong, removed)
"""


@pytest.mark.parametrize(("processes", "models", "rounds"), [(4, 6, 2), pytest.param(8, 40, 1, marks=pytest.mark.load)])
def test_processes_that_list_and_remove_do_not_misreport_each_other(cache, processes, models, rounds):
    """Nobody has any of these models open."""
    for own in range(processes):
        for number in range(models):
            add_small_model(cache.root, f"org/{own}-{number}")
    programs = [start_python(ASKING, str(cache.root), str(own), str(models), str(rounds)) for own in range(processes)]
    answers = [[int(count) for count in answer.split()] for answer in run_together(programs)]
    print("asked, wrong, removed:", answers)
    assert sum(wrong for _, wrong, _ in answers) == 0
    assert sum(removed for *_, removed in answers) == processes * models
    assert cache.list() == []


# Eviction.
PULLING = """
import json, random, sys
from pathlib import Path
from model_cache import ModelCache, retries
root, limit, pulls, names, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
retries._LONGEST_PAUSE_S = 0.05
chosen, failures = random.Random(seed), []
cache = ModelCache(root, max_bytes=limit)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(pulls):
    try:
        cache.ensure(f"org/{chosen.randrange(names)}")
    except Exception as error:
        failures.append(f"{type(error).__name__}: {error}")
print(json.dumps(failures))
"""


@pytest.mark.parametrize(("processes", "pulls"), [(3, 4), pytest.param(6, 40, marks=pytest.mark.load)])
def test_processes_that_evict_at_once_do_not_fail(tmp_path, processes, pulls):
    """Each pulls one model after the other into a cache that has space for two of them."""
    root = tmp_path / "cache/models"
    files = {path.relative_to(TINY).as_posix(): path.read_bytes() for path in TINY.rglob("*") if path.is_file()}
    with Hub() as own:
        for number in range(8):
            own.add(f"org/{number}", files)
        limit = str(int(2.5 * sum(map(len, files.values()))))
        programs = [
            start_python(PULLING, str(root), limit, str(pulls), "8", str(seed), **own.environment(tmp_path))
            for seed in range(processes)
        ]
        failures = [json.loads(answer) for answer in run_together(programs)]
    print("pulls:", processes * pulls, "failures:", failures)
    assert failures == [[]] * processes
    assert all(model.damaged == () for model in ModelCache(root).list())


def test_what_another_process_evicted_counts_as_done(cache, monkeypatch):
    for name in ("a", "b"):
        add_small_model(cache.root, f"org/{name}")
    evictor = Evictor(Store(cache.root), CacheConfig(cache.root))
    plan, found = evictor.plan(1), Store(cache.root).all()
    assert len(plan.removals) == 2
    cache.remove("org/a")
    monkeypatch.setattr(Store, "all", lambda _: found)
    done = evictor.carry_out(plan)
    assert [removal.name for removal in done.removals] == [f"org/b@{COMMIT}"]
    assert (done.freed, done.short) == (plan.removals[1].size, plan.short)


def test_files_that_are_removed_while_they_are_counted_free_nothing(cache, monkeypatch):
    for name in ("a", "b"):
        add_small_model(cache.root, f"org/{name}")
    found = Store(cache.root).all()
    cache.remove("org/a")
    monkeypatch.setattr(Store, "all", lambda _: found)
    monkeypatch.setattr(Path, "is_file", lambda _: True)  # as it was a moment ago
    plan = Evictor(Store(cache.root), CacheConfig(cache.root)).plan_for_disk(1 << 40)
    assert [removal.name for removal in plan.removals] == [f"org/b@{COMMIT}"]


def test_a_model_that_cannot_be_deleted_is_said_and_stays(cache, monkeypatch, caplog):
    for name in ("a", "b"):
        add_small_model(cache.root, f"org/{name}")
    real = Path.rename

    def refuse(path, target):
        if "org--a" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    plan = cache.prune(0)
    assert [removal.name for removal in plan.removals] == [f"org/b@{COMMIT}"]
    assert plan.short == sum(model.size for model in cache.list())
    assert f"org/a@{COMMIT} cannot be removed and stays" in caplog.text
    with pytest.raises(CacheAccessError, match="Permission denied"):
        cache.remove("org/a")


@pytest.mark.parametrize("moment", ["before its record is read", "before its files are looked at"])
def test_what_is_removed_while_it_is_read_is_not_there(cache, monkeypatch, caplog, moment):
    gone = add_small_model(cache.root, "org/gone")
    add_small_model(cache.root, "org/here")
    real = CacheRecord.read.__func__

    def read(cls, folder):
        if folder == gone and moment == "before its record is read":
            shutil.rmtree(gone, ignore_errors=True)
        found = real(cls, folder)
        if folder == gone:
            shutil.rmtree(gone, ignore_errors=True)
        return found

    monkeypatch.setattr(CacheRecord, "read", classmethod(read))
    assert [(model.repo_id, model.damaged) for model in cache.list()] == [("org/here", ())]
    assert caplog.text == ""


def test_a_file_that_is_removed_before_it_is_linked_is_fetched(hub, cache, monkeypatch):
    files = {path.relative_to(TINY).as_posix(): path.read_bytes() for path in TINY.rglob("*") if path.is_file()}
    hub.add("org/two", files)
    old = cache.ensure("org/two")
    hub.add("org/two", {**files, "modules.json": files["modules.json"] + b"\n"})
    real = os.link

    def link(source, target):
        shutil.rmtree(old, ignore_errors=True)
        real(source, target)

    monkeypatch.setattr("model_cache.files.os.link", link)
    before, now = cache.update("org/two")
    assert (before, [model.commit for model in cache.list()]) == (old.name, [now])
    assert cache.verify() == {f"org/two@{now}": ()}


def test_two_that_delete_the_same_folder(tmp_path, monkeypatch, caplog):
    from model_cache import folders

    (tmp_path / "trash/sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (tmp_path / "trash" / name).touch()
    real, calls = shutil.rmtree, []

    def another_was_faster(path):
        calls.append(path)
        if len(calls) < 3:
            raise FileNotFoundError(2, "No such file or directory")
        real(path)

    monkeypatch.setattr("model_cache.folders.shutil.rmtree", another_was_faster)
    folders.delete(tmp_path / "trash")
    folders.delete(tmp_path / "trash")
    assert not (tmp_path / "trash").exists()
    assert caplog.text == ""


# Pins.
def test_pinning_a_model_that_was_just_removed_does_not_bring_it_back(cache, monkeypatch):
    path = add_small_model(cache.root, "org/tiny")
    real = Store.find

    def find(self, repo):
        found = real(self, repo)
        for model in found:
            self.remove(model)
        return found

    monkeypatch.setattr(Store, "find", find)
    with pytest.raises(ModelUnavailableError, match="org/tiny was removed from the cache meanwhile"):
        cache.pin("org/tiny")
    assert not path.exists()
    assert cache.list() == []


def test_a_model_that_was_just_pinned_is_not_removed(cache, monkeypatch):
    path = add_small_model(cache.root, "org/tiny")
    real = Store.find

    def find(self, repo):
        found = real(self, repo)
        for model in found:
            self.update_record(model, pinned=True)
        return found

    monkeypatch.setattr(Store, "find", find)
    with pytest.raises(ModelInUseError, match="is pinned"):
        cache.remove("org/tiny")
    assert path.is_dir()


def test_a_pin_that_came_during_a_repair_stays(cache):
    path = stored(cache)
    store = Store(cache.root)
    staged = store.staging_folder(RepoName("org/tiny"), COMMIT)
    shutil.copytree(TINY, staged, dirs_exist_ok=True)
    new = CacheRecord.from_files(staged, "org/tiny", COMMIT, "hub")
    (path / WEIGHTS).unlink()
    cache.pin("org/tiny")
    assert store.publish(staged, new).record.pinned
    assert [(model.pinned, model.damaged) for model in cache.list()] == [(True, ())]


PINNING = """
import sys
from pathlib import Path
from model_cache import ModelCache, ModelInUseError, ModelUnavailableError
cache, what, pins = ModelCache(Path(sys.argv[1])), sys.argv[2], 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    try:
        cache.pin(f"org/{number}") if what == "pin" else cache.remove(f"org/{number}")
        pins += 1
    except (ModelInUseError, ModelUnavailableError):
        pass
print(pins)
"""


@pytest.mark.parametrize("models", [15, pytest.param(400, marks=pytest.mark.load)])
def test_a_race_of_pin_and_remove_has_one_winner(cache, models):
    for number in range(models):
        add_small_model(cache.root, f"org/{number}")
    programs = [start_python(PINNING, str(cache.root), what, str(models)) for what in ("pin", "remove")]
    pinned, removed = map(int, run_together(programs))
    left = cache.list()
    print("pinned", pinned, "removed", removed, "left", len(left))
    assert all(model.pinned and not model.damaged for model in left)
    assert len(left) == models - removed
    assert len(left) <= pinned


# Hashes and locks.
def swap_while_hashing(monkeypatch, work):
    """Do something whenever a file is hashed for a record."""
    real = record.sha256

    def digest(path):
        work(path)
        return real(path)

    monkeypatch.setattr(record, "sha256", digest)


def test_a_model_can_be_opened_while_it_is_hashed(cache, monkeypatch):
    path = stored(cache)
    store = Store(cache.root)
    staged = store.staging_folder(RepoName("org/tiny"), COMMIT)
    shutil.copytree(TINY, staged, dirs_exist_ok=True)
    new = CacheRecord.from_files(staged, "org/tiny", COMMIT, "hub")
    opened = []

    def open_it(_):
        with locks.shared(path.with_name(f"{COMMIT}.lock"), 0):
            opened.append(True)

    swap_while_hashing(monkeypatch, open_it)
    assert store.publish(staged, new).path == path
    assert len(opened) == len(new.files)
    assert not staged.exists()


def test_a_model_is_not_removed_while_it_is_hashed(cache, monkeypatch):
    stored(cache)
    outcomes = []
    swap_while_hashing(monkeypatch, lambda _: outcomes.append(Store(cache.root).remove(found)))
    (found,) = Store(cache.root).all()
    assert cache.verify() == {found.name: ()}
    assert set(outcomes) == {"in use"}


def test_a_model_that_was_replaced_before_the_lock_was_taken_stays(cache, monkeypatch):
    """Another process puts a good one in its place between the look at the hashes and the replacement."""
    path = stored(cache)
    (path / WEIGHTS).write_bytes(bytes((path / WEIGHTS).stat().st_size))
    late, fast = cache.root / ".staging/late", cache.root / ".staging/fast"
    for staged in (late, fast):
        shutil.copytree(TINY, staged)
    new = CacheRecord.from_files(late, "org/tiny", COMMIT, "hub")
    new.write(fast)
    inode = (fast / WEIGHTS).stat().st_ino
    real = StoredModel.claim

    def claim_too_late(self, timeout=0):
        if fast.exists():
            shutil.rmtree(path)
            fast.rename(path)
        return real(self, timeout)

    monkeypatch.setattr(StoredModel, "claim", claim_too_late)
    assert Store(cache.root).publish(late, new).path == path
    assert (path / WEIGHTS).stat().st_ino == inode
    assert not late.exists()


def test_what_is_removed_is_neither_verified_nor_repaired(cache, caplog):
    stored(cache)
    store = Store(cache.root)
    (found,) = store.all()
    store.remove(found)
    assert _find_damaged(found) is None
    caplog.set_level(logging.INFO)
    assert cache.verify() == {}


def test_verifying_a_model_is_no_use_of_it(cache):
    path = stored(cache)
    lock = path.with_name(f"{COMMIT}.lock")
    os.utime(lock, (1, 1))
    cache.verify()
    assert cache.list()[0].last_used == 1


# Locks that are kept for long.
@pytest.mark.usefixtures("short")
def test_a_lock_for_changes_that_is_kept(hub, cache, caplog):
    path = stored(cache)
    cache.ensure("org/tiny", download=False)
    hub.add("org/tiny", TINY)
    with locks.exclusive(path.with_name("changes.lock"), 1):
        for use in (lambda: cache.pin("org/tiny"), lambda: cache.remove("org/tiny"), lambda: cache.update("org/tiny")):
            with pytest.raises(CacheLockedError, match=r"has been changing models in .*org--tiny for .*changes\.lock"):
                use()
        assert [model.in_use for model in cache.list()] == [True]
        assert "is taken to be in use: another process has been changing" in caplog.text
        assert cache.ensure("org/tiny", download=False) == path
    assert [model.in_use for model in cache.list()] == [False]


@pytest.mark.usefixtures("short")
def test_a_model_that_is_being_removed_for_long(cache):
    path = stored(cache)
    with (
        locks.exclusive(path.with_name(f"{COMMIT}.lock"), 1),
        pytest.raises(CacheLockedError, match=r"has been removing or replacing org/tiny@c{40} for"),
    ):
        cache.ensure("org/tiny", download=False)
