"""The records of models that are known by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Task = Literal["embedding", "reranking", "sparse", "multi-vector"]
Language = Literal["en", "zh", "multilingual"]


@dataclass(frozen=True)
class ModelRecord:
    """A model that may be asked for by a short name.

    Attributes:
        name: the short name.
        repo_id: the repository on the Hub.
        description: one line for a person who chooses.
        licence: SPDX identifier, or the name of the licence's terms.
        size: bytes of the weights, to two digits.
        task: what the model computes.
        languages: the languages that its publisher names; "multilingual" stands for fifty or more.
        vector_size: how many values the model computes; None for a model that scores pairs.
        dimensions: how many values a vector has unless the caller says otherwise; None: all of them.
        matryoshka: whether it was trained so that a vector's first values are a vector themselves.
        max_tokens: most tokens of a text, as its publisher states them.
        prompts: the prompts on its card, by name; they count where the model's own files hold none.
        commercial_use: whether its licence allows commercial use.
    """

    name: str
    repo_id: str
    description: str
    licence: str
    size: int
    task: Task = "embedding"
    languages: tuple[Language, ...] = ("en",)
    vector_size: int | None = None
    dimensions: int | None = None
    matryoshka: bool = False
    max_tokens: int = 512
    prompts: Mapping[str, str] = field(default_factory=dict)
    commercial_use: bool = True


@dataclass(frozen=True)
class SummaryModelRecord:
    """A generative model that summaries may be asked of by a short name.

    Attributes:
        name: the short name.
        repo_id: the repository on the Hub.
        licence: SPDX identifier, or the name of the licence's terms.
        description: one line for a person who chooses.
    """

    name: str
    repo_id: str
    licence: str
    description: str
