"""The examples of docs/bulk.md that load the vectors of a job, each run where its package is installed."""

import re
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pip install 'akidb-mlx[bulk]'")
pytest.importorskip("fsspec")

from akidb_mlx.bulk import embed_files
from tests.test_bulk import BODIES, OPTIONS, ROOT, TABLE, write

_EXAMPLES = dict(re.findall(r"```python\n# (\w+)\n(.+?)```", (ROOT / "docs" / "bulk.md").read_text("utf-8"), re.DOTALL))


def nearest(name, example):
    """The ids that an example found for a text of the job, the nearest first."""
    found = example["found"]
    if name == "embedded_db":
        return [one.node.id for one in found]
    if name == "lancedb":
        return [one["key"] for one in found]
    if name == "lance":
        return found["key"].to_pylist()
    if name == "chromadb":
        return found["ids"][0]
    return [TABLE["key"][row] for row in (found[0] if name == "faiss" else found.keys).tolist()]


def test_there_are_examples_for_all_stores():
    assert set(_EXAMPLES) == {"numpy", "embedded_db", "lancedb", "lance", "chromadb", "faiss", "usearch"}


@pytest.mark.filterwarnings("ignore")  # the packages' own
@pytest.mark.parametrize("name", sorted(_EXAMPLES))
def test_an_example_finds_what_is_nearest(name, service, tmp_path, monkeypatch):
    if find_spec(name) is None or (name == "embedded_db" and find_spec("apsw") is None):
        pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANONYMIZED_TELEMETRY", "False")
    embed_files([write(tmp_path / "a.parquet")], output="vectors", model=service("tiny-bert"), **OPTIONS)
    example = {}
    exec(compile(_EXAMPLES[name], f"docs/bulk.md, {name}", "exec"), example)
    vectors = service("tiny-bert").embed_array(BODIES)
    if name == "numpy":
        assert example["ids"] == TABLE["key"]
        assert np.abs(example["vectors"] - vectors).max() < 1e-6
        return
    # The examples ask with the first row that they hold, or with the first of the last batch.
    query = 256 if name in ("embedded_db", "chromadb") else 0
    scores = vectors @ vectors[query]
    found = [scores[TABLE["key"].index(key)] for key in nearest(name, example)]
    assert np.abs(np.sort(scores)[::-1][:3] - found).max() < 1e-3
