"""Compare sparse and multi-vector models with sentence-transformers, which `make bench-peers` installs.

python -m benchmarks.text_models [--json]

The models have random weights in MiniLM's shape (6 layers, 384 values); the vectors of tokens have 128 values. Each
library has a process of its own and the same number of threads. They take turns: one untimed round, then the timed
ones, whose median counts. A time counts only after the vectors of some texts have been compared.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

from benchmarks import environments, random_bert, random_models
from benchmarks.contestants import OURS, REFERENCE
from benchmarks.processes import Answer, start_workers, take_turns
from benchmarks.workloads import mixed, sentences
from tests.support import GOLDENS, edit_json

_LAYERS, _DIMENSION = 6, 128
_TEXTS = {"sts": 512, "mixed": 128}
_CHECKED = 16
_ROUNDS = 5
_MAX_DIFFERENCE = 1e-4


def write_sparse(directory: Path) -> None:
    """Write a model of masked words, which is read as SPLADE without further files."""
    directory.mkdir()
    random_bert.write_files(directory, _LAYERS, architectures=["BertForMaskedLM"], tie_word_embeddings=True)
    weights = random_models.RandomWeights()
    head = "cls.predictions.transform"
    tensors = {
        **random_bert.make_encoder(weights, _LAYERS),
        **random_bert.make_linear(weights, f"{head}.dense", random_bert.HIDDEN),
        **random_bert.make_norm(weights, f"{head}.LayerNorm"),
        # As in a trained model, few tokens have a weight.
        "cls.predictions.bias": np.full(random_bert.VOCABULARY, -1.2, np.float32),
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def write_colbert(directory: Path) -> None:
    """Write a multi-vector model with the modules of a tiny one."""
    shutil.copytree(GOLDENS / "colbert-bert", directory)
    random_bert.write_files(directory, _LAYERS)
    edit_json(directory / "sentence_bert_config.json", document_length=512)
    edit_json(directory / "1_Dense" / "config.json", in_features=random_bert.HIDDEN, out_features=_DIMENSION)
    weights = random_models.RandomWeights()
    tensors = {name.removeprefix("bert."): one for name, one in random_bert.make_encoder(weights, _LAYERS).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    dense = {"linear.weight": weights.matrix(_DIMENSION, random_bert.HIDDEN)}
    save_file(dense, directory / "1_Dense" / "model.safetensors")


def compare(directory: Path, texts: list[str], sparse: bool) -> dict[str, float]:
    """Return the median texts per second of both, and the largest difference of a value."""

    def compare_vectors(answers: dict[str, Answer]) -> float:
        found, expected = answers[OURS][1], answers[REFERENCE][1]
        if found.shape != expected.shape or not expected.any():
            raise SystemExit(f"the vectors have the shape {found.shape}, and the reference's {expected.shape}")
        difference = float(np.abs(found - expected).max())
        if not difference <= _MAX_DIFFERENCE:
            raise SystemExit(f"the vectors differ by {difference}")
        return difference

    with ExitStack() as stack:
        workers = start_workers(
            stack,
            (OURS, REFERENCE),
            "benchmarks.contestants.text_models",
            directory=str(directory),
            sparse=sparse,
        )
        seconds, largest = take_turns(
            workers,
            _ROUNDS,
            lambda worker: worker.ask_vectors("embed", texts=texts, checked=_CHECKED),
            compare_vectors,
        )
    return {**{name: len(texts) / found for name, found in seconds.items()}, "difference": largest}


def main() -> None:
    models = {
        "sparse": random_models.ensure("sparse-minilm-random", write_sparse),
        "multi-vector": random_models.ensure("colbert-minilm-random", write_colbert),
    }
    results = {}
    for kind, directory in models.items():
        for name, count in _TEXTS.items():
            texts = sentences()[:count] if name == "sts" else mixed(count, directory)
            results[f"{kind}, {name}"] = compare(directory, texts, kind == "sparse")
    if "--json" in sys.argv[1:]:
        print(json.dumps({"cores": environments.CORES, "texts_per_s": results}))
        return
    table = Table("model, texts", OURS, REFERENCE, "ratio", "largest difference", title="texts/s")
    for name, found in results.items():
        ours, peer = found[OURS], found[REFERENCE]
        table.add_row(name, f"{ours:.0f}", f"{peer:.0f}", f"{ours / peer:.2f}", f"{found['difference']:.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
