"""The same job on a Ray cluster of two nodes on this machine: `make test-ray`, in an environment of its own."""

import json
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="pip install 'akidb-mlx[ray]'")
from ray.cluster_utils import Cluster

from akidb_mlx.bulk import embed_files
from akidb_mlx.errors import InvalidInputError
from tests.support import GOLDENS, copy_model, edit_json, run_python
from tests.test_bulk import OPTIONS, ROOT, EndedError, content, end_after, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
MODEL = str(GOLDENS / "tiny-bert")
SMALL = {**OPTIONS, "shard_rows": 20, "device": "cpu", "model": MODEL}


class Nodes:
    """A cluster whose second node can be killed."""

    def __init__(self):
        options = {"num_cpus": 1, "object_store_memory": 80_000_000, "env_vars": {"PYTHONPATH": str(ROOT)}}
        self.cluster = Cluster(initialize_head=True, head_node_args=options)
        self.other = self.cluster.add_node(**options)
        ray.init(address=self.cluster.address, log_to_driver=False)

    def kill_one(self):
        self.cluster.remove_node(self.other, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes():
    one = Nodes()
    yield one
    ray.shutdown()
    one.cluster.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file, and what one machine makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    path = write(folder / "a.parquet")
    embed_files([path], output=folder / "out", **SMALL)
    return path, content(folder / "out")


@pytest.mark.usefixtures("nodes")
def test_a_cluster_makes_the_same_shards(whole, tmp_path):
    path, expected = whole
    hosts = []
    events = lambda event: hosts.append(event["event"])  # noqa: E731
    summary = embed_files([path], output=tmp_path / "out", engine="ray", listener=events, **SMALL)
    assert (summary.embedded, summary.shards, hosts.count("shard")) == (300, 15, 15)
    assert content(tmp_path / "out") == expected
    assert sum(node["Alive"] for node in ray.nodes()) == 2


@pytest.mark.usefixtures("nodes")
def test_a_job_moves_from_one_machine_to_a_cluster_and_back(whole, tmp_path):
    path, expected = whole
    for first, then in (("local", "ray"), ("ray", "local")):
        output = tmp_path / first
        with pytest.raises(EndedError):
            embed_files([path], output=output, engine=first, listener=end_after(4), **SMALL)
        done = len(list(output.glob("shard-*")))
        assert 4 <= done < 15
        summary = embed_files([path], output=output, engine=then, **SMALL)
        assert summary.computed <= 300 - 20 * 4
        assert content(output) == expected


@pytest.mark.usefixtures("nodes")
def test_the_error_of_a_worker_is_ours(tmp_path):
    table = {"key": ["a", "b"], "body": ["text", None]}
    path = write(tmp_path / "a.jsonl", table)
    with pytest.raises(InvalidInputError, match=r"a\.jsonl, row 2: no text"):
        embed_files([path], output=tmp_path / "out", engine="ray", on_null="error", **{**SMALL, "keep": []})
    with pytest.raises(InvalidInputError, match="the model changed since this job was begun: files_sha256"):
        # A node that has another model under this name.
        moved = copy_model("tiny-bert", tmp_path)
        options = {
            **SMALL,
            "keep": [],
            "model": str(moved),
            "listener": lambda _: edit_json(moved / "config.json", transformers_version="0"),
        }
        embed_files([path], output=tmp_path / "other", engine="ray", **options)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["state"] == "begun"


def test_a_node_that_dies_loses_no_row(nodes, whole, tmp_path):
    """It comes last: the cluster has one node less afterwards."""
    path, expected = whole
    done = []

    def kill(event):
        if event["event"] == "shard":
            done.append(event["shard"])
            if len(done) == 2:
                nodes.kill_one()

    embed_files([Path(path)], output=tmp_path / "out", engine="ray", listener=kill, **SMALL)
    assert sorted(done) == list(range(15))
    assert content(tmp_path / "out") == expected


def test_a_cluster_that_is_started_here_reports_nothing_to_its_makers(tmp_path):
    path = write(tmp_path / "a.parquet")
    done = run_python(
        "from akidb_mlx.bulk import embed_files\n"
        f"embed_files([{str(path)!r}], output={str(tmp_path / 'out')!r}, engine='ray', **{SMALL!r})\n"
        "import ray\n"
        "from ray._common.usage.usage_lib import usage_stats_enabled\n"
        "print(ray.is_initialized(), usage_stats_enabled())",
        timeout=300,
        RAY_ADDRESS="",
    )
    assert done.stdout.endswith("True False\n"), done.stderr
