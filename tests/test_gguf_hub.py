"""GGUF files of repositories: each is a model of its own in the cache, verified and removed like the others."""

import pytest

from akidb_mlx.errors import ModelLoadError, ModelNotFoundError
from akidb_mlx.resolve import acquire_gguf
from akidb_mlx.settings import Settings
from model_cache import CorruptModelError, InvalidModelNameError, ModelUnavailableError
from model_cache.names import RepoName
from tests.hub import Fault
from tests.support import GOLDENS

SMALL, LARGE = b"GGUF small", b"GGUF" + bytes(range(256)) * 100


@pytest.fixture
def cache():
    return Settings().open_cache()


@pytest.fixture
def repository(hub):
    files = {"m-q4.gguf": SMALL, "m-f16.gguf": LARGE, "sub/m.gguf": SMALL, "README.md": b"r", ".gitattributes": b"g"}
    hub.add("org/gguf", files)
    return "org/gguf"


def fetched(hub):
    return sorted(
        {one.path.rpartition("main/")[2].rpartition("/")[2] for one in hub.requests if "/resolve/" in one.path}
    )


def test_one_file_is_fetched_verified_and_kept(repository, hub, cache):
    path = cache.ensure(f"{repository}:m-f16.gguf")
    assert [file.name for file in path.iterdir() if not file.name.startswith(".")] == ["m-f16.gguf"]
    assert (path / "m-f16.gguf").read_bytes() == LARGE
    assert fetched(hub) == ["m-f16.gguf"]
    (model,) = cache.list()
    assert (model.repo_id, model.refs, model.size) == ("org/gguf:m-f16.gguf", ("main",), len(LARGE))
    assert model.name == f"org/gguf@{model.commit}:m-f16.gguf"
    assert cache.verify() == {model.name: ()}
    asked = len(hub.requests)
    assert cache.ensure(model.name) == cache.ensure("org/gguf@main:m-f16.gguf") == path
    assert len(hub.requests) == asked
    (path / "m-f16.gguf").write_bytes(LARGE[::-1])
    assert cache.verify() == {model.name: ("m-f16.gguf",)}
    cache.repair(model.name)
    assert cache.verify() == {model.name: ()}


def test_files_of_a_repository_are_models_of_their_own(repository, cache):
    paths = {name: cache.ensure(f"{repository}:{name}") for name in ("m-q4.gguf", "m-f16.gguf", "sub/m.gguf")}
    assert len(set(paths.values())) == 3
    assert (paths["sub/m.gguf"] / "sub/m.gguf").read_bytes() == SMALL
    assert len(cache.list()) == 3
    cache.remove(f"{repository}:m-q4.gguf")
    assert {model.repo_id for model in cache.list()} == {"org/gguf:m-f16.gguf", "org/gguf:sub/m.gguf"}
    assert cache.update(f"{repository}:m-f16.gguf")[1] == cache.list()[0].commit


def test_a_file_beside_an_embedding_model_changes_nothing_of_it(hub, cache):
    files = {
        path.relative_to(GOLDENS / "tiny-bert").as_posix(): path.read_bytes()
        for path in (GOLDENS / "tiny-bert").rglob("*")
        if path.is_file()
    }
    hub.add("org/both", files | {"m.gguf": SMALL})
    alone = cache.ensure("org/both:m.gguf")
    whole = cache.ensure("org/both")
    assert alone != whole
    assert not (whole / "m.gguf").exists()
    assert (whole / "model.safetensors").is_file()
    assert cache.ensure("org/both:m.gguf", download=False) == alone


def test_a_repository_of_such_files_needs_the_name_of_one(repository, cache):
    with pytest.raises(
        ModelUnavailableError, match=r"name one, as in org/gguf:file\.gguf \(GGUF files: m-f16\.gguf, m-q4"
    ):
        cache.ensure(repository)
    with pytest.raises(ModelUnavailableError, match=r"no such file \(GGUF files: m-f16\.gguf, m-q4\.gguf, sub/m\.gguf"):
        cache.ensure(f"{repository}:m-q8.gguf")
    assert not cache.list()


def test_a_file_that_arrives_damaged_is_refused(repository, hub, cache):
    hub.fail(Fault("*/m-f16.gguf", flip=True, times=None))
    with pytest.raises(CorruptModelError):
        cache.ensure(f"{repository}:m-f16.gguf")
    assert not cache.list()


def test_a_lost_record_is_made_again(repository, hub, cache):
    path = cache.ensure(f"{repository}:m-q4.gguf")
    (path / ".akidb-model.json").unlink()
    asked = len(hub.requests)
    assert cache.ensure(f"{repository}:m-q4.gguf") == path
    assert len(hub.requests) == asked
    assert cache.list()[0].repo_id == "org/gguf:m-q4.gguf"


@pytest.mark.parametrize(
    "name",
    [
        "org/m:",
        "org/m:a.bin",
        "org/m:../a.gguf",
        "org/m:/a.gguf",
        "org/m:a//b.gguf",
        "org/m:a.gguf\n",
        "org/m:.gguf",
        "org/m:a:b.gguf",
        "org/m:a\\b.gguf",
        "org/m:a--b/c.gguf",
        f"org/m:{'a' * 300}.gguf",
        "m:a.gguf",
        "org/m:a.gguf@main",
    ],
)
def test_names_that_no_file_of_a_repository_has(name):
    with pytest.raises(InvalidModelNameError):
        RepoName.parse(name)


def test_names_are_read_with_their_revision():
    name = RepoName.parse("org/m@v1:sub/a-Q4_K_M.gguf")
    assert (name.repo_id, name.repository, name.file) == ("org/m:sub/a-Q4_K_M.gguf", "org/m", "sub/a-Q4_K_M.gguf")
    assert (name.revision, str(name), name.folder) == ("v1", "org/m@v1:sub/a-Q4_K_M.gguf", "org--m:sub--a-Q4_K_M.gguf")
    assert RepoName.parse(str(name)) == name
    assert RepoName.parse("org/m").file is None


def test_the_service_finds_the_file(repository, hub, tmp_path):
    from contextlib import ExitStack

    settings = Settings()
    with ExitStack() as resources:
        file = acquire_gguf(resources, f"{repository}:sub/m.gguf", settings, True)
        assert file.read_bytes() == SMALL
        hub.fail(Fault("*/m-f16.gguf", flip=True, times=None))
        with pytest.raises(ModelLoadError):
            acquire_gguf(resources, f"{repository}:m-f16.gguf", settings, True)
        with pytest.raises(ModelNotFoundError, match="no such file"):
            acquire_gguf(resources, f"{repository}:none.gguf", settings, True)
        (tmp_path / "a:b.gguf").write_bytes(SMALL)
        assert acquire_gguf(resources, str(tmp_path / "a:b.gguf"), settings, True).name == "a:b.gguf"
