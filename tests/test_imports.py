"""The cost of importing, the public names, and the allowed directions of imports between the layers of the package."""

import ast
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import akidb_mlx
from akidb_mlx import errors
from tests.support import GOLDENS, run_python

ROOT = Path(akidb_mlx.__file__).parent.parent

# The modules of each layer; those below a name belong to it unless they are listed themselves.
LAYERS = {
    "errors": ["akidb_mlx.errors", "akidb_mlx.deadline"],
    "values": [
        f"akidb_mlx.{name}"
        for name in ("closeable", "catalog", "texts", "quantized", "vectors", "options", "reports", "local_paths")
    ],
    "settings": ["akidb_mlx.settings", "akidb_mlx.toml_file"],
    "runtime": ["akidb_mlx.runtime"],
    "checkpoint": ["akidb_mlx.checkpoint"],
    "embedder": ["akidb_mlx.embedder"],
    "backend interface": ["akidb_mlx.engine.backend"],
    "fidelity": ["akidb_mlx.fidelity"],
    "engine": ["akidb_mlx.engine"],
    "backends": ["akidb_mlx.backends"],
    "llama_cpp": ["akidb_mlx.backends.llama_cpp"],
    "service": [
        f"akidb_mlx.{name}"
        for name in ("resolve", "loading", "text_model", "service", "pool", "pool_manager", "pool_models")
    ],
    "reranking": ["akidb_mlx.reranking"],
    "quantization": ["akidb_mlx.quantization"],
    "selection": ["akidb_mlx.selection"],
    "sparse": ["akidb_mlx.sparse"],
    "multi_vector": ["akidb_mlx.multi_vector"],
    "entities": ["akidb_mlx.entities"],
    "summarization": ["akidb_mlx.summarization"],
    "remote": ["akidb_mlx.remote"],
    "ml_funcs": ["akidb_mlx.ml_funcs"],
    "bulk": ["akidb_mlx.bulk"],
    "supervision": ["akidb_mlx.supervision"],
    "stdio": ["akidb_mlx.stdio"],
    "integrations": ["akidb_mlx.integrations"],
    "server": ["akidb_mlx.server"],
    "cli": ["akidb_mlx.cli", "akidb_mlx.__main__", "akidb_mlx.stdio.__main__"],
    "embedded_db": ["embedded_db"],
    "model_cache": ["model_cache"],
    "mlx": ["mlx"],
    "mlx_lm": ["mlx_lm"],
}
# The layers that each layer may import, beside itself.
BELOW = {
    "errors": set(),
    "values": {"errors", "model_cache"},
    "settings": {"errors", "values", "model_cache"},
    "supervision": {"errors"},
    "runtime": {"errors", "settings", "mlx"},
    "checkpoint": {"errors", "values", "runtime", "model_cache"},
    "embedder": {"errors", "values", "runtime"},
    "fidelity": {"errors", "values", "embedder"},
    "backend interface": {"errors", "values"},
    "engine": {"errors", "values", "runtime", "backend interface"},
    "backends": {"errors", "values", "settings", "runtime", "checkpoint", "backend interface", "mlx"},
    "entities": {"errors", "values", "settings", "runtime", "model_cache"},
    "model_cache": set(),
}
BELOW["llama_cpp"] = BELOW["backends"] | {"backends"}
_LIBRARY = {
    "errors",
    "values",
    "settings",
    "runtime",
    "checkpoint",
    "embedder",
    "backend interface",
    "engine",
    "backends",
    "fidelity",
}
BELOW["service"] = _LIBRARY | {"llama_cpp", "remote", "model_cache"}
BELOW["summarization"] = _LIBRARY - {"backends"} | {"service", "llama_cpp", "remote", "model_cache", "mlx", "mlx_lm"}
BELOW["reranking"] = BELOW["sparse"] = BELOW["multi_vector"] = BELOW["service"] | {"service"}
BELOW["remote"] = {"errors", "values", "settings", "runtime", "checkpoint", "embedder", "engine"}
BELOW["bulk"] = BELOW["service"] | {"service"}
BELOW["selection"] = {"errors", "values", "embedder", "model_cache"}
BELOW["quantization"] = BELOW["service"] | {"service", "reranking", "mlx"}
BELOW["ml_funcs"] = BELOW["service"] | {"service", "entities", "summarization"}
BELOW["embedded_db"] = BELOW["service"] | {"service", "entities", "summarization"}
BELOW["server"] = BELOW["ml_funcs"] | {"ml_funcs", "reranking", "top"}
BELOW["stdio"] = BELOW["integrations"] = BELOW["service"] | {"service"}
BELOW["cli"] = BELOW["server"] | {
    "server",
    "quantization",
    "stdio",
    "supervision",
    "selection",
    "embedded_db",
    "remote",
    "bulk",
}
# The package itself re-exports names of all layers on demand.
BELOW["top"] = BELOW["ml_funcs"] | {"ml_funcs", "reranking", "sparse", "multi_vector", "selection"}

