"""Models are removed for a new one in time, and never for one that does not come."""

import json
import os
import shutil
from contextlib import nullcontext
from urllib.request import urlopen

import pytest

from model_cache import (
    CorruptModelError,
    DiskSpaceError,
    DownloadError,
    ModelCache,
    ModelCacheError,
    ModelUnavailableError,
    retries,
)
from model_cache.space import _RESERVED_BYTES
from tests.hub import Fault
from tests.support import GOLDENS

TINY = GOLDENS / "tiny-bert"
WEIGHTS = "model.safetensors"
FILES = {path.relative_to(TINY).as_posix(): path.read_bytes() for path in TINY.rglob("*") if path.is_file()}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(retries, "_LONGEST_PAUSE_S", 0.05)


@pytest.fixture
def cache(hub, tmp_path):
    """A cache with room for two models, "org/old" and "org/older", and a third on the Hub, "org/new"."""
    one = ModelCache(tmp_path / "models", max_bytes=2 * SIZE)
    for number, name in enumerate(("older", "old", "new")):
        hub.add(f"org/{name}", FILES)
        if name != "new":
            path = one.ensure(f"org/{name}")
            os.utime(path.with_name(f"{path.name}.lock"), (number + 1, number + 1))
    hub.reset()
    return one


def without_limit(cache):
    return ModelCache(cache.root, max_bytes=0)


def kept(cache):
    return {model.repo_id.removeprefix("org/") for model in cache.list()}


def declare(hub, **changes):
    """Have the Hub declare something else of the weights of "org/new"."""
    with urlopen(f"{hub.url}/api/models/org/new?blobs=true") as answer:
        description = json.load(answer)
    for sibling in description["siblings"]:
        if sibling["rfilename"] == WEIGHTS:
            sibling.update(changes)
    hub.fail(Fault("/api/models/org/new*", body=json.dumps(description).encode(), times=None))


@pytest.fixture
def disk(cache, monkeypatch):
    """Set how many bytes the disk has beside those that a download leaves free."""

    def limit_to(capacity):
        def usage(_):
            stats = [path.stat() for path in cache.root.rglob("*") if path.is_file()]
            used = sum({stat.st_ino: stat.st_size for stat in stats}.values())
            return shutil._ntuple_diskusage(1 << 40, used, _RESERVED_BYTES + capacity - used)

        monkeypatch.setattr("model_cache.space.shutil.disk_usage", usage)

    return limit_to


@pytest.mark.parametrize("limited", [True, False], ids=["a limit", "no limit"])
@pytest.mark.parametrize("size", [10**15, 2**63 - 1, 1 << 45])
def test_what_can_never_fit_is_refused_before_anything_is_fetched(hub, cache, limited, size):
    declare(hub, size=size)
    with pytest.raises(DiskSpaceError, match="is limited to" if limited else "needs .* bytes") as refusal:
        (cache if limited else without_limit(cache)).ensure("org/new")
    assert refusal.value.needed >= size > refusal.value.free
    assert kept(cache) == {"old", "older"}
    assert hub.count("*/resolve/*") == 0


def test_a_model_larger_than_the_whole_limit(hub, cache):
    small = ModelCache(cache.root, max_bytes=SIZE - 1)
    with pytest.raises(DiskSpaceError, match=rf"has {SIZE} bytes and the cache is limited to {SIZE - 1}: set AKIDB_C"):
        small.ensure("org/new")
    assert kept(cache) == {"old", "older"}
    assert hub.count("*/resolve/*") == 0
    assert ModelCache(cache.root, max_bytes=SIZE).ensure("org/new").is_dir()
    assert kept(cache) == {"new"}


NEVER_COMES = {
    "no such model": (Fault("/api/models/org/new*", status=404, times=None), ModelUnavailableError),
    "no description": (Fault("/api/models/org/new*", body=b"[]", times=None), DownloadError),
    "no file": (Fault("*/resolve/*/config.json", status=404, times=None), ModelUnavailableError),
    "no weights": (Fault("/cdn/*", status=404, times=None), ModelUnavailableError),
    "weights that never begin": (
        Fault("/cdn/*", raw=(b"HTTP/1.1 200 OK\r\n\r\n", b""), pause=1, times=None),
        DownloadError,
    ),
    "weights that never end": (Fault("/cdn/*", slow=20_000, times=None), DownloadError),
    "wrong weights": (Fault("/cdn/*", flip=True, times=None), CorruptModelError),
    "a Hub that is down": (Fault("*", status=503, times=None), DownloadError),
}


@pytest.mark.parametrize(("fault", "error"), NEVER_COMES.values(), ids=NEVER_COMES)
def test_a_model_that_does_not_come_costs_no_other(hub, cache, fault, error):
    hub.fail(fault)
    with pytest.raises(error):
        ModelCache(cache.root, max_bytes=2 * SIZE, download_timeout_s=1.5).ensure("org/new")
    assert kept(cache) == {"old", "older"}


def test_a_model_that_comes_costs_the_one_that_was_used_least_recently(cache):
    cache.ensure("org/new")
    assert kept(cache) == {"new", "old"}


# A disk that is too full.
def test_on_a_full_disk_no_more_is_removed_than_is_needed(cache, disk):
    disk(int(2.5 * SIZE))
    without_limit(cache).ensure("org/new")
    assert kept(cache) == {"new", "old"}


@pytest.mark.parametrize("fault", ["no file", "no weights", "weights that never begin", "a Hub that is down"])
def test_on_a_full_disk_nothing_is_removed_before_the_first_bytes(hub, cache, disk, fault):
    disk(int(2.5 * SIZE))
    hub.fail(NEVER_COMES[fault][0])
    with pytest.raises(ModelCacheError):
        ModelCache(cache.root, max_bytes=0, download_timeout_s=1.5).ensure("org/new")
    assert kept(cache) == {"old", "older"}


def test_where_removing_cannot_suffice_nothing_is_removed(hub, cache, disk):
    disk(int(2.5 * SIZE))
    cache.pin("org/older")
    with cache.acquire("org/old"), pytest.raises(DiskSpaceError, match=rf"needs {SIZE} bytes .* free: free some"):
        without_limit(cache).ensure("org/new")
    assert kept(cache) == {"old", "older"}
    assert hub.count("*/resolve/*") == 0


def test_bytes_that_another_model_shares_are_not_counted_as_free(hub, cache, disk):
    """Two commits with the same weights; removing one frees little."""
    cache.pin("org/old")
    hub.add("org/older", {**FILES, "modules.json": FILES["modules.json"] + b"\n"})
    without_limit(cache).update("org/older")
    assert len(cache.find("org/older")) == 2
    disk(int(2.5 * SIZE))
    with pytest.raises(DiskSpaceError, match="eviction could add"):
        without_limit(cache).ensure("org/new")
    assert len(cache.find("org/older")) == 2


def test_a_disk_that_fills_up_meanwhile(cache, disk):
    """Another program takes the space after the first look."""
    disk(4 * SIZE)
    for name in ("older", "old"):
        cache.pin(f"org/{name}")

    def fill(*_):
        disk(2 * SIZE)
        return nullcontext()

    with pytest.raises(DiskSpaceError, match="needs"):
        ModelCache(cache.root, max_bytes=0, progress=fill).ensure("org/new")
    assert kept(cache) == {"old", "older"}


def test_a_repair_costs_no_other_model(cache):
    path = cache.find("org/old")[0].path
    os.truncate(path / WEIGHTS, 100)
    cache.repair("org/old")
    assert set(cache.verify().values()) == {()}
    assert kept(cache) == {"old", "older"}
