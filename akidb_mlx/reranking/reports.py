"""The dictionary in which a reranker reports its model."""

from __future__ import annotations

from typing_extensions import TypedDict

from akidb_mlx.reports import ModelStatus


class RerankerInfo(TypedDict):
    """A reranker's model and how it runs.

    Attributes:
        model_name: the name that it was asked for by.
        labels: the names of its labels; a pair has a score for each.
        activation: the function of the scores, by the name of its class in torch.nn.
        scoring_source: the files or the rule that say how pairs are scored.
        max_tokens: most tokens of a pair, special tokens included.
        backend: the library that computes, as in "mlx".
        device: "cpu" or "gpu".
        precision: type of the activations, as in "float32".
        allow_tf32: whether the device rounds the factors of float32 products to TF32, as was tried at load.
        quantization: how the weights are packed; None where none are.
        prompts: names of the model's prompts.
        default_prompt: the one that a call without a prompt gets.
        architecture: `model_type` in config.json.
        revision: commit of the repository, or None.
        path: directory of the files.
        weight_bytes: memory that the weights take.
        memory: bytes that the device's allocator holds in this process: `active`, `cached` for reuse, and the `peak` of
            the active ones.
        status: "ready", "loading" again after the owner thread died, "closed" or "failed".
    """

    model_name: str
    labels: list[str]
    activation: str
    scoring_source: str
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
