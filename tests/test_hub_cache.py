"""The Hub client's own cache: copies are checked against their hashes, linked where possible, never changed."""

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from model_cache import ModelCache, ModelUnavailableError, files, verified
from tests.caches import TINY
from tests.support import run_python

WEIGHTS = "model.safetensors"


@pytest.fixture
def cache(tmp_path):
    return ModelCache(tmp_path / "cache/models")


@pytest.fixture
def theirs(hub, request):
    """A copy in the Hub's cache of a repository of its own for each test."""
    return copy_of(hub, f"org/{abs(hash(request.node.nodeid))}")


def copy_of(hub, repo: str, tree=TINY) -> Path:
    from huggingface_hub import snapshot_download

    hub.add(repo, tree)
    folder = Path(snapshot_download(repo))
    hub.reset()
    return folder


def name_of(theirs: Path) -> str:
    return theirs.parent.parent.name.removeprefix("models--").replace("--", "/")


def refuse_links(monkeypatch) -> None:
    """Refuse hard links, as a cache on another file system does."""

    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("model_cache.files.os.link", refuse)


def count_hashes(monkeypatch) -> list[str]:
    """The names of the files that are hashed from now on."""
    hashed = []
    real = files._hex_digest
    monkeypatch.setattr(files, "_hex_digest", lambda path, digest: hashed.append(path.name) or real(path, digest))
    return hashed


def is_refused(cache: ModelCache, theirs: Path, caplog, why: str) -> None:
    with pytest.raises(ModelUnavailableError):
        cache.ensure(name_of(theirs), download=False)
    assert "in the Hub's cache is not used" in caplog.text
    assert why in caplog.text
    assert cache.list() == []


def test_a_copy_that_cannot_be_linked_is_used_where_it_is(hub, theirs, cache, monkeypatch, caplog):
    refuse_links(monkeypatch)
    caplog.set_level(logging.INFO)
    assert cache.ensure(name_of(theirs)) == theirs
    assert "is used from the Hub's cache" in caplog.text
    assert cache.list() == []
    assert hub.requests == []


def test_a_copy_with_a_hostile_index_is_not_used(hub, cache, caplog):
    tree = {path.name: path.read_bytes() for path in TINY.glob("*.json")}
    tree["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../x.safetensors"}}).encode()
    is_refused(cache, copy_of(hub, "org/theirs", tree), caplog, "../x.safetensors")


def test_a_copy_that_was_never_complete_is_not_used(hub, cache):
    from huggingface_hub import constants

    hub.add("org/never", TINY)
    Path(constants.HF_HUB_CACHE, "models--org--never/snapshots").mkdir(parents=True)
    assert cache.ensure("org/never").name == cache.list()[0].commit


# Files without a hash.
@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "1_Pooling/config.json"])
def test_a_file_that_is_no_link_has_no_hash_and_is_not_used(theirs, cache, caplog, name):
    """As the client makes it where there are no symbolic links; here its bytes are those of another model too."""
    content = bytearray((theirs / name).read_bytes())
    content[-2] ^= 1
    (theirs / name).unlink()
    (theirs / name).write_bytes(content)
    is_refused(cache, theirs, caplog, f"{name} is no link to a blob, so its hash is not known")
    assert str(theirs) in caplog.text
    assert cache.ensure(str(theirs)) == theirs


def test_a_link_to_elsewhere_has_no_hash_and_is_not_used(theirs, cache, caplog, tmp_path):
    elsewhere = tmp_path / files.sha256(theirs / WEIGHTS)
    shutil.copy(theirs / WEIGHTS, elsewhere)
    (theirs / WEIGHTS).unlink()
    (theirs / WEIGHTS).symlink_to(elsewhere)
    is_refused(cache, theirs, caplog, f"{WEIGHTS} is no link to a blob")


def test_a_link_whose_blob_is_gone_makes_a_copy_incomplete(hub, cache, caplog):
    """Files that were fetched one by one, so that the client does not know how many there are."""
    from huggingface_hub import hf_hub_download

    hub.add("org/single", TINY)
    for path in sorted(path for path in TINY.rglob("*") if path.is_file()):
        found = Path(hf_hub_download("org/single", path.relative_to(TINY).as_posix()))
    theirs = next(folder for folder in found.parents if folder.parent.name == "snapshots")
    (theirs / "modules.json").resolve().unlink()
    is_refused(cache, theirs, caplog, "modules.json")


