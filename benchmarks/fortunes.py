"""Route texts to their topics, the figures of "A real set of texts" in docs/selection.md.

python -m benchmarks.fortunes [--only knn,svm] [--json FILE] [--save FOLDER]

The texts are Debian's package `fortunes`, whose files are topics. apt fetches it, since it is not in the repository,
and its hash is compared. The vectors are those of all-MiniLM-L6-v2. Each trained selector is compared, on the same
queries that no selector was trained on, with the best single topic and with the k nearest neighbours at the default of
vLLM's semantic-router, k = 5. The exit status is 1 if no trained selector beats both.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from akidb_mlx import EmbeddingService
from akidb_mlx.selection import ALGORITHMS, Record, Selector, split_records, train
from akidb_mlx.selection.evaluation import bootstrap
from akidb_mlx.selection.files import check_writable
from akidb_mlx.selection.fitting import fit_knn
from akidb_mlx.selection.outcomes import Outcomes, gather

_PACKAGE, _VERSION = "fortunes", "1:1.99.1-7.3"
_SHA256 = "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5"
# A topic with fewer texts is left out.
_FEWEST = 200
_HELD_OUT = 0.3
_DEFAULT_K = 5
_SEED = 0


def fetch(folder: Path) -> Path:
    """Have apt download the package into a folder, and unpack it; return the folder of its topics."""
    subprocess.run(["apt-get", "download", f"{_PACKAGE}={_VERSION}"], cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("*.deb")
    if (found := hashlib.sha256(package.read_bytes()).hexdigest()) != _SHA256:
        raise SystemExit(f"{package.name} has the SHA-256 {found}, expected {_SHA256}")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "files")], check=True)
    return folder / "files" / "usr" / "share" / "games" / "fortunes"


def read_topics(folder: Path) -> list[Record]:
    """Return a record for each text; a line of "%" ends one."""
    records = []
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.suffix):
        texts = path.read_text(encoding="utf-8", errors="replace").split("\n%\n")
        texts = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
        if len(texts) >= _FEWEST:
            records += [Record(text, path.name) for text in texts]
    return records


def with_vectors(records: list[Record], service: EmbeddingService) -> list[Record]:
    """Return the records with their texts' embeddings, so that they are computed once for all selectors."""
    outcomes = gather(records, service)
    return [
        Record(record.query, record.model_name, embedding=outcomes.features[number])
        for record, number in zip(records, outcomes.query_of.tolist(), strict=True)
    ]


def accuracies(selector: Selector, held: Outcomes) -> tuple[np.ndarray, float]:
    """Return for each query 1 if the choice is a topic that it stands in, else 0; and the milliseconds of a choice."""
    began = time.perf_counter()
    chosen = selector.select_batch(held.features)
    took = (time.perf_counter() - began) / len(chosen) * 1000
    places = {label: number for number, label in enumerate(held.labels)}
    return held.performances[np.arange(len(chosen)), [places[label] for label in chosen]], took


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return a mean with its bootstrap interval of 95 %."""
    (found,) = bootstrap(values[:, None], _SEED)
    return found.mean, found.low, found.high


def main(
    only: Annotated[str, typer.Option(help="Kinds of selectors to train, separated by commas.")] = ",".join(ALGORITHMS),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    save: Annotated[Path | None, typer.Option(help="Folder to write the selectors to.")] = None,
) -> None:
    """Train selectors on Debian's fortunes, and compare them on held-out texts."""
    if json_file:
        check_writable(json_file)
    with tempfile.TemporaryDirectory() as folder, EmbeddingService("minilm-l6-v2", device="cpu") as service:
        records = with_vectors(read_topics(fetch(Path(folder))), service)
        kept, held_records = split_records(records, _HELD_OUT, _SEED)
        held = gather(held_records, service)
        default = fit_knn(gather(kept, service), {"k": _DEFAULT_K}, _SEED)
        baseline, _ = accuracies(Selector({"algorithm": "knn", "trained": True, **default.fields}), held)
        labels, counts = np.unique([record.model_name for record in kept], return_counts=True)
        frequent = held.labels.index(str(labels[np.argmax(counts)]))
        single = held.performances[:, frequent]
        figures: list[dict[str, Any]] = [
            {"name": f"best single topic ({held.labels[frequent]})", "accuracy": interval(single)},
            {"name": f"k nearest, k = {_DEFAULT_K}", "accuracy": interval(baseline)},
        ]
        for algorithm in only.split(","):
            began = time.perf_counter()
            selector = train(kept, algorithm=algorithm, service=service, seed=_SEED)
            took = time.perf_counter() - began
            if save is not None:
                selector.save(f"{save}/")
            found, choice_ms = accuracies(selector, held)
            figures.append(
                {
                    "name": algorithm,
                    "accuracy": interval(found),
                    "gain_over_default_knn": interval(found - baseline),
                    "gain_over_single": interval(found - single),
                    "parameters": selector.describe()["training"]["parameters"],
                    "training_s": round(took, 1),
                    "choice_ms": round(choice_ms, 3),
                }
            )
            Console(stderr=True).print(figures[-1])
    facts = {"texts": len(kept), "held_out": len(held.features), "topics": len(held.labels), "figures": figures}
    table = Table("", "accuracy", "gain over k = 5", title=f"{facts['held_out']} texts of {facts['topics']} topics")
    for one in figures:
        gain = one.get("gain_over_default_knn")
        table.add_row(one["name"], _shown(one["accuracy"]), _shown(gain) if gain else "")
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    best = [one for one in figures if one.get("gain_over_default_knn", (0, 0))[1] > 0]
    raise typer.Exit(not any(one["gain_over_single"][1] > 0 for one in best))


def _shown(figures: tuple[float, float, float]) -> str:
    mean, low, high = figures
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    typer.run(main)
