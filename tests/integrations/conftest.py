"""Fixtures of the adapters' tests, which run without those of the other tests."""

import os
from pathlib import Path

import pytest

# Before a framework or the Hub's client is imported.
os.environ.update(
    AKIDB_DEVICE="cpu",
    AKIDB_CONFIG=os.devnull,
    HF_HUB_OFFLINE="1",
    ANONYMIZED_TELEMETRY="False",
    HAYSTACK_TELEMETRY_ENABLED="False",
)

GOLDENS = Path(__file__).parent.parent / "goldens"


@pytest.fixture(scope="session")
def model() -> str:
    """A tiny model with one prompt for queries and one for documents."""
    return str(GOLDENS / "tiny-gemma3")


@pytest.fixture(scope="session")
def service(model):
    from akidb_mlx import EmbeddingService

    with EmbeddingService(model) as one:
        yield one


@pytest.fixture
def texts() -> list[str]:
    return ["a cat sat on the mat", "stocks fell sharply", "the dog chased the ball", "interest rates rose", ""]
