"""The functions that an MlBridge calls, by their contract."""

import math
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from akidb_mlx import Summarizer, ml_funcs
from akidb_mlx.errors import InvalidInputError, ModelNotFoundError, ReentrantCallError
from model_cache import ModelUnavailableError
from tests.fake_embedder import DIMENSION, FakeEmbedder
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


@needs_minilm
@pytest.mark.usefixtures("minilm")
def test_dimensions_of_the_settings_are_for_other_models(monkeypatch):
    """The functions promise 384 values, and summaries choose their embedder themselves."""
    monkeypatch.setenv("AKIDB_DIMENSIONS", "1024")
    assert len(ml_funcs.generate_embedding("Hello, world!")) == 384
    with Summarizer(device="cpu") as summarizer:
        assert summarizer.summarize(MESSAGES) == "\n".join(MESSAGES)


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


@pytest.fixture
def fakes(monkeypatch) -> list[FakeEmbedder]:
    """The embedders without a model that were made in place of services, the latest last."""
    made: list[FakeEmbedder] = []
    monkeypatch.setattr(ml_funcs._embedder, "_make", lambda: made.append(FakeEmbedder()) or made[-1])
    return made


@pytest.mark.parametrize("status", ["failed", "closed"])
def test_an_embedder_that_ended_is_replaced_by_the_next_call(fakes, status):
    ml_funcs.generate_embedding("a")
    fakes[0].status = status
    assert len(ml_funcs.generate_embedding("a")) == DIMENSION
    assert fakes[0].freed.is_set()
    ml_funcs.generate_embedding("a")
    assert len(fakes) == 2


def test_a_summariser_whose_embedder_ended_is_replaced_with_it(fakes):
    pytest.importorskip("sentencex")
    long = [f"{message} It is number {number}." for number in range(40) for message in MESSAGES]
    for status in ("ready", "failed", "closed"):
        if fakes:
            fakes[-1].status = status
        assert ml_funcs.summarize(long)
    assert len(fakes) == 3


@pytest.mark.usefixtures("english")
def test_an_extractor_that_was_closed_is_replaced():
    assert ml_funcs.extract_entities("Alice met Bob in Paris")
    ml_funcs._extractor.get().close()
    assert ml_funcs.extract_entities("Alice met Bob in Paris")


class NativePanic(BaseException):
    """Stands for a panic of Rust code, which is no Exception."""


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, OSError, ReentrantCallError, NativePanic])
def test_health_is_a_bool_whatever_goes_wrong(fakes, monkeypatch, caplog, error):
    monkeypatch.setattr(FakeEmbedder, "submit", lambda *_, **__: (_ for _ in ()).throw(error("the cause")))
    assert ml_funcs.health_check() is False
    assert f"{error.__name__}: the cause" in caplog.text
    assert fakes


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_health_leaves_the_ends_of_a_process_alone(fakes, monkeypatch, error):
    monkeypatch.setattr(FakeEmbedder, "submit", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(error):
        ml_funcs.health_check()
    assert fakes


def test_a_written_summary_loads_no_embedder(fakes, monkeypatch):
    class Written:
        def __init__(self, **_: object) -> None:
            pass

        def get_model_info(self) -> dict[str, str]:
            return {"status": "ready"}

        def summarize(self, _: list[str]) -> str:
            return "written"

        def close(self) -> None:
            pass

    monkeypatch.setattr("akidb_mlx.summarization.summarizer.Summarizer", Written)
    monkeypatch.setenv("AKIDB_SUMMARY_MODE", "abstractive")
    assert ml_funcs.summarize(MESSAGES) == "written"
    assert not fakes
    ml_funcs.close()
    monkeypatch.setenv("AKIDB_SUMMARY_MODE", "extractive")
    assert ml_funcs.summarize(MESSAGES) == "written"
    assert len(fakes) == 1


def test_a_signal_handler_gets_an_error_at_once(monkeypatch):
    """It interrupts the thread that makes the embedder."""
    outcomes: list[BaseException] = []

    def handle(*_: object) -> None:
        try:
            ml_funcs.generate_embedding("a")
        except ReentrantCallError as error:
            outcomes.append(error)

    def make() -> FakeEmbedder:
        signal.raise_signal(signal.SIGUSR1)
        return FakeEmbedder()

    before = signal.signal(signal.SIGUSR1, handle)
    monkeypatch.setattr(ml_funcs._embedder, "_make", make)
    try:
        assert ml_funcs.generate_embedding("a")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(outcomes) == 1


def test_one_model_that_loads_slowly_holds_up_no_other(fakes, monkeypatch):
    gate, begun = threading.Event(), threading.Event()

    def make() -> None:
        begun.set()
        assert gate.wait(60)
        raise ModelNotFoundError("no such model")

    monkeypatch.setattr(ml_funcs._extractor, "_make", make)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(ml_funcs.extract_entities, "Alice met Bob in Paris")
        assert begun.wait(60)
        assert ml_funcs.generate_embedding("a")
        gate.set()
        with pytest.raises(ModelNotFoundError):
            slow.result(60)
    assert fakes


def test_importing_it_loads_nothing():
    heavy = "('mlx', 'numpy', 'spacy', 'transformers', 'mlx_lm', 'huggingface_hub')"
    done = run_python(f"import sys, akidb_mlx.ml_funcs; print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout == "[]\n", done.stderr
