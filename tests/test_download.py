"""Models from the Hub: every way a download may fail, against a server that plays the Hub (tests/hub.py)."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model_cache import (
    CorruptModelError,
    DiskSpaceError,
    DownloadError,
    InvalidModelNameError,
    ModelCache,
    ModelInUseError,
    ModelUnavailableError,
    files,
    retries,
)
from model_cache.files import sha256
from tests.hub import Fault, Hub
from tests.support import GOLDENS, run_python

TINY = GOLDENS / "tiny-bert"
WEIGHTS = "model.safetensors"
WEIGHTS_PATH = f"/cdn/*/{sha256(TINY / WEIGHTS)}/*"
CHILD = "from model_cache import ModelCache; print(ModelCache().ensure('{name}'))"


@pytest.fixture
def cache(tmp_path):
    return ModelCache(tmp_path / "cache" / "models", download_timeout_s=30)


@pytest.fixture
def repo(hub, request):
    """A repository of its own for each test."""
    name = f"org/{abs(hash(request.node.nodeid))}"
    hub.add(name, TINY)
    return name


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(retries, "_LONGEST_PAUSE_S", 0.05)


def same_files(path: Path) -> bool:
    names = [file.relative_to(TINY).as_posix() for file in TINY.rglob("*") if file.is_file()]
    return all((path / name).read_bytes() == (TINY / name).read_bytes() for name in names)


def published(cache: ModelCache) -> list[Path]:
    return [path for path in cache.root.glob("*--*/*") if path.is_dir()]


def test_a_model_is_fetched_once(hub, cache, repo):
    path = cache.ensure(repo)
    assert same_files(path)
    (model,) = cache.list()
    assert (model.repo_id, model.refs, model.source, model.damaged) == (repo, ("main",), "hub", ())
    assert model.size == sum(file.stat().st_size for file in TINY.rglob("*") if file.is_file())
    before = len(hub.requests)
    assert cache.ensure(repo) == cache.ensure(f"{repo}@main") == cache.ensure(f"{repo}@{model.commit}") == path
    assert len(hub.requests) == before
    assert sorted(item.name for item in cache.root.iterdir()) == [".staging", repo.replace("/", "--")]
    assert not list((cache.root / ".staging").iterdir())


def test_what_is_here_is_found_without_reading_its_files(cache, repo, monkeypatch):
    path = cache.ensure(repo)

    def refuse(*_):
        raise AssertionError("a file was read")

    monkeypatch.setattr(files, "_hex_digest", refuse)
    monkeypatch.setattr(files, "_has_full_length", refuse)
    assert cache.ensure(repo) == path


def test_a_fetched_model_embeds_with_the_server_gone(tmp_path):
    """The whole way: pull on the command line, the Hub ends, embed."""
    with Hub() as own:
        own.add("org/tiny", TINY)
        environment = {**own.environment(tmp_path), "AKIDB_CACHE_DIR": str(tmp_path / "cache")}
        pulled = command(environment, "pull", "org/tiny", "org/none", "--json")
        assert pulled.returncode == 1
        good, bad = json.loads(pulled.stdout)
        assert same_files(Path(good["path"]))
        assert "the Hub has no model org/none" in bad["error"]
    done = command(environment, "embed", "-m", "org/tiny", "--json", "hello")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["embeddings"][0]) == 64
    listed = json.loads(command(environment, "list", "--json").stdout)
    assert [(one["repo_id"], one["in_use"]) for one in listed] == [("org/tiny", False)]


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "akidb_mlx", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


# Faults 1 to 3.
@pytest.mark.parametrize(
    "fault",
    [
        {"cut": 0.5},
        {"cut": 0.5, "times": 3},
        {"stall": 3, "after": 0.4},
        {"reset": True, "after": 0.4},
        {"reset": True},
        {"flip": True},
        {"status": 500, "times": 2},
        {"status": 503},
        {"status": 429, "headers": {"Retry-After": "0"}},
    ],
    ids=str,
)
def test_a_failure_that_passes(hub, cache, repo, fault):
    hub.fail(Fault(WEIGHTS_PATH if "flip" in fault else "*", **fault))
    assert same_files(cache.ensure(repo))


def test_a_download_goes_on_where_it_was_cut(hub, cache, repo):
    hub.fail(Fault(WEIGHTS_PATH, cut=0.6))
    hub.fail(Fault(WEIGHTS_PATH, reset=True, times=None))
    with pytest.raises(DownloadError):
        cache.ensure(repo)
    hub.reset()
    assert same_files(cache.ensure(repo))
    assert hub.count("*/config.json", "GET") == 0
    (request,) = [request for request in hub.requests if "/cdn/" in request.path]
    assert request.status == 206
    first = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert first == int(0.6 * (TINY / WEIGHTS).stat().st_size)


def test_a_body_that_ends_early_every_time(hub, cache, repo):
    """Without a length in the answer, so that the client takes its end for the file's."""
    hub.fail(Fault(WEIGHTS_PATH, cut=0.5, unsized=True, times=None))
    with pytest.raises(DownloadError, match=r"the connection ended after \d+ of \d+ bytes of model\.safetensors"):
        cache.ensure(repo)
    assert hub.count(WEIGHTS_PATH, "GET") < 200  # each brings half of the rest; then six bring nothing


