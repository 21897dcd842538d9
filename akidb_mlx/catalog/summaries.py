"""Generative models for summaries, by what their cards state."""

from __future__ import annotations

from akidb_mlx.catalog.record import SummaryModelRecord

SUMMARY_MODELS = (
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
