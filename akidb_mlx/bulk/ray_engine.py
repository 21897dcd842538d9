"""The same shards on a Ray cluster: Ray Data hands them to a pool of services, one for each node or GPU."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from akidb_mlx.bulk.manifest import ShardRecord, check_unchanged
from akidb_mlx.bulk.models import identify
from akidb_mlx.bulk.pipeline import JobPlan, Written
from akidb_mlx.bulk.pipeline import embed_shards as embed_locally
from akidb_mlx.bulk.shards import Shard
from akidb_mlx.errors import AkidbMlxError, ConfigurationError, InferenceError
from akidb_mlx.service import EmbeddingService

# Shards that one service has under way, so that it never waits for the files of one.
_SHARDS_AT_ONCE = 2


@dataclass(frozen=True)
class WorkerModel:
    """The model that each service of a cluster loads.

    Attributes:
        name: its name, the same on all nodes.
        device: where it runs.
        backend: what computes it.
        identity: the model of the job, which it must be.
    """

    name: str
    device: str | None
    backend: str | None
    identity: dict[str, Any]


def check_installed() -> None:
    """Look for Ray, without importing it.

    Raises:
        ConfigurationError: it is not installed.
    """
    if find_spec("ray") is None:
        raise ConfigurationError("engine ray: Ray is not installed: pip install 'akidb-mlx[ray]'")


class ShardEmbedder:
    """A service on a node, which computes shards.

    Its errors are handed over as results: Ray would send their text, and try a shard again that must fail again.
    """

    def __init__(self, plan: JobPlan, model: WorkerModel) -> None:
        """Load the model, which must be that of the job."""
        self._plan = plan
        self._failure: AkidbMlxError | None = None
        try:
            # From the disk only: thousands of nodes would ask the Hub at once.
            self._service = EmbeddingService(
                model.name, device=model.device, backend=model.backend, auto_download=False
            )
            there = {"model": identify(self._service), "options": {}, "inputs": []}
            check_unchanged({"model": model.identity, "options": {}, "inputs": []}, there)
        except AkidbMlxError as error:
            self._failure = error

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[bytes]]:
        """Compute shards, and return the record of each, or an error."""
        shards: list[Shard] = [pickle.loads(one) for one in batch["shard"]]  # of our own process
        outcomes: list[ShardRecord | AkidbMlxError] = []
        try:
            if self._failure is not None:
                raise self._failure
            written = embed_locally(self._service, shards, self._plan)
            outcomes += [one.record for one in written if one.record is not None]
        except AkidbMlxError as error:
            outcomes.append(error)
        return {"outcome": [pickle.dumps(outcome) for outcome in outcomes]}


def embed_shards(shards: list[Shard], plan: JobPlan, model: WorkerModel) -> Iterator[Written]:
    """Compute shards on a cluster; yield each when it is written.

    The cluster is the one that this process is connected to, or that RAY_ADDRESS names; else one of this machine. A
    shard whose node dies is computed again elsewhere.
    """
    if not shards:
        return
    ray: Any = import_module("ray")
    data: Any = import_module("ray.data")
    if not ray.is_initialized():
        # A cluster that is started here does not report to Ray's makers how it is used.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(log_to_driver=False)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    resources: dict[str, float] = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    services = gpus or sum(node["Alive"] for node in ray.nodes())
    items = [{"shard": pickle.dumps(shard)} for shard in shards]
    records = data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardEmbedder,
        batch_size=1,
        concurrency=min(services, len(shards)),
        fn_constructor_args=(plan, model),
        num_gpus=1 if gpus else None,
        num_cpus=None if gpus else 1,
        max_concurrency=_SHARDS_AT_ONCE,
        scheduling_strategy="SPREAD",
    )
    try:
        for row in records.iter_rows():
            outcome: ShardRecord | AkidbMlxError = pickle.loads(row["outcome"])
            if isinstance(outcome, AkidbMlxError):
                raise outcome
            yield Written(outcome.read, outcome.tokens, outcome.truncated, list(outcome.rejected), outcome)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][:300]
        raise InferenceError(f"the cluster failed: {reason}; the same job goes on from what is done") from error