HEAVY = (
    *("transformers", "torch", "mlx", "mlx_lm", "spacy", "numpy", "tokenizers", "pydantic", "starlette", "uvicorn"),
    *("sklearn", "scipy", "openai", "llama_cpp", "onnxruntime", "onnx", "apsw", "psycopg"),
    *("pyarrow", "fsspec", "ray"),
)


def test_the_public_names():
    errors_of_the_tree = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert set(akidb_mlx.__all__) == errors_of_the_tree | {
        *("Embedder", "EmbeddingService", "EmbeddingBatch", "EmbedOptions", "ModelInfo", "ServiceMetrics", "Health"),
        *("Reranker", "RerankerInfo", "RerankOptions", "ScoreBatch"),
        *("SparseEmbedder", "SparseBatch", "SparseVector", "SparseOptions", "TextModelInfo"),
        *("MultiVectorEmbedder", "MultiVectorBatch", "MultiVectorOptions"),
        *("Selector", "Router", "Route"),
        *("ModelPool", "Entity", "EntityExtractor", "Summarizer", "Settings", "__version__"),
        *("calibration_ranges", "dequantize", "hamming_distances", "quantize", "rescore"),
    }
    assert dir(akidb_mlx) == akidb_mlx.__all__
    assert all(getattr(akidb_mlx, name) for name in akidb_mlx.__all__)


