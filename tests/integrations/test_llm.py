"""The program `llm`: its command, with the plugin that it finds by the entry point."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

llm = pytest.importorskip("llm")

from akidb_mlx.catalog import CATALOG
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.integrations.llm import AkidbEmbeddingModel


def run(*arguments: str, **options) -> str:
    program = Path(sys.executable).parent / "llm"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_models_of_the_catalogue_are_listed():
    listed = run("embed-models", "list")
    assert all(f"akidb/{name}" in listed for name in CATALOG)


def test_vectors_are_those_of_the_service(model, service, texts):
    ours = AkidbEmbeddingModel(model)
    assert np.allclose(list(ours.embed_multi(texts)), service.embed_array(texts), atol=1e-6)
    assert ours.embed("cat") == service.embed(["cat"])[0]
    with pytest.raises(InvalidInputError, match="not binary content"):
        ours.embed(b"\xff")


def test_the_command(tmp_path, monkeypatch, model, service):
    """The catalogue's smallest model is on no machine without a network; a tiny one takes its place in the cache."""
    hub = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    snapshot = hub / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("0" * 40)
    snapshot.symlink_to(model)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("AKIDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    vector = json.loads(run("embed", "-m", "akidb/minilm-l6-v2", "-c", "a text"))
    assert np.allclose(vector, service.embed(["a text"])[0], atol=1e-6)
