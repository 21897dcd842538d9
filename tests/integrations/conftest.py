"""Fixtures of the adapters' tests, which run without those of the other tests."""

from pathlib import Path

import pytest

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
