"""Compare a static model with model2vec, which `make bench-peers` installs, and with the tokenizer alone.

python -m benchmarks.static_models [--json]

The model has a random table of 256 values for each token of all-MiniLM-L6-v2's tokenizer, in model2vec's form. Each
library has a process of its own and the same number of threads. They take turns: one untimed round, then the timed
ones, whose median counts. A time counts only after the vectors have been compared.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

from akidb_mlx import EmbeddingService
from benchmarks import environments
from benchmarks.contestants import MODEL2VEC, OURS, ModelFiles
from benchmarks.processes import start_workers
from benchmarks.workloads import mixed, plain_tokenizer, sentences

_SIZE = 256
_ROUNDS = 7
_MIN_COSINE = 0.999999
_TOKENIZER = "tokenizer alone"
# model2vec divides a call of more than 10 000 texts among threads.
_CALLS = 8
_BATCH = 1024


def make_model(directory: Path) -> None:
    """Write the model's files."""
    with EmbeddingService("minilm-l6-v2", device="cpu") as service:
        tokenizer = Path(service.get_model_info()["path"]) / "tokenizer.json"
    shutil.copy(tokenizer, directory)
    rows = plain_tokenizer(directory).get_vocab_size()
    table = np.random.default_rng(3).standard_normal((rows, _SIZE)).astype(np.float32)
    save_file({"embeddings": table}, directory / "model.safetensors")
    config = {"model_type": "model2vec", "normalize": True, "hidden_dim": _SIZE, "seq_length": 1_000_000}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")


def measure(directory: Path, texts: list[str]) -> dict[str, float]:
    """Return the median texts per second of each."""
    tokenizer = plain_tokenizer(directory)
    speeds: dict[str, list[float]] = {OURS: [], MODEL2VEC: [], _TOKENIZER: []}
    with ExitStack() as stack:
        model = asdict(ModelFiles(str(directory), str(directory), 512))
        workers = start_workers(stack, (OURS, MODEL2VEC), model=model)
        for timed in [False, *[True] * _ROUNDS]:
            answers = {name: worker.ask_vectors("encode", texts=texts, prompt=None) for name, worker in workers.items()}
            cosines = (answers[OURS][1] * answers[MODEL2VEC][1]).sum(axis=1)
            if not cosines.min() >= _MIN_COSINE:
                raise SystemExit(f"the vectors differ: the smallest cosine is {cosines.min()}")
            began = time.perf_counter()
            for start in range(0, len(texts), _BATCH):
                tokenizer.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False)
            seconds = {name: answer["seconds"] for name, (answer, _) in answers.items()}
            seconds[_TOKENIZER] = time.perf_counter() - began
            for name in speeds if timed else ():
                speeds[name].append(len(texts) / seconds[name])
    return {name: statistics.median(found) for name, found in speeds.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        make_model(directory)
        workloads = {"sts": sentences(), "sts, 8 times": sentences() * _CALLS, "mixed": mixed(2048, directory)}
        results = {name: measure(directory, texts) for name, texts in workloads.items()}
    if "--json" in sys.argv:
        print(json.dumps({"cores": environments.CORES, "texts_per_s": results}))
        return
    table = Table("texts", OURS, MODEL2VEC, "ratio", _TOKENIZER, "its share of our time", title="texts/s")
    for name, speeds in results.items():
        ours, peer, alone = speeds.values()
        table.add_row(name, f"{ours:.0f}", f"{peer:.0f}", f"{ours / peer:.2f}", f"{alone:.0f}", f"{ours / alone:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
