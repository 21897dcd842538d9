"""The dictionaries in which an embedder reports its model, its work and its health."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

ModelStatus = Literal["loading", "ready", "closed", "failed"]


class RunningModelInfo(TypedDict):
    """A model and how it runs, as every class reports it that computes with one.

    Attributes:
        model_name: the name that it was asked for by.
        max_tokens: most tokens of one text or pair, special tokens included.
        backend: the library that computes: "mlx", "onnx", "llama.cpp", or "numpy" for a static model; "openai" where an
            API does.
        device: "cpu" or "gpu", or "remote".
        precision: type of the activations, as in "float32".
        allow_tf32: whether the device rounds the factors of float32 products to TF32, as was tried at load.
        quantization: how the weights are packed; None where none are.
        prompts: names of the model's prompts.
        default_prompt: the prompt that its files name as the default. An `EmbeddingService` applies it only where
            `input_type` names it, a `Reranker` to every call without a prompt.
        architecture: `model_type` in config.json.
        revision: commit of the repository, or None.
        path: directory of the files.
        weight_bytes: memory that the weights take.
        memory: bytes that the device's allocator holds in this process: `active`, `cached` for reuse, and the `peak` of
            the active ones.
        status: "ready", "loading" again after the owner thread died, "closed" or "failed".
    """

    model_name: str
    max_tokens: int
    backend: str
    device: str
    precision: str
    allow_tf32: bool
    quantization: str | None
    prompts: list[str]
    default_prompt: str | None
    architecture: str
    revision: str | None
    path: str
    weight_bytes: int
    memory: dict[str, int]
    status: ModelStatus


class ModelInfo(RunningModelInfo):
    """An embedding model and how it runs.

    Attributes:
        dimension: how many values a vector has unless a call says otherwise.
        native_dimension: how many values the model computes.
        pooling: how token vectors become one vector, as in "mean", "cls" or "last"; "cls+mean" for two side by side.
        pooling_source: the file or rule that says so.
        matryoshka: whether it was trained so that a vector's first values are a vector themselves.
        fidelity: the fidelity card beside its weights; None where there is none.
    """

    dimension: int
    native_dimension: int
    pooling: str
    pooling_source: str
    matryoshka: bool
    fidelity: dict[str, Any] | None


class TextModelInfo(RunningModelInfo):
    """A sparse or multi-vector model and how it runs.

    Attributes:
        dimension: size of a vector.
    """

    dimension: int


class CallCounts(TypedDict):
    """Counts of calls by the way that they ended."""

    completed: int
    failed: int
    cancelled: int
    timed_out: int
    refused: int


class HistogramReport(TypedDict):
    """A histogram of times.

    Attributes:
        count: how often it was timed.
        sum: seconds in all.
        buckets: for each upper bound in seconds, and for "+Inf", how many times were not above it.
    """

    count: int
    sum: float
    buckets: dict[str, int]


class QueueDepth(TypedDict):
    """Calls that are not done, and tokens that wait."""

    requests: int
    tokens: int


class EngineMetrics(TypedDict):
    """The work of an engine since it was created.

    Attributes:
        calls: how many ended in which way.
        texts: texts that were tokenised.
        truncated_texts: those of them that were cut.
        sequences: token sequences that were computed.
        shared_sequences: sequences that were equal to one of those, and so not computed again.
        batches: batches that were computed.
        tokens: tokens that were computed, without padding.
        padding_ratio: share of the computed tokens that was padding.
        batch_fill: computed tokens, with padding, divided by those that the token budget allows.
        latency_s: a histogram of each phase: "tokenize", "wait" in the queue, "device_wait" for other models of this
            process, "compute" and "finish" of a step, and the whole "call".
    """

    calls: CallCounts
    texts: int
    truncated_texts: int
    sequences: int
    shared_sequences: int
    batches: int
    tokens: int
    padding_ratio: float
    batch_fill: float
    latency_s: dict[str, HistogramReport]


class ServiceMetrics(EngineMetrics):
    """The work of a service since it was created, with its queue and memory now."""

    queue: QueueDepth
    memory: dict[str, int]


class Health(TypedDict):
    """The health of an embedder.

    Attributes:
        status: "ok"; "degraded" while the model loads, the queue is full, or after the owner thread had to be replaced;
            "failed" when it is closed, the owner thread died, or a forward pass hangs.
        reason: the cause, for a person.
        engine: the status in `ModelInfo`.
    """

    status: Literal["ok", "degraded", "failed"]
    reason: str
    engine: ModelStatus