def test_a_hub_that_falls_silent(hub, cache, repo):
    hub.fail(Fault(WEIGHTS_PATH, stall=60, after=0.4))  # longer than the cache's own deadline
    assert same_files(cache.ensure(repo))


def test_a_body_that_is_longer_than_declared_is_not_read_to_its_end(hub, cache, repo):
    other = {**files_of(TINY), WEIGHTS: bytes(64 << 20)}
    hub.add("org/long", other)
    long = f"{hub.cdn_url}/cdn/org/long/{hashlib.sha256(other[WEIGHTS]).hexdigest()}/{WEIGHTS}"
    hub.fail(Fault(f"/{repo}/resolve/*/{WEIGHTS}", method="GET", redirect=long, times=None))
    told = []
    with pytest.raises(CorruptModelError, match="twice"):
        ModelCache(cache.root, progress=lambda *_: nullcontext(told.append)).ensure(repo)
    assert sum(count for count in told if count > 0) < 8 << 20


def test_a_range_that_is_ignored(hub, cache, repo):
    hub.fail(Fault(WEIGHTS_PATH, cut=0.5))
    hub.fail(Fault(WEIGHTS_PATH, ignore_range=True, times=None))
    assert same_files(cache.ensure(repo))
    assert hub.count(WEIGHTS_PATH, "GET") == 2


def test_wrong_bytes_twice_are_refused_by_name(hub, cache, repo):
    hub.fail(Fault(WEIGHTS_PATH, flip=True, times=2))
    with pytest.raises(CorruptModelError, match=r"model\.safetensors .*arrived twice with a different SHA-256"):
        cache.ensure(repo)
    assert published(cache) == []
    assert same_files(cache.ensure(repo))


@pytest.mark.parametrize("fault", [{"status": 500}, {"cut": 0.3}, {"reset": True}], ids=str)
def test_a_failure_that_does_not_pass(hub, cache, repo, fault):
    hub.fail(Fault("*", times=None, **fault))
    with pytest.raises(DownloadError, match=r"could not be downloaded: .*try again"):
        cache.ensure(repo)
    assert len(hub.requests) <= 200
    assert published(cache) == []


def test_a_download_that_would_never_end(hub, tmp_path, repo):
    """One deadline for all, however the bytes trickle."""
    hub.add("org/first", TINY)
    ModelCache(tmp_path / "others").ensure("org/first")  # so that importing the client takes none of it
    cache = ModelCache(tmp_path / "models", download_timeout_s=3)
    hub.fail(Fault(WEIGHTS_PATH, slow=20_000, times=None))
    with pytest.raises(DownloadError, match="in time"):
        cache.ensure(repo)
    (part,) = cache.root.glob(f".staging/*/{WEIGHTS}.part")
    assert part.stat().st_size < (TINY / WEIGHTS).stat().st_size


