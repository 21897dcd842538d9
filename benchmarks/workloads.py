"""Make the workloads of `benchmarks.compare`, with the same texts on every run.

sts      the sentences of the STS benchmark, all short
mixed    texts of 5 to 500 tokens, log-normal about 40: joined sentences of the STS benchmark, cut
queries  short questions after the model's instruction
callers  256 threads that embed one text at a time, four each
busy     the latency of a short query while another thread embeds 2,000 texts
cold     the time from the start of the process to the first vector
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from benchmarks.contestants import ModelFiles, Prompt
from tests.support import sts_pairs

Kind = Literal["encode", "callers", "busy", "cold"]

CALLERS = 256
QUERIES = 10
_MIN_TOKENS, _MEDIAN_TOKENS, _MAX_TOKENS, _SIGMA = 5, 40, 500, 0.9


@dataclass(frozen=True)
class Workload:
    """Texts, and how the contestants embed them."""

    name: str
    kind: Kind
    texts: list[str]
    prompt: Prompt | None = None
    naive_texts: int = 0  # for the naive loop, which takes up to 5 seconds for each text; 0: it does not take part


@dataclass(frozen=True)
class Plan:
    """The workloads of one model, and how many texts each has."""

    sts: int
    mixed: int
    naive_texts: int
    prompt: str | None = None
    queries: int = 0
    services: bool = False  # whether it also has callers, busy and cold


PLANS = {
    "minilm": Plan(sts=2758, mixed=256, naive_texts=16, services=True),
    "gemma": Plan(sts=256, mixed=64, naive_texts=8, prompt="STS"),
    "mpnet": Plan(sts=512, mixed=96, naive_texts=8),
    "modernbert": Plan(sts=256, mixed=64, naive_texts=8),
    "qwen3": Plan(sts=64, mixed=24, naive_texts=4, queries=64),
}
NAMES = ("sts", "mixed", "queries", "callers", "busy", "cold")


def workloads(plan: Plan, model: ModelFiles) -> list[Workload]:
    """Return the workloads of a plan, with texts of the lengths that the model counts."""
    directory = Path(model.directory)
    prompt = _prompt(directory, plan.prompt) if plan.prompt else None
    planned = [
        Workload("sts", "encode", sentences()[: plan.sts], prompt, plan.naive_texts),
        Workload("mixed", "encode", mixed(plan.mixed, directory), prompt, plan.naive_texts),
    ]
    if plan.queries:
        planned.append(
            Workload("queries", "encode", sentences()[: plan.queries], _prompt(directory, "query"), plan.naive_texts)
        )
    if plan.services:
        planned += [
            Workload("callers", "callers", sentences()[: 4 * CALLERS]),
            Workload("busy", "busy", sentences()[: 2000 + QUERIES]),
            Workload("cold", "cold", sentences()[:1]),
        ]
    return planned


def sentences() -> list[str]:
    """Return the English test split of the STS benchmark: the first sentences, then the second ones."""
    first, second, _ = sts_pairs()
    return [*first, *second]


def mixed(count: int, directory: Path) -> list[str]:
    """Return texts of log-normal lengths, counted in the model's tokens without its special tokens."""
    random = np.random.default_rng(20)
    # Quantiles at even distances, so that a few texts have the distribution of many.
    normal = [NormalDist().inv_cdf((index + 0.5) / count) for index in range(count)]
    lengths = np.clip(_MEDIAN_TOKENS * np.exp(_SIGMA * np.array(normal)), _MIN_TOKENS, _MAX_TOKENS).astype(int)
    tokenizer = plain_tokenizer(directory)
    known, texts = sentences(), []
    for length in random.permutation(lengths):
        text = ""
        while len(tokens := tokenizer.encode(text, add_special_tokens=False)) < length:
            text = f"{text} {random.choice(known)}".strip()
        texts.append(text[: tokens.offsets[length - 1][1]])
    return texts


def mean_tokens(workload: Workload, model: ModelFiles) -> float:
    """Return the mean number of tokens that the model reads: with prompt and special tokens, cut to its limit."""
    prompt = workload.prompt.text if workload.prompt else ""
    encoded = plain_tokenizer(Path(model.directory)).encode_batch([prompt + text for text in workload.texts])
    return float(np.mean([min(len(tokens), model.max_tokens) for tokens in encoded]))


def plain_tokenizer(directory: Path) -> Tokenizer:
    """Return the model's tokenizer without truncation and padding."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _prompt(directory: Path, name: str) -> Prompt:
    prompts = json.loads((directory / "config_sentence_transformers.json").read_text(encoding="utf-8"))["prompts"]
    return Prompt(name, prompts[name])
