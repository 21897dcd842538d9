"""Caches that cannot be read, written or locked, are something else than folders, or are shared by several users."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from model_cache import CacheAccessError, ModelCache, ModelCacheError, ModelInUseError, locks, os_errors
from model_cache.record import NAME
from model_cache.store import Store
from tests.caches import COMMIT, TINY, add_small_model, as_user, stored
from tests.support import run_python

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def cache(tmp_path):
    return ModelCache(tmp_path / "models")


def put(path: Path, what: str) -> None:
    """Something that is no folder of a model."""
    if what == "file":
        path.write_text("x")
    elif what == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path, "link to nowhere": path.with_name("nowhere")}[what])


OTHERS = ("file", "FIFO", "loop", "link to nowhere")


# Paths that are something else.
@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("where", ["root", "above the root"])
def test_a_root_that_is_no_folder_is_said(tmp_path, where, what):
    place = tmp_path / "place"
    put(place, what)
    cache = ModelCache(place if where == "root" else place / "models", max_bytes=10)
    uses = {
        "list": cache.list,
        "find": lambda: cache.find("org/tiny"),
        "ensure": lambda: cache.ensure("org/tiny", download=False),
        "remove": lambda: cache.remove("org/tiny"),
        "pin": lambda: cache.pin("org/tiny"),
        "verify": cache.verify,
        "prune": cache.prune,
    }
    for name, use in uses.items():
        with pytest.raises(CacheAccessError, match=f"cannot be used: .*{place}.*; .*AKIDB_CACHE_DIR"):
            pytest.fail(f"{name}: {use()}")


@pytest.mark.parametrize("what", OTHERS)
def test_a_repository_that_is_no_folder_is_said(cache, caplog, what):
    add_small_model(cache.root, "org/good")
    put(cache.root / "org--bad", what)
    assert [model.repo_id for model in cache.list()] == ["org/good"]
    assert caplog.text.count(f"{cache.root / 'org--bad'} is passed over") == 1
    with pytest.raises(CacheAccessError, match="org--bad"):
        cache.ensure("org/bad", download=False)
    with pytest.raises(CacheAccessError, match="org--bad"):
        cache.remove("org/bad")


@pytest.mark.parametrize("what", OTHERS)
def test_a_commit_that_is_no_folder_is_said(cache, caplog, what):
    add_small_model(cache.root, "org/good")
    bad = cache.root / "org--good" / ("b" * 40)
    put(bad, what)
    assert [model.commit for model in cache.list()] == [COMMIT]
    assert caplog.text.count(f"{bad} is passed over") == 1


@pytest.mark.parametrize("what", ["FIFO", "loop", "folder"])
def test_a_record_that_is_no_file_is_said_and_not_waited_for(cache, caplog, what):
    add_small_model(cache.root, "org/good")
    record = add_small_model(cache.root, "org/bad") / NAME
    record.unlink()
    if what == "folder":
        record.mkdir()
    else:
        put(record, what)
    assert [model.repo_id for model in cache.list()] == ["org/good"]
    assert f"{record.parent} is passed over" in caplog.text


def test_a_file_of_a_model_that_is_a_fifo_is_damage(cache):
    weights = stored(cache) / "model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    assert [model.damaged for model in cache.list()] == [(weights.name,)]
    assert list(cache.verify().values()) == [(weights.name,)]


def test_locks_that_are_fifos_are_not_waited_for(cache):
    path = add_small_model(cache.root, "org/odd")
    path.with_name(f"{COMMIT}.lock").unlink()
    for name in (f"{COMMIT}.lock", "changes.lock"):
        os.mkfifo(path.with_name(name))
    assert [model.in_use for model in cache.list()] == [False]


# What the system refuses.
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "readable and writable"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "free some space"),
        (errno.ENOTDIR, "something else is in the place"),
        (errno.ENOLCK, "refuses locks"),
        (errno.EMFILE, "ulimit"),
        (errno.EIO, "fails"),
        (errno.ESTALE, "fails"),
        (errno.ENOENT, "try again"),
        (errno.ENAMETOOLONG, "on another disk"),
    ],
)
def test_every_error_of_the_system_says_what_to_do(cache, monkeypatch, number, remedy):
    def refuse(_):
        raise OSError(number, os.strerror(number), "/a/path")

    monkeypatch.setattr(Store, "all", refuse)
    with pytest.raises(CacheAccessError, match=f"{os.strerror(number)}: '/a/path'; .*{remedy}") as refusal:
        cache.list()
    assert isinstance(refusal.value.__cause__, OSError)
    assert isinstance(refusal.value, ModelCacheError)


def test_a_message_has_a_bound():
    assert len(str(os_errors.explain(OSError(errno.EIO, "Input/output error", "x" * 5000)))) < 600


def test_an_error_of_the_caller_is_not_translated(cache):
    stored(cache)
    mine = FileNotFoundError("mine")
    with pytest.raises(FileNotFoundError) as raised, cache.acquire("org/tiny", download=False):
        raise mine
    assert raised.value is mine


def refuse_locks(monkeypatch, number: int) -> None:
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_that_refuses_locks(hub, cache, monkeypatch, caplog, number):
    hub.add("org/other", TINY)
    path = stored(cache)
    cache.ensure("org/tiny", download=False)
    refuse_locks(monkeypatch, number)
    assert cache.ensure("org/tiny", download=False) == path
    assert "org/tiny@cccc" in caplog.text
    assert "is used without a lock" in caplog.text
    assert [model.in_use for model in cache.list()] == [True]
    assert "is taken to be in use" in caplog.text
    assert cache.prune(1).removals == ()
    for use in (lambda: cache.remove("org/tiny"), lambda: cache.pin("org/tiny"), lambda: cache.ensure("org/other")):
        with pytest.raises(CacheAccessError, match=r"\.lock'; the file system refuses locks: set AKIDB_CACHE_DIR"):
            use()
    assert path.is_dir()


def test_a_lock_that_cannot_be_made_names_its_file(cache, monkeypatch):
    path = stored(cache)
    real = os.open

    def refuse(name, *arguments, **keywords):
        if str(name).endswith(".lock"):
            raise OSError(errno.EMFILE, "Too many open files", str(name))
        return real(name, *arguments, **keywords)

    monkeypatch.setattr("model_cache.locks.os.open", refuse)
    with pytest.raises(CacheAccessError, match=rf"{path}\.lock'; too many files are open"):
        cache.ensure("org/tiny", download=False)


# Several users.
@as_root
def test_a_reader_keeps_the_owner_from_removing(public):
    cache = ModelCache(public / "models")
    path = stored(cache)
    with as_user(NOBODY, NOBODY):
        lease = cache.acquire("org/tiny", download=False)
        assert lease.__enter__() == path
        assert [model.in_use for model in cache.list()] == [True]
    with pytest.raises(ModelInUseError, match="open in a process"):
        cache.remove("org/tiny")
    lease.__exit__(None, None, None)
    with as_user(NOBODY, NOBODY):
        assert [model.in_use for model in cache.list()] == [False]
        with pytest.raises(CacheAccessError, match="Permission denied"):
            cache.remove("org/tiny")
    assert [model.repo_id for model in cache.remove("org/tiny")] == ["org/tiny"]


@as_root
def test_what_cannot_be_read_is_passed_over(public, caplog):
    cache = ModelCache(public / "models")
    good = stored(cache)
    for name in ("folder", "commit", "record", "subfolder"):
        add_small_model(cache.root, f"org/{name}")
    stored(cache, "org/pooling")
    closed = [
        cache.root / "org--folder",
        cache.root / "org--commit" / COMMIT,
        cache.root / "org--record" / COMMIT / NAME,
        cache.root / "org--pooling" / COMMIT / "1_Pooling",
    ]
    for path in closed:
        path.chmod(0)
    with as_user(NOBODY, NOBODY):
        assert [model.path for model in cache.list() if model.repo_id != "org/subfolder"] == [good]
        with pytest.raises(CacheAccessError, match="org--folder"):
            cache.ensure("org/folder", download=False)
    lines = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert len([line for line in lines if any(str(path) in line for path in closed)]) >= len(closed)


@as_root
def test_a_folder_that_cannot_be_read_does_not_make_a_model_complete_without_it(public, caplog):
    """A record is only rebuilt from all files."""
    cache = ModelCache(public / "models")
    path = stored(cache)
    (path / NAME).unlink()
    (path / "1_Pooling").chmod(0)
    with as_user(NOBODY, NOBODY):
        assert cache.list() == []
    assert f"{path} is passed over" in caplog.text


@pytest.fixture
def client(hub, tmp_path, monkeypatch):
    """The Hub's client, loaded while its files can be read: another user may not be able to."""
    monkeypatch.setenv("HF_TOKEN", "hf_given")  # not looked for in a file
    hub.add("org/first", TINY)
    ModelCache(tmp_path / "models").ensure("org/first")


