"""The comparison that `make bench-mac` runs, on the CPU."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.contestants import ModelFiles
from tests.support import GOLDENS, minilm_installed

TINY = str(GOLDENS / "tiny-bert")


@pytest.mark.slow
@pytest.mark.skipif(not minilm_installed(), reason="all-MiniLM-L6-v2 is not installed")
def test_the_report_says_where_it_was_measured_and_who_was_absent(tmp_path):
    report = tmp_path / "mac.json"
    options = ["--device", "cpu", "--models", "minilm", "--workloads", "cold", "--rounds", "1", "--json", str(report)]
    command = [sys.executable, "-m", "benchmarks.compare", *options]
    done = subprocess.run(command, cwd=GOLDENS.parent.parent, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert found["machine"]["device"] == "cpu"
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_gb"] > 0
    figures = {figure["contestant"]: figure for figure in found["figures"]}
    assert figures["akidb-mlx"]["status"] == "ok"
    assert figures["akidb-mlx"]["min_cosine"] > 0.999
    assert all(figure["status"] in ("ok", "absent") for figure in figures.values()), figures


def test_our_contestant_computes_where_it_is_told_to_in_float32(monkeypatch):
    from benchmarks.contestants import akidb

    made = []

    def service(name, **options):
        made.append((name, options["device"], options["settings"].precision))
        return SimpleNamespace(embed_array=lambda texts, **_: np.zeros((len(texts), 1)))

    monkeypatch.setattr(akidb, "EmbeddingService", service)
    akidb.load(ModelFiles(TINY, TINY, 512, "gpu"))(["a"], None)
    akidb.load(ModelFiles(TINY, TINY, 512))(["a"], None)
    assert made == [(TINY, "gpu", "float32"), (TINY, "cpu", "float32")]


def test_the_reference_computes_on_the_gpu_by_its_own_name(monkeypatch):
    """With stand-ins for its packages, which are not installed here."""
    made = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=lambda _: None))
    network = SimpleNamespace(SentenceTransformer=lambda _, **options: made.append(options["device"]))
    monkeypatch.setitem(sys.modules, "sentence_transformers", network)
    monkeypatch.delitem(sys.modules, "benchmarks.contestants.sentence_transformers", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from benchmarks.contestants import sentence_transformers

    sentence_transformers.load(ModelFiles(TINY, TINY, 512, "gpu"))
    sentence_transformers.load(ModelFiles(TINY, TINY, 512, "cpu"))
    monkeypatch.delitem(sys.modules, "benchmarks.contestants.sentence_transformers")
    assert made == ["mps", "cpu"]
