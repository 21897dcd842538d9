"""Measure how close the vectors are to those of the reference, the figures in docs/fidelity.md.

python -m benchmarks.fidelity [--json]

It compares with the stored vectors of sentence-transformers (tests/goldens) and computes the score on the English test
split of the STS benchmark. A model whose weights are not on this machine is reported as absent. The exit status is 1 if
a figure misses its bound.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.errors import ModelNotFoundError
from benchmarks.quantize import quantize
from tests.support import GOLDENS, LONGEST, TEXTS, WEIGHTS, golden, sts_pairs, sts_spearman

_TINY = ("tiny-bert", "tiny-distilbert", "tiny-roberta", "tiny-qwen3", "tiny-gemma3")


@dataclass(frozen=True)
class Figure:
    """One measured quantity and its bound."""

    model: str
    quantity: str
    value: float
    bound: str
    met: bool


def at_most(model: str, quantity: str, value: float, bound: float) -> Figure:
    """Return a figure that must not exceed its bound."""
    return Figure(model, quantity, value, f"≤ {bound:g}", value <= bound)


def at_least(model: str, quantity: str, value: float, bound: float) -> Figure:
    """Return a figure that must reach its bound."""
    return Figure(model, quantity, value, f"≥ {bound:g}", value >= bound)


def embed(service: EmbeddingService, prompt: str, texts: list[str] = TEXTS) -> NDArray[np.float32]:
    return service.embed_array(texts, input_type=None if prompt == "none" else prompt)


def differences(name: str, model: str, bound: float) -> Iterator[Figure]:
    """Yield the largest absolute difference from the stored vectors, for each prompt."""
    with EmbeddingService(model, device="cpu") as service:
        for prompt, expected in golden(name).items():
            difference = float(np.abs(embed(service, prompt) - expected).max())
            yield at_most(name, f"largest difference, prompt {prompt}", difference, bound)


def smallest_cosines(name: str, precision: str, bound: float, left_out: int | None = None) -> Iterator[Figure]:
    """Yield the smallest cosine to the vectors of the dequantised weights, for each prompt."""
    with EmbeddingService(str(GOLDENS / name), device="cpu", settings=Settings(precision=precision)) as service:
        for prompt, expected in golden(name).items():
            cosine = (embed(service, prompt) * expected).sum(axis=1)
            counted = cosine if left_out is None else np.delete(cosine, left_out)
            yield at_least(name, f"smallest cosine in {precision}, prompt {prompt}", float(counted.min()), bound)


def spearman(service: EmbeddingService, prompt: str, dimensions: int | None = None) -> float:
    """Return Spearman's rank correlation between cosines and human scores on the STS benchmark."""
    first, second, _ = sts_pairs()
    options = {"input_type": None if prompt == "none" else prompt, "dimensions": dimensions}
    return sts_spearman(service.embed_array([*first, *second], **options))


def without_prompts(name: str, model: str, least_spearman: float) -> Iterator[Figure]:
    """Yield the figures of a real model without prompts."""
    yield from differences(name, model, 1e-5)
    with EmbeddingService(model, device="cpu") as service:
        yield at_least(name, "STS-B Spearman", spearman(service, "none"), least_spearman)


def embeddinggemma(directory: Path) -> Iterator[Figure]:
    """Yield the figures of EmbeddingGemma, in float32 and quantised to 4 bits."""
    name = "embeddinggemma-300m"
    yield from differences(name, str(directory), 1e-5)
    with EmbeddingService(str(directory), device="cpu") as service:
        full = embed(service, "STS")
        yield at_least(name, "STS-B Spearman, 768 dimensions", spearman(service, "STS"), 0.8813)
        yield at_least(name, "STS-B Spearman, 256 dimensions", spearman(service, "STS", 256), 0.8831)
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder) / "4bit"
        quantize(directory, quantised)
        with EmbeddingService(str(quantised), device="cpu") as service:
            cosine = (embed(service, "STS") * full).sum(axis=1)
            yield at_least(f"{name}, 4-bit", "mean cosine to float32", float(cosine.mean()), 0.97)
            yield at_least(f"{name}, 4-bit", "STS-B Spearman", spearman(service, "STS"), 0.878)


def main() -> int:
    measurements: list[tuple[str, Iterator[Figure]]] = [
        *((name, differences(name, str(GOLDENS / name), 2e-5)) for name in _TINY),
        # The reference cut texts to 512 tokens, which the conversion does not state; the one longer text is left out.
        ("tiny-qwen3-4bit", smallest_cosines("tiny-qwen3-4bit", "float32", 0.99999, LONGEST)),
        ("tiny-gemma3-4bit", smallest_cosines("tiny-gemma3-4bit", "float32", 0.99999)),
        ("tiny-qwen3-4bit", smallest_cosines("tiny-qwen3-4bit", "bfloat16", 0.995, LONGEST)),
        ("tiny-gemma3-4bit", smallest_cosines("tiny-gemma3-4bit", "bfloat16", 0.995)),
        ("all-MiniLM-L6-v2", without_prompts("all-MiniLM-L6-v2", "minilm-l6-v2", 0.8198)),
    ]
    absent: list[str] = []
    mpnet, gemma = WEIGHTS / "all-mpnet-base-v2", WEIGHTS / "embeddinggemma-300m"
    for directory, figures_of in (
        (mpnet, without_prompts(mpnet.name, str(mpnet), 0.8340)),
        (gemma, embeddinggemma(gemma)),
    ):
        if directory.is_dir():
            measurements.append((directory.name, figures_of))
        else:
            absent.append(directory.name)
    figures: list[Figure] = []
    console = Console(stderr=True)
    for name, measurement in track(
        measurements, description="measuring", console=console, disable=not console.is_terminal
    ):
        try:
            figures += measurement
        except ModelNotFoundError:
            absent.append(name)
    if "--json" in sys.argv:
        print(json.dumps({"figures": [asdict(figure) for figure in figures], "absent": absent}, indent=1))
    else:
        print_table(figures, absent)
    return 0 if all(figure.met for figure in figures) else 1


def print_table(figures: list[Figure], absent: list[str]) -> None:
    """Print the figures as a table, then the models that are absent."""
    table = Table("model", "quantity", "measured", "bound")
    for figure in figures:
        colour = "green" if figure.met else "red"
        table.add_row(figure.model, figure.quantity, f"[{colour}]{figure.value:.7g}[/]", figure.bound)
    Console().print(table)
    for name in absent:
        print(f"{name}: not on this machine, not measured")


if __name__ == "__main__":
    sys.exit(main())
