"""One way to embed a file, run as a script by the Python that has it; its report is JSON.

python benchmarks/bulk_contestant.py WAY ROWS.parquet|ROWS.json MODEL OUTPUT THREADS

Nothing of this project is imported except by its own ways, since the peers' environments lack it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


class _Clock:
    """Measures seconds, and those of all cores that this process has used; the latter bear a busy machine."""

    def __init__(self) -> None:
        self._began, self._used = time.perf_counter(), time.process_time()

    def report(self, rows: int) -> dict[str, Any]:
        seconds, used = time.perf_counter() - self._began, time.process_time() - self._used
        return {"seconds": seconds, "cpu_seconds": used, "rows": rows}


def embed_files(rows: str, model: str, output: str, _: int) -> dict[str, Any]:
    from akidb_mlx import EmbeddingService
    from akidb_mlx.bulk import embed_files as run

    with EmbeddingService(model, device="cpu") as service:
        service.embed(["warm"])
        clock = _Clock()
        summary = run([rows], output=output, model=service)
        return clock.report(summary.embedded)


def embed_array(rows: str, model: str, _output: str, _: int) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from akidb_mlx import EmbeddingService

    with EmbeddingService(model, device="cpu") as service:
        service.embed(["warm"])
        texts = pq.read_table(rows)["text"].to_pylist()
        clock = _Clock()
        return clock.report(len(service.embed_array(texts)))


def encode(rows: str, model: str, output: str, _: int) -> dict[str, Any]:
    """Encode in one process, which uses all cores."""
    import numpy as np

    encoder = _encoder(model)
    texts = json.loads(Path(rows).read_text(encoding="utf-8"))
    clock = _Clock()
    vectors = encoder.encode(texts)
    np.save(f"{output}.npy", vectors)
    return clock.report(len(vectors))


def encode_multi_process(rows: str, model: str, output: str, processes: int) -> dict[str, Any]:
    """Encode in a process for each core, as the documentation shows it; starting them is not timed."""
    import numpy as np

    encoder = _encoder(model)
    texts = json.loads(Path(rows).read_text(encoding="utf-8"))
    pool = encoder.start_multi_process_pool(["cpu"] * processes)
    encoder.encode(texts[: 32 * processes], pool=pool)
    clock = _Clock()
    vectors = encoder.encode(texts, pool=pool)
    np.save(f"{output}.npy", vectors)
    report = clock.report(len(vectors))
    encoder.stop_multi_process_pool(pool)
    return report


def datasets_map(rows: str, model: str, output: str, _: int) -> dict[str, Any]:
    """Map a dataset with sentence-transformers, a thousand rows at a time, and write Parquet."""
    import datasets

    datasets.disable_progress_bars()
    encoder = _encoder(model)
    encoder.encode(["warm"])
    clock = _Clock()
    data = datasets.load_dataset("parquet", data_files=rows, split="train", cache_dir=f"{output}.cache")
    mapped = data.map(lambda batch: {"embedding": encoder.encode(batch["text"])}, batched=True, batch_size=1000)
    mapped.to_parquet(f"{output}.parquet")
    return clock.report(len(mapped))


def _peak_bytes() -> int:
    """Return the most memory that this process has had; on Linux, `ru_maxrss` also counts that of its parent."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _encoder(model: str) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model, device="cpu")


_WAYS = {
    "embed_files": embed_files,
    "embed_array": embed_array,
    "encode": encode,
    "encode, a process per core": encode_multi_process,
    "datasets.map": datasets_map,
}

if __name__ == "__main__":  # the processes of a pool import this file again
    way, rows, model, output, threads = sys.argv[1:]
    figures = _WAYS[way](rows, model, output, int(threads))
    figures["peak_MB"] = _peak_bytes() / 1e6
    sys.stdout.write(json.dumps(figures) + "\n")
