"""The functions that an MlBridge calls, by their contract."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from akidb_mlx import ml_funcs
from akidb_mlx.errors import InvalidInputError, ModelNotFoundError
from model_cache import ModelUnavailableError
from tests.support import minilm_installed, run_python

needs_minilm = pytest.mark.skipif(not minilm_installed(), reason="all-MiniLM-L6-v2 is not installed")
MESSAGES = [
    "The harbour was closed on Monday because of the storm, and no ship could leave.",
    "A captain complained that nobody had told him in time.",
    "On Tuesday the wind fell and the harbour opened again.",
]


@pytest.fixture(autouse=True)
def _closed():
    yield
    ml_funcs.close()


@needs_minilm
def test_embeddings(minilm):
    vector = ml_funcs.generate_embedding("Hello, world!")
    assert len(vector) == 384
    assert all(type(value) is float for value in vector)
    assert math.isclose(math.fsum(value * value for value in vector), 1, abs_tol=1e-5)
    both = ml_funcs.generate_embeddings_batch(["Hello, world!", "Bonjour"])
    assert np.abs(np.array(both) - minilm.embed_array(["Hello, world!", "Bonjour"])).max() <= 1e-6
    assert ml_funcs.generate_embeddings_batch([]) == []
    with pytest.raises(InvalidInputError, match="text 0"):
        ml_funcs.generate_embedding(3)


@pytest.mark.usefixtures("english")
def test_entities():
    assert ml_funcs.extract_entities("Alice met Bob in Paris") == [
        {"text": "Alice", "label": "PERSON", "start": 0, "end": 5},
        {"text": "Bob", "label": "PERSON", "start": 10, "end": 13},
        {"text": "Paris", "label": "GPE", "start": 17, "end": 22},
    ]
    assert ml_funcs.extract_entities("") == []


@needs_minilm
def test_a_summary_is_of_the_messages():
    text = ml_funcs.summarize(MESSAGES)
    assert text == "\n".join(MESSAGES)  # which are short enough to be their own
    assert ml_funcs.summarize([]) == ""
    long = [f"{message} It is number {number}." for number in range(40) for message in MESSAGES]
    short = ml_funcs.summarize(long)
    assert 0 < len(short.split()) <= 120
    assert all(line in "\n".join(long) for line in short.splitlines())


@needs_minilm
def test_threads_share_one_of_each(monkeypatch):
    made = []
    make = ml_funcs._embedder._make
    monkeypatch.setattr(ml_funcs._embedder, "_make", lambda: made.append(threading.get_ident()) or make())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ml_funcs.generate_embedding, ["Hello, world!"] * 16))
    assert len(made) == 1
    assert np.ptp(np.array(found), axis=0).max() <= 1e-6
    ml_funcs.close()
    ml_funcs.generate_embedding("again")
    assert len(made) == 2


def test_what_cannot_be_made_is_tried_again(monkeypatch):
    monkeypatch.setattr("model_cache.packages.PACKAGES", ())
    for _ in range(2):
        with pytest.raises((ModelNotFoundError, ModelUnavailableError), match="all-MiniLM-L6-v2"):
            ml_funcs.generate_embedding("a")
    assert not ml_funcs.health_check()


@needs_minilm
@pytest.mark.usefixtures("english")
def test_health():
    assert ml_funcs.health_check() is True


def test_importing_it_loads_nothing():
    heavy = "('mlx', 'numpy', 'spacy', 'transformers', 'mlx_lm', 'huggingface_hub')"
    done = run_python(f"import sys, akidb_mlx.ml_funcs; print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout == "[]\n", done.stderr