def test_a_blob_that_repositories_share_is_known_by_its_first_link(theirs, cache):
    """The client names shared blobs by another hash than the file's."""
    blob = (theirs / WEIGHTS).resolve()
    shared = theirs.parent.parent.parent / "blobs/ab" / ("ab" + "0" * 62)
    shared.parent.mkdir(parents=True, exist_ok=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    path = cache.ensure(name_of(theirs), download=False)
    assert (path / WEIGHTS).stat().st_ino == shared.stat().st_ino
    assert (path / WEIGHTS).is_file() and not (path / WEIGHTS).is_symlink()


def test_a_folder_that_cannot_be_read_is_said(theirs, cache, caplog):
    folder = theirs.parent.parent
    shutil.rmtree(folder)
    folder.symlink_to(folder)
    is_refused(cache, theirs, caplog, "Too many levels of symbolic links")


# On another file system.
def test_what_is_used_in_place_is_hashed_once(hub, cache, monkeypatch):
    tree = {path.relative_to(TINY).as_posix(): path.read_bytes() for path in TINY.rglob("*") if path.is_file()}
    theirs = copy_of(hub, "org/once", {**tree, "onnx/model.onnx": b"x" * 1000, "pytorch_model.bin": b"y" * 1000})
    refuse_links(monkeypatch)
    hashed = count_hashes(monkeypatch)
    assert cache.ensure("org/once", download=False) == theirs
    assert WEIGHTS in hashed
    assert not {"model.onnx", "pytorch_model.bin"} & set(hashed)
    before = len(hashed)
    assert ModelCache(cache.root).ensure("org/once", download=False) == theirs
    assert len(hashed) == before
    assert list((cache.root / ".staging").iterdir()) == []


def test_what_is_used_in_place_and_changed_is_hashed_again(theirs, cache, monkeypatch, caplog):
    refuse_links(monkeypatch)
    assert cache.ensure(name_of(theirs), download=False) == theirs
    content = bytearray((theirs / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (theirs / WEIGHTS).resolve().write_bytes(content)
    is_refused(cache, theirs, caplog, f"{WEIGHTS} has the hash")


def test_a_changed_file_that_the_model_does_not_need_is_none_of_its_faults(hub, cache):
    tree = {path.relative_to(TINY).as_posix(): path.read_bytes() for path in TINY.rglob("*") if path.is_file()}
    theirs = copy_of(hub, "org/unneeded", {**tree, "pytorch_model.bin": b"y" * 1000})
    (theirs / "pytorch_model.bin").resolve().write_bytes(b"z" * 1000)
    assert cache.ensure("org/unneeded", download=False).is_relative_to(cache.root)


def test_what_is_gone_is_forgotten(tmp_path):
    record = tmp_path / "verified.json"
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        assert verified.find_changed({tmp_path / name: files.sha256(tmp_path / name)}, record) == {}
        (tmp_path / name).rename(tmp_path / "gone")
    assert list(json.loads(record.read_text())) == [str(tmp_path / "two")]


# Where it is.
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HF_HUB_CACHE", "~/hub"),
        ("HF_HUB_CACHE", "$SOMEWHERE/hub"),
        ("HUGGINGFACE_HUB_CACHE", "{folder}"),
        ("HF_HOME", "~"),
    ],
)
def test_the_clients_own_variables_say_where_it_is(theirs, tmp_path, variable, value):
    home = tmp_path / "home"
    shutil.copytree(theirs.parent.parent, home / "hub" / theirs.parent.parent.name, symlinks=True)
    own = {name: "" for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME") if name != variable}
    code = (
        f"import os\nfor name in {list(own)}: os.environ.pop(name, None)\n"
        "from pathlib import Path; from model_cache import ModelCache\n"
        f"print(ModelCache(Path({str(tmp_path / 'new')!r})).ensure({name_of(theirs)!r}, download=False))"
    )
    environment = {"HOME": str(home), "SOMEWHERE": str(home), variable: value.format(folder=home / "hub")}
    done = run_python(code, **environment)
    assert done.stdout.startswith(str(tmp_path / "new")), done.stderr


def test_looking_whether_there_is_a_copy_does_not_import_the_client(tmp_path):
    code = (
        "import sys; from pathlib import Path; from model_cache import ModelCache, ModelUnavailableError\n"
        "assert not any(name.startswith('huggingface_hub') for name in sys.modules)\n"
        f"try: ModelCache(Path({str(tmp_path)!r})).ensure('org/none', download=False)\n"
        "except ModelUnavailableError: print(sorted(n for n in sys.modules if n.startswith('huggingface_hub')))"
    )
    done = run_python(code)
    assert done.stdout == "['huggingface_hub', 'huggingface_hub.constants']\n", done.stderr
