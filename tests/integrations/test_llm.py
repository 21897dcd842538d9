"""The program `llm`: its command, with the plugin that it finds by the entry point."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

llm = pytest.importorskip("llm")

from akidb_mlx import EmbeddingService
from akidb_mlx.catalog import CATALOG
from akidb_mlx.integrations.llm import AkidbEmbeddingModel

PROGRAM = Path(sys.executable).parent / "llm"


def run(*arguments: str, **options) -> str:
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_models_of_the_catalogue_are_listed():
    listed = run("embed-models", "list")
    assert all(f"akidb/{name}" in listed for name in CATALOG)


def test_vectors_are_those_of_the_service(model, service, texts):
    ours = AkidbEmbeddingModel(model)
    assert np.allclose(list(ours.embed_multi(texts)), service.embed_array(texts), atol=1e-6)
    assert ours.embed("cat") == service.embed(["cat"])[0]
    with pytest.raises(ValueError, match="does not support binary data"):
        ours.embed(b"\xff")


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    vector = json.loads(run("embed", "-m", "akidb/minilm-l6-v2", "-c", "a text"))
    with EmbeddingService("minilm-l6-v2") as minilm:
        assert np.allclose(vector, minilm.embed(["a text"])[0], atol=1e-6)


def test_the_command_explains_a_failure_on_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    command = [PROGRAM, "embed", "-m", "akidb/qwen3-0.6b-4bit", "-c", "a"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: mlx-community/Qwen3")
    assert len(done.stderr.splitlines()) == 1