def test_a_cached_copy_serves_while_the_hub_is_down(hub, cache, repo):
    path = cache.ensure(repo)
    hub.fail(Fault("*", method="*", status=500, times=None))
    assert cache.ensure(repo) == path
    with pytest.raises(DownloadError):
        cache.update(repo)
    assert cache.ensure(repo) == path


# Fault 4, and what is gated.
def test_a_token_does_not_leave_its_host(hub, cache, repo, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    cache.ensure(repo)
    with_token = {request.server for request in hub.requests if "authorization" in request.headers}
    assert with_token == {"hub"}
    assert any(request.server == "cdn" for request in hub.requests)


def test_a_gated_model_explains_itself(hub, cache, repo, monkeypatch):
    hub.add(repo, TINY, gated_token="hf_accepted")
    with pytest.raises(ModelUnavailableError, match=r"accept its terms at .* HF_TOKEN"):
        cache.ensure(repo)
    monkeypatch.setenv("HF_TOKEN", "hf_accepted")
    assert same_files(cache.ensure(repo))


def test_what_the_hub_does_not_have(cache, repo):
    with pytest.raises(ModelUnavailableError, match="the Hub has no model org/none"):
        cache.ensure("org/none")
    with pytest.raises(ModelUnavailableError, match="has no revision v9"):
        cache.ensure(f"{repo}@v9")
    assert published(cache) == []


# Fault 5.
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.load)])
def test_a_killed_download_leaves_nothing_that_misleads(tmp_path, kills):
    random = np.random.default_rng(kills)
    with Hub() as own:
        own.add("org/tiny", TINY)
        environment = {**own.environment(tmp_path), "AKIDB_CACHE_DIR": str(tmp_path / "cache")}
        for _ in range(kills):
            own.fail(Fault("*", slow=400_000, times=None))
            child = start_child("org/tiny", environment)
            # Once the model is whole, a child asks for nothing and ends.
            wait_until(lambda child=child: own.requests or child.poll() is not None)
            time.sleep(random.uniform(0, 1.5))
            child.send_signal(signal.SIGKILL)
            child.communicate()
            own.reset()
        done = start_child("org/tiny", environment)
        path = Path(done.communicate(timeout=60)[0].strip())
        assert same_files(path)
        assert not list((tmp_path / "cache/models/.staging").iterdir())
        assert len(published(ModelCache(tmp_path / "cache/models"))) == 1


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60  # only so that a test that fails does not hang
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def start_child(name: str, environment: dict[str, str], code: str = CHILD) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code.format(name=name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=GOLDENS.parent.parent,
    )


