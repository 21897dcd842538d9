"""Compare rerankers with CrossEncoder of sentence-transformers, which `make bench-peers` installs.

python -m benchmarks.rerankers [--json]

One query has a hundred documents of mixed lengths. The cross-encoders have random weights in the shapes of
ms-marco-MiniLM-L6 and -L12. Each library has a process of its own and the same number of threads. They take turns: one
untimed round, then the timed ones, whose median counts. A time counts only after the scores have been compared.

The last table shows a causal model with a long query, whose tokens are computed once for all documents, and the same
without that.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from akidb_mlx import Reranker
from benchmarks import environments, random_rerankers
from benchmarks.contestants import OURS, REFERENCE
from benchmarks.processes import Answer, start_workers, take_turns
from benchmarks.workloads import mixed, sentences

_DOCUMENTS = 100
_ROUNDS = 5
_MAX_DIFFERENCE = 1e-4
_QUERY = "How many people live in the capital, and since when?"
# Sentences of a long query.
_LONG = 4


def compare(directory: Path) -> dict[str, float]:
    """Return the median pairs per second of both, and the largest difference of a score."""
    documents = mixed(_DOCUMENTS, directory)

    def compare_scores(answers: dict[str, Answer]) -> float:
        scores = answers[REFERENCE][1]
        difference = float(np.abs(answers[OURS][1] - scores).max())
        if not difference <= _MAX_DIFFERENCE < scores.std() / 100:
            raise SystemExit(f"scores differ by {difference}; their standard deviation is {scores.std()}")
        return difference

    with ExitStack() as stack:
        workers = start_workers(stack, (OURS, REFERENCE), "benchmarks.contestants.scoring", directory=str(directory))
        seconds, largest = take_turns(
            workers,
            _ROUNDS,
            lambda worker: worker.ask_vectors("score", query=_QUERY, documents=documents),
            compare_scores,
        )
    return {**{name: _DOCUMENTS / found for name, found in seconds.items()}, "difference": largest}


def compare_prefixes() -> dict[str, float]:
    """Return the pairs per second of a causal model with the query computed once, and for each document."""
    directory = random_rerankers.ensure_causal()
    query, documents = " ".join(sentences()[:_LONG]), sentences()[_LONG : _LONG + _DOCUMENTS]
    found: dict[bool, list[float]] = {True: [], False: []}
    with Reranker(directory, device="cpu") as reranker:
        facts = reranker._facts
        assert facts.shares_prefixes
        for timed in [False, *[True] * _ROUNDS]:
            scores = {}
            for shares in found:
                reranker._facts = replace(facts, shares_prefixes=shares)
                began = time.perf_counter()
                scores[shares] = reranker.scores([(query, document) for document in documents])
                if timed:
                    found[shares].append(_DOCUMENTS / (time.perf_counter() - began))
            if not np.abs(scores[True] - scores[False]).max() <= _MAX_DIFFERENCE:
                raise SystemExit("the scores differ with a shared prefix")
    return {"once": statistics.median(found[True]), "for each document": statistics.median(found[False])}


def main() -> None:
    shapes = {f"MiniLM-L{layers}": random_rerankers.ensure_cross_encoder(layers) for layers in (6, 12)}
    results = {name: compare(directory) for name, directory in shapes.items()}
    prefixes = compare_prefixes()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"cores": environments.CORES, "pairs_per_s": results, "query_computed": prefixes}))
        return
    table = Table("shape", OURS, "CrossEncoder", "ratio", "largest difference", title="pairs/s")
    for name, found in results.items():
        ours, peer = found[OURS], found[REFERENCE]
        table.add_row(name, f"{ours:.0f}", f"{peer:.0f}", f"{ours / peer:.2f}", f"{found['difference']:.1e}")
    Console().print(table)
    table = Table("a long query is computed", "pairs/s")
    for name, speed in prefixes.items():
        table.add_row(name, f"{speed:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
