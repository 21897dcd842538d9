"""The dictionaries in which a Summarizer reports its model and its health."""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from akidb_mlx.reports import ModelStatus


class BackendInfo(TypedDict):
    """The model that makes the summaries; see `SummarizerInfo`."""

    model_name: NotRequired[str]
    backend: str
    device: str
    precision: str
    quantization: str | None
    revision: NotRequired[str | None]
    path: NotRequired[str]
    weight_bytes: int
    status: ModelStatus
    context_tokens: NotRequired[int]
    kv_bytes_per_token: NotRequired[int]


class SummarizerInfo(BackendInfo):
    """The model that makes the summaries, and how it runs.

    The keys that it shares with `akidb_mlx.reports.ModelInfo` mean the same: those of the language model, or of the
    embedder. A language model's also has `context_tokens`, the most tokens of a prompt and its answer, and
    `kv_bytes_per_token`, the memory that a token of them takes.

    Attributes:
        mode: "abstractive" or "extractive".
    """

    mode: str


class SummarizerHealth(TypedDict):
    """The health of a summariser, with the reason."""

    status: Literal["ok", "degraded", "failed"]
    reason: str