@as_root
@pytest.mark.usefixtures("client")
def test_a_group_shares_a_cache(hub, public):
    """Members with umask 002, in a folder that hands its group on."""
    os.chown(public, 0, 2000)
    public.chmod(0o2775)
    hub.add("org/a", TINY)
    hub.add("org/b", {path.name: path.read_bytes() for path in TINY.glob("*") if path.is_file()})
    cache = ModelCache(public / "models", max_bytes=1_500_000)
    with as_user(1001, 2000):
        path = cache.ensure("org/a")
    assert path.stat().st_uid == 1001
    size = cache.list()[0].size
    with as_user(1002, 2000):
        assert cache.pin("org/a")[0].pinned
        assert not cache.pin("org/a", pinned=False)[0].pinned
        ModelCache(cache.root, max_bytes=size + 10).ensure("org/b")
        assert [model.repo_id for model in cache.list()] == ["org/b"]
    with as_user(1001, 2000):
        assert [model.repo_id for model in cache.remove("org/b")] == ["org/b"]
    assert not list((cache.root / ".trash").iterdir())


@as_root
@pytest.mark.usefixtures("client")
def test_a_model_that_cannot_be_deleted_does_not_stop_a_download(hub, public, caplog):
    hub.add("org/new", TINY)
    cache = ModelCache(public / "models", max_bytes=2_000)
    foreign = stored(cache, "org/foreign")
    for path in (public, cache.root, cache.root / ".staging"):
        os.chown(path, NOBODY, NOBODY)
    with as_user(NOBODY, NOBODY):
        ModelCache(cache.root, max_bytes=cache.list()[0].size + 10).ensure("org/new")
        assert {model.repo_id for model in cache.list()} == {"org/foreign", "org/new"}
    assert "org/foreign@" in caplog.text
    assert "cannot be removed and stays" in caplog.text
    assert foreign.is_dir()


def test_locks_let_the_umask_decide(tmp_path):
    mask = os.umask(0o002)
    try:
        with locks.exclusive(tmp_path / "lock", 1):
            assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(mask)


def test_the_commands_say_what_was_passed_over(cache):
    add_small_model(cache.root, "org/good")
    (cache.root / "org--bad").write_text("x")
    code = "from akidb_mlx.cli import main; import sys; sys.argv = ['akidb-mlx', 'list']; main()"
    done = run_python(code, AKIDB_CACHE_DIR=str(cache.root.parent))
    assert "org/good" in done.stdout, done.stderr
    assert [line for line in done.stderr.splitlines() if "org--bad is passed over" in line]