def test_errors_are_one_tree():
    tree = {
        name: kind.__mro__[1].__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert tree == {
        "AkidbMlxError": "Exception",
        "ConfigurationError": "AkidbMlxError",
        "InvalidInputError": "AkidbMlxError",
        "ModelNotFoundError": "AkidbMlxError",
        "ModelLoadError": "AkidbMlxError",
        "InferenceError": "AkidbMlxError",
        "RemoteServiceError": "AkidbMlxError",
        "NotTrainedError": "AkidbMlxError",
        "DeadlineExceededError": "AkidbMlxError",
        "ServiceOverloadedError": "AkidbMlxError",
        "ReentrantCallError": "AkidbMlxError",
        "ServiceClosedError": "AkidbMlxError",
    }
    assert all(name in errors.__doc__ for name in tree)


def test_importing_brings_in_nothing_heavy():
    done = run_python(f"import akidb_mlx, sys; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert done.stdout == "[]\n"


def test_a_loaded_service_brings_in_no_other_framework():
    done = run_python(
        "import akidb_mlx, sys\n"
        f"akidb_mlx.EmbeddingService({str(GOLDENS / 'tiny-qwen3')!r}, device='cpu').embed(['a'])\n"
        "print([m for m in ('transformers', 'torch', 'mlx_lm', 'spacy', 'mlx.nn') if m in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_model_brings_in_no_reader_of_other_kinds():
    """Each takes time whenever a process starts."""
    others = (
        *("akidb_mlx.fidelity.card", "akidb_mlx.checkpoint.gguf", "akidb_mlx.checkpoint.sparse_head"),
        *("akidb_mlx.checkpoint.multi_vector_head", "akidb_mlx.checkpoint.scoring"),
        *("akidb_mlx.checkpoint.architectures.rotary", "akidb_mlx.checkpoint.architectures.decoder"),
    )
    done = run_python(
        "import akidb_mlx, sys\n"
        f"akidb_mlx.EmbeddingService({str(GOLDENS / 'tiny-bert')!r}, device='cpu').embed(['a'])\n"
        f"print([module for module in {others!r} if module in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_command_brings_in_no_other():
    done = run_python(
        "import sys\n"
        "from akidb_mlx.cli.commands import create_app, select_commands\n"
        "create_app(select_commands(['serve', 'embed']))\n"
        "others = ('embed', 'rerank', 'database', 'models', 'quantize')\n"
        "print([name for name in others if f'akidb_mlx.cli.{name}' in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_the_server_brings_in_the_library_for_metrics_at_the_first_scrape():
    pytest.importorskip("prometheus_client")
    done = run_python("import akidb_mlx.server.app, sys; print('prometheus_client' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_a_summariser_brings_in_no_other_framework_before_a_model_is_loaded():
    done = run_python(
        "import sys, akidb_mlx.summarization, akidb_mlx.cli.commands\n"
        "akidb_mlx.cli.commands.create_app()\n"
        "print([m for m in ('transformers', 'torch', 'mlx', 'mlx_lm', 'spacy', 'sentencex') if m in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_model_cache_knows_neither_mlx_nor_the_service():
    done = run_python("import model_cache, sys; print([m for m in ('mlx', 'akidb_mlx', 'numpy') if m in sys.modules])")
    assert done.stdout == "[]\n"


def test_only_the_lowest_layer_imports_mlx():
    """Everything above it can be imported without MLX on the machine."""
    done = run_python(
        "import sys; sys.modules['mlx'] = None\n"
        "import model_cache, akidb_mlx.cli.commands, akidb_mlx.service, akidb_mlx.engine.engine\n"
        "akidb_mlx.cli.commands.create_app()"
    )
    assert done.returncode == 0, done.stderr


def layer_of(module: str) -> str | None:
    """Return the layer of a module or of a name in it; None for the standard library and other packages."""
    if module == "akidb_mlx":
        return "top"
    layers = [
        (len(name), layer) for layer, names in LAYERS.items() for name in names if f"{module}.".startswith(f"{name}.")
    ]
    return max(layers)[1] if layers else None


def imported(source: str) -> Iterator[str]:
    """Yield every module, or name of a module, that a source imports: in functions and for type checking too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            for name in node.names:
                qualified = f"{node.module}.{name.name}"
                yield "akidb_mlx" if node.module == "akidb_mlx" and layer_of(qualified) is None else qualified


def upward_imports(module: str, source: str) -> list[str]:
    """Return the imports of a module that its layer does not allow."""
    own = layer_of(module)
    assert own is not None, f"{module} belongs to no layer: add it to LAYERS"
    allowed = BELOW[own] | {own}
    return [f"{module} imports {name}" for name in imported(source) if (layer_of(name) or own) not in allowed]


def test_no_layer_imports_one_above_it():
    sources = [
        path for package in ("akidb_mlx", "embedded_db", "model_cache") for path in (ROOT / package).rglob("*.py")
    ]
    assert len(sources) > 60
    found = []
    for path in sources:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found += upward_imports(module, path.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(
    ("module", "source", "offends"),
    [
        ("akidb_mlx.engine.batching", "from akidb_mlx.service import EmbeddingService", True),
        ("akidb_mlx.backends.mlx.model", "from akidb_mlx.engine.backend import TokenRows", False),
        ("akidb_mlx.backends.mlx.model", "from akidb_mlx.engine import backend", False),
        ("akidb_mlx.backends.mlx.model", "from akidb_mlx.engine import requests", True),
        ("akidb_mlx.backends.onnx.model", "if TYPE_CHECKING:\n    from akidb_mlx.engine.requests import Request", True),
        ("akidb_mlx.pool", "def load():\n    import mlx.core as mx", True),
        ("akidb_mlx.runtime.cpu_runtime", "import mlx.core as mx", False),
        ("akidb_mlx.runtime.locks", "from akidb_mlx.vectors import Vectors", True),
        ("akidb_mlx.backends.mlx.weights", "from mlx_lm.utils import load", True),
        ("akidb_mlx.summarization.language_model", "from mlx_lm.utils import load", False),
        ("akidb_mlx.summarization.extractive", "from akidb_mlx import EmbeddingService", True),
        ("akidb_mlx.summarization.language_model", "from akidb_mlx.backends.mlx import plan", True),
        ("akidb_mlx.entities.extractor", "from akidb_mlx.service import EmbeddingService", True),
        ("akidb_mlx.cli.doctor", "from akidb_mlx import __version__", False),
        ("akidb_mlx.service", "from akidb_mlx.reranking import Reranker", True),
        ("akidb_mlx.texts", "import json, numpy", False),
        ("model_cache.store", "import akidb_mlx.errors", True),
    ],
)
def test_an_import_of_a_layer_above_is_found(module, source, offends):
    assert bool(upward_imports(module, source)) == offends


def test_a_module_without_a_layer_is_found():
    with pytest.raises(AssertionError, match="belongs to no layer"):
        upward_imports("akidb_mlx.new_module", "import json")


@pytest.mark.timing
def test_importing_is_quick():
    """Well under 0.15 s over the bare interpreter; the bound is loose for a busy machine."""

    def seconds(code):
        start = time.perf_counter()
        run_python(code)
        return time.perf_counter() - start

    bare = statistics.median(seconds("pass") for _ in range(5))
    assert statistics.median(seconds("import akidb_mlx") for _ in range(5)) - bare < 0.15
