"""What importing costs, and which names are public."""

import statistics
import time

import akidb_mlx
from akidb_mlx import errors
from tests.support import GOLDENS, run_python

HEAVY = ("transformers", "torch", "mlx", "mlx_lm", "spacy", "numpy", "tokenizers", "pydantic")


def test_the_public_names():
    errors_of_the_tree = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert set(akidb_mlx.__all__) == errors_of_the_tree | {
        *("Embedder", "EmbeddingService", "EmbeddingBatch", "EmbedOptions", "ModelInfo", "ServiceMetrics", "Health"),
        *("ModelPool", "Entity", "EntityExtractor", "Summarizer", "Settings", "__version__"),
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


def test_a_summariser_brings_in_no_other_framework_before_a_model_is_loaded():
    done = run_python(
        "import sys, akidb_mlx.summarization, akidb_mlx.cli\n"
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
        "import model_cache, akidb_mlx.cli, akidb_mlx.service, akidb_mlx.engine.engine"
    )
    assert done.returncode == 0, done.stderr


def test_importing_is_quick():
    """Well under 0.15 s over the bare interpreter; the bound is loose for a busy machine."""

    def seconds(code):
        start = time.perf_counter()
        run_python(code)
        return time.perf_counter() - start

    bare = statistics.median(seconds("pass") for _ in range(5))
    assert statistics.median(seconds("import akidb_mlx") for _ in range(5)) - bare < 0.15
