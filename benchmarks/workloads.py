"""What the contestants of `benchmarks.compare` are given to do; the same texts on every run.

sts      the sentences of the STS benchmark, all short
mixed    5 to 500 tokens, log-normal about 40: sentences of the STS benchmark joined, then cut
queries  short questions after the model's instruction
callers  256 threads that embed one text at a time, four each
busy     the latency of one short query while 2,000 texts are embedded on another thread
cold     from the start of the process to the first vector
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
_SHORTEST, _MEDIAN, _LONGEST, _SIGMA = 5, 40, 500, 0.9


@dataclass(frozen=True)
class Workload:
    name: str
    kind: Kind
    texts: list[str]
    prompt: Prompt | None = None
    naive_texts: int = 0  # how many the naive loop does, which takes up to 5 seconds for each; 0: it does not take part


@dataclass(frozen=True)
class Plan:
    """What one model is measured on."""

    sts: int
    mixed: int
    naive: int
    prompt: str | None = None
    queries: int = 0
    services: bool = False  # callers, busy and cold


PLANS = {
    "minilm": Plan(sts=2758, mixed=256, naive=16, services=True),
    "gemma": Plan(sts=256, mixed=64, naive=8, prompt="STS"),
    "qwen3": Plan(sts=64, mixed=24, naive=4, queries=64),
}
NAMES = ("sts", "mixed", "queries", "callers", "busy", "cold")


def workloads(plan: Plan, model: ModelFiles) -> list[Workload]:
    directory = Path(model.directory)
    prompt = _prompt(directory, plan.prompt) if plan.prompt else None
    made = [
        Workload("sts", "encode", sentences()[: plan.sts], prompt, plan.naive),
        Workload("mixed", "encode", mixed(plan.mixed, directory), prompt, plan.naive),
    ]
    if plan.queries:
        made.append(Workload("queries", "encode", sentences()[: plan.queries], _prompt(directory, "query"), plan.naive))
    if plan.services:
        made += [
            Workload("callers", "callers", sentences()[: 4 * CALLERS]),
            Workload("busy", "busy", sentences()[: 2000 + QUERIES]),
            Workload("cold", "cold", sentences()[:1]),
        ]
    return made


def sentences() -> list[str]:
    """The STS benchmark's English test split, first sentences, then second ones."""
    first, second, _ = sts_pairs()
    return [*first, *second]


def mixed(count: int, directory: Path) -> list[str]:
    """Lengths are in the model's own tokens, those that it adds itself not counted."""
    random = np.random.default_rng(20)
    # Evenly spaced quantiles, so that few texts have the distribution of many.
    normal = [NormalDist().inv_cdf((index + 0.5) / count) for index in range(count)]
    lengths = np.clip(_MEDIAN * np.exp(_SIGMA * np.array(normal)), _SHORTEST, _LONGEST).astype(int)
    tokenizer = plain_tokenizer(directory)
    known, texts = sentences(), []
    for length in random.permutation(lengths):
        text = ""
        while len(tokens := tokenizer.encode(text, add_special_tokens=False)) < length:
            text = f"{text} {random.choice(known)}".strip()
        texts.append(text[: tokens.offsets[length - 1][1]])
    return texts


def mean_tokens(workload: Workload, model: ModelFiles) -> float:
    """Mean length as the model reads it: with its prompt and its own tokens, cut to its limit."""
    prompt = workload.prompt.text if workload.prompt else ""
    encoded = plain_tokenizer(Path(model.directory)).encode_batch([prompt + text for text in workload.texts])
    return float(np.mean([min(len(tokens), model.max_tokens) for tokens in encoded]))


def plain_tokenizer(directory: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _prompt(directory: Path, name: str) -> Prompt:
    prompts = json.loads((directory / "config_sentence_transformers.json").read_text(encoding="utf-8"))["prompts"]
    return Prompt(name, prompts[name])