# Fault 6.
def test_a_full_disk_is_noticed_before_the_download(hub, cache, repo, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("model_cache.space.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskSpaceError, match=r"needs \d+ bytes .* has 1000 free") as refusal:
        cache.ensure(repo)
    assert refusal.value.needed > 1000 == refusal.value.free
    assert hub.count(WEIGHTS_PATH) == 0


def test_a_mac_is_told_what_its_free_space_leaves_out(cache, repo, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("model_cache.space.shutil.disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr("model_cache.space.sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(DiskSpaceError, match="has 1000 free, not counting what macOS could purge") as refusal:
        cache.ensure(repo)
    assert str(refusal.value).count("\n") == 0


def test_a_disk_that_is_really_full(tmp_path, repo):
    """On a file system of 2 MB."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting is refused here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(DiskSpaceError):
            ModelCache(small / "models", max_bytes=0).ensure(repo)
    finally:
        subprocess.run(["umount", small], check=True)


# Fault 7.
@pytest.mark.parametrize("processes", [4, pytest.param(16, marks=pytest.mark.load)])
@pytest.mark.parametrize("locked", [True, False], ids=["locks", "locks that do nothing"])
def test_many_processes_start_cold(tmp_path, locked, processes):
    code = CHILD if locked else "import fcntl; fcntl.flock = lambda *_: None; " + CHILD
    with Hub() as own:
        own.add("org/tiny", TINY)
        environment = {**own.environment(tmp_path), "AKIDB_CACHE_DIR": str(tmp_path / "cache")}
        children = [start_child("org/tiny", environment, code) for _ in range(processes)]
        paths = {child.communicate(timeout=120)[0].strip() for child in children}
        assert [child.returncode for child in children] == [0] * processes
        assert len(paths) == 1
        assert same_files(Path(paths.pop()))
        if locked:
            assert own.count(WEIGHTS_PATH, "GET") == 1


@pytest.mark.parametrize(("processes", "rounds"), [(5, 2), pytest.param(16, 20, marks=pytest.mark.load)])
def test_rounds_of_races_with_random_kills(tmp_path, processes, rounds):
    """Two processes are killed in each round: no wrong result, one download a round."""
    random = np.random.default_rng(3)
    with Hub() as own:
        for number in range(rounds):
            name = f"org/tiny-{number}"
            own.add(name, {**files_of(TINY), "README.md": str(number).encode()})
            environment = {**own.environment(tmp_path), "AKIDB_CACHE_DIR": str(tmp_path / "cache")}
            before = own.count(WEIGHTS_PATH, "GET")
            children = [start_child(name, environment) for _ in range(processes)]
            victims = [children[index] for index in random.choice(processes, 2, replace=False)]
            time.sleep(random.uniform(0, 2))
            for victim in victims:
                victim.kill()
            answers = [child.communicate(timeout=120)[0].strip() for child in children]
            survivors = [answer for child, answer in zip(children, answers, strict=True) if child not in victims]
            assert len(set(survivors)) == 1
            assert same_files(Path(survivors[0]))
            # One whole download; a killed one may have asked before.
            assert own.count(WEIGHTS_PATH, "GET") - before <= 1 + len(victims)


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# Fault 8.
def test_what_is_open_in_another_process_stays(cache, repo):
    cache.ensure(repo)
    code = (
        "import sys; from model_cache import ModelCache\n"
        f"with ModelCache(__import__('pathlib').Path({str(cache.root)!r})).acquire({repo!r}, download=False):\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=GOLDENS.parent.parent,
    )
    assert child.stdout.readline() == "open\n"
    assert cache.list()[0].in_use
    assert cache.prune(1).removals == ()
    with pytest.raises(ModelInUseError, match="open in a process"):
        cache.remove(repo)
    child.communicate()
    assert [removal.name.split("@")[0] for removal in cache.prune(1).removals] == [repo]
    assert cache.list() == []


# Fault 9.
def test_a_lost_record_is_made_anew_from_the_files(hub, cache, repo, caplog):
    path = cache.ensure(repo)
    for content in ("{", '{"version": 2}', None):
        record = path / ".akidb-model.json"
        record.unlink() if content is None else record.write_text(content)
        before = len(hub.requests)
        assert cache.ensure(repo) == path
        assert len(hub.requests) == before
        assert "rebuilt from the files" in caplog.text
        assert cache.list()[0].source == "files"


@pytest.mark.parametrize("damage", ["missing", "cut", "missing and the record"])
def test_a_damaged_file_is_fetched_again_once(hub, cache, repo, damage):
    path = cache.ensure(repo)
    weights = path / WEIGHTS
    if damage == "cut":
        os.truncate(weights, 100)
    else:
        weights.unlink()
    if damage.endswith("record"):
        (path / ".akidb-model.json").unlink()
    before = hub.count(WEIGHTS_PATH, "GET")
    with pytest.raises((CorruptModelError, ModelUnavailableError), match="switched off"):
        cache.ensure(repo, download=False)
    assert same_files(cache.ensure(repo))
    assert hub.count(WEIGHTS_PATH, "GET") == before + 1


def test_a_changed_byte_is_found_by_verify_and_mended_by_repair(cache, repo, monkeypatch):
    path = cache.ensure(repo)
    content = bytearray((path / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (path / WEIGHTS).write_bytes(content)
    (found,) = cache.verify().values()
    assert found == (WEIGHTS,)
    monkeypatch.setattr("model_cache.store.LOCK_TIMEOUT_S", 0.1)
    with cache.acquire(repo), pytest.raises(ModelInUseError, match="damaged and open"):
        cache.repair(repo)
    cache.repair(repo)
    assert same_files(path)
    assert set(cache.verify(repo).values()) == {()}


def test_a_cache_that_cannot_be_written(cache, repo):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    path = cache.ensure(repo)
    for folder in (path, path.parent, cache.root):
        folder.chmod(0o555)
    try:
        assert cache.ensure(repo) == path
    finally:
        for folder in (path, path.parent, cache.root):
            folder.chmod(0o755)


# Fault 10.
@pytest.mark.parametrize(
    "name", ["../../evil.json", "/etc/evil", "a/../../evil", "a\\b", "a\0b", "", "x" * 300, "a//b"]
)
def test_hostile_file_names_are_refused(hub, cache, name):
    hub.add("org/evil", {**files_of(TINY), name or " /..": b"x"})
    before = hub.count("*/resolve/*")
    with pytest.raises((InvalidModelNameError, ModelUnavailableError)):
        cache.ensure("org/evil")
    assert hub.count("*/resolve/*") == before
    assert published(cache) == []


@pytest.mark.parametrize("shard", ["../../../etc/passwd", "/etc/passwd", "a/b.safetensors", "weights.bin", 5])
def test_hostile_entries_of_the_index_are_refused(hub, cache, shard):
    tree = {name: content for name, content in files_of(TINY).items() if name != WEIGHTS}
    tree["model-00001-of-00001.safetensors"] = (TINY / WEIGHTS).read_bytes()
    tree["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.add("org/evil-index", tree)
    with pytest.raises(InvalidModelNameError, match=r"which is not a weight file|not the name of a file"):
        cache.ensure("org/evil-index")
    assert published(cache) == []


def test_a_hostile_etag_touches_nothing_outside(hub, cache, repo, tmp_path):
    hub.fail(
        Fault(
            "*/resolve/*",
            method="*",
            times=None,
            headers={"ETag": '"../../../../evil"', "X-Linked-Etag": '"../../../../evil"'},
        )
    )
    with suppress(DownloadError, InvalidModelNameError, CorruptModelError):
        cache.ensure(repo)
    assert not [path for path in tmp_path.rglob("*evil*") if ".staging" not in path.parts]


# Fault 12.
def test_code_and_pickles_are_not_even_asked_for(hub, cache):
    sentinel = b"raise SystemExit('executed')"
    more = ["modeling.py", "pytorch_model.bin", "model.gguf", "onnx/model.onnx", "tf_model.h5", "nested/config.py"]
    hub.add("org/code", {**files_of(TINY), **dict.fromkeys(more, sentinel)})
    path = cache.ensure("org/code")
    asked = {
        request.path.rsplit("/resolve/", 1)[-1] for request in hub.requests if "/org/code/resolve/" in request.path
    }
    assert not [name for name in more if any(name in one for one in asked)]
    assert not [name for name in more if (path / name).exists()]


def test_a_repository_without_usable_weights(hub, cache):
    hub.add("org/pickle", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(ModelUnavailableError, match=r"holds config\.json, pytorch_model\.bin"):
        cache.ensure("org/pickle")


# Revisions.
def test_revisions_side_by_side(hub, cache, repo):
    old = cache.ensure(repo)
    hub.tag(repo, "v1", old.name)
    changed = {**files_of(TINY), "modules.json": (TINY / "modules.json").read_bytes() + b"\n"}
    new = hub.add(repo, changed)
    assert cache.ensure(repo) == old
    assert cache.update(repo, dry_run=True) == (old.name, new)
    before = hub.count(WEIGHTS_PATH, "GET")
    assert cache.update(repo) == (old.name, new)
    assert hub.count(WEIGHTS_PATH, "GET") == before  # the weights are the same, and linked
    assert cache.ensure(repo).name == cache.ensure(f"{repo}@main").name == new
    assert cache.ensure(f"{repo}@{old.name}") == old
    assert cache.ensure(repo, "v1") == old
    assert cache.update(repo) == (new, new)
    assert {model.commit: model.refs for model in cache.list()} == {old.name: ("v1",), new: ("main",)}


# Eviction.
def test_a_download_makes_room_by_eviction(hub, tmp_path):
    size = sum(file.stat().st_size for file in TINY.rglob("*") if file.is_file())
    cache = ModelCache(tmp_path / "models", max_bytes=int(2.5 * size))
    for name in ("org/a", "org/b", "org/c"):
        hub.add(name, {**files_of(TINY), "README.md": name.encode()})
    cache.ensure("org/a")
    cache.ensure("org/b")
    os.utime(cache.find("org/b")[0].path.with_name(f"{cache.find('org/b')[0].commit}.lock"), (1, 1))
    cache.ensure("org/c")
    assert [model.repo_id for model in cache.list()] == ["org/a", "org/c"]
    cache.pin("org/a")
    with cache.acquire("org/c"):
        cache.ensure("org/b")
        assert [model.repo_id for model in cache.list()] == ["org/a", "org/b", "org/c"]


# The Hub's own cache.
def test_a_copy_in_the_hubs_cache_is_linked(hub, cache, repo):
    from huggingface_hub import snapshot_download

    theirs = Path(snapshot_download(repo))
    hub.fail(Fault("*", method="*", status=500, times=None))
    path = cache.ensure(repo)
    assert same_files(path)
    assert (path / WEIGHTS).stat().st_ino == (theirs / WEIGHTS).resolve().stat().st_ino
    assert cache.list()[0].source == "hub-cache"


def test_a_damaged_copy_in_the_hubs_cache_is_not_used(cache, repo):
    from huggingface_hub import snapshot_download

    weights = (Path(snapshot_download(repo)) / WEIGHTS).resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert same_files(cache.ensure(repo))
    assert cache.list()[0].source == "hub"


# Offline.
@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "download=False"])
def test_offline_means_no_request(tmp_path, hub, cache, repo, how):
    path = cache.ensure(repo)
    code = f"""
import socket, sys
def refuse(*_): raise SystemExit("a socket was opened")
socket.socket.connect = refuse
from pathlib import Path
from model_cache import ModelCache, ModelUnavailableError
cache = ModelCache(Path({str(cache.root)!r}))
allowed = {how != "download=False"}
print(cache.ensure({repo!r}, download=allowed))
try:
    cache.ensure("org/absent", download=allowed)
except ModelUnavailableError as error:
    print(error)
"""
    environment = hub.environment(tmp_path) | ({"HF_HUB_OFFLINE": "yes"} if how == "HF_HUB_OFFLINE" else {})
    done = run_python(code, **environment)
    first, second = done.stdout.splitlines()
    assert first == str(path)
    assert "is not on this machine" in second


def test_progress_is_told_of_every_byte(hub, tmp_path, repo):
    told = []

    @contextmanager
    def bar(label, total):
        told.append((label, total))
        yield told.append

    cache = ModelCache(tmp_path / "models", progress=bar)
    hub.fail(Fault(WEIGHTS_PATH, cut=0.5))
    cache.ensure(repo)
    (label, total), *counts = told
    assert label == repo
    assert sum(counts) == total
