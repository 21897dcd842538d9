"""The models known by name, as frozen records. Everything else about a model is read from its own files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelRecord:
    """A model that may be asked for by a short name.

    Attributes:
        name: the short name.
        repo_id: the repository on the Hub.
        dimensions: how many values a vector has unless the caller says otherwise; None: all of them.
        matryoshka: whether it was trained so that a vector's first values are a vector themselves.
        licence: SPDX identifier, or the name of the licence's terms.
        description: one line for a person who chooses.
    """

    name: str
    repo_id: str
    dimensions: int | None
    matryoshka: bool
    licence: str
    description: str


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


@dataclass(frozen=True)
class RerankerRecord:
    """A reranker that may be asked for by a short name.

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


CATALOG: dict[str, ModelRecord] = {
    record.name: record
    for record in (
        ModelRecord(
            name="qwen3-0.6b-4bit",
            repo_id="mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ",
            dimensions=512,
            matryoshka=True,
            licence="Apache-2.0",
            description="Qwen3-Embedding 0.6B, 4-bit: multilingual, instructions, 512 of 1024 dimensions",
        ),
        ModelRecord(
            name="gemma-300m-4bit",
            repo_id="mlx-community/embeddinggemma-300m-4bit",
            dimensions=None,
            matryoshka=True,
            licence="Gemma terms of use",
            description="EmbeddingGemma 300M, 4-bit: multilingual, task prompts, 768 dimensions",
        ),
        ModelRecord(
            name="minilm-l6-v2",
            repo_id="sentence-transformers/all-MiniLM-L6-v2",
            dimensions=None,
            matryoshka=False,
            licence="Apache-2.0",
            description="all-MiniLM-L6-v2: English, small and fast, 384 dimensions",
        ),
    )
}


def is_repository(name: str) -> bool:
    """Return whether "org/repo" or "org/repo@revision" names the repository of a model in `CATALOG`."""
    return name.partition("@")[0] in {record.repo_id for record in CATALOG.values()}


SUMMARY_CATALOG: dict[str, SummaryModelRecord] = {
    record.name: record
    for record in (
        SummaryModelRecord(
            name="qwen3-0.6b-chat-4bit",
            repo_id="mlx-community/Qwen3-0.6B-4bit",
            licence="Apache-2.0",
            description="Qwen3 0.6B, 4-bit: multilingual, 40 960 tokens of context",
        ),
        SummaryModelRecord(
            name="gemma-3-270m-it-4bit",
            repo_id="mlx-community/gemma-3-270m-it-4bit",
            licence="Gemma terms of use",
            description="Gemma 3 270M, 4-bit: small and fast, 32 768 tokens of context",
        ),
    )
}


RERANKER_CATALOG: dict[str, RerankerRecord] = {
    record.name: record
    for record in (
        RerankerRecord(
            name="ms-marco-minilm-l6-v2",
            repo_id="cross-encoder/ms-marco-MiniLM-L6-v2",
            licence="Apache-2.0",
            description="MiniLM-L6 trained on MS MARCO: English, small and fast",
        ),
        RerankerRecord(
            name="bge-reranker-base",
            repo_id="BAAI/bge-reranker-base",
            licence="MIT",
            description="XLM-RoBERTa base: English and Chinese",
        ),
        RerankerRecord(
            name="bge-reranker-v2-m3",
            repo_id="BAAI/bge-reranker-v2-m3",
            licence="Apache-2.0",
            description="XLM-RoBERTa large: multilingual",
        ),
        RerankerRecord(
            name="qwen3-reranker-0.6b",
            repo_id="Qwen/Qwen3-Reranker-0.6B",
            licence="Apache-2.0",
            description="Qwen3 0.6B that answers yes or no: multilingual, instructions",
        ),
    )
}
