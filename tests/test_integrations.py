"""The adapters without their frameworks: the module that they share, and the extras that they name."""

import asyncio
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.integrations import shared
from akidb_mlx.integrations.shared import RoleEmbedder
from tests.fake_embedder import FakeEmbedder
from tests.support import GOLDENS, run_python

ROOT = Path(__file__).parent.parent
GEMMA = str(GOLDENS / "tiny-gemma3")
# The module that each adapter imports first.
FRAMEWORKS = {
    "chroma": "chromadb",
    "haystack": "haystack",
    "lancedb": "lancedb",
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "llm": "llm",
    "mteb": "mteb",
}


@pytest.mark.parametrize("adapter", FRAMEWORKS)
def test_an_adapter_without_its_framework_names_the_extra(monkeypatch, adapter):
    for module in [FRAMEWORKS[adapter], f"{FRAMEWORKS[adapter]}.core"]:
        monkeypatch.setitem(sys.modules, module, None)
    extra = adapter.replace("_", "-")
    with pytest.raises(ImportError, match=re.escape(f"pip install 'akidb-mlx[{extra}]'")):
        import_module(f"akidb_mlx.integrations.{adapter}")
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    requirement = re.search(rf'^{extra} = \["[\w-]+>=[\d.]+,<[\d.]+"\]$', metadata, re.MULTILINE)
    assert requirement, f"pyproject.toml has no extra {extra} with bounds"


def test_each_adapter_is_tested_with_its_framework():
    adapters = {path.stem for path in (ROOT / "akidb_mlx" / "integrations").glob("*.py")}
    assert adapters == {"__init__", "shared", "sentence_transformers", "similarity", *FRAMEWORKS}
    assert {path.stem for path in (ROOT / "tests" / "integrations").glob("test_*.py")} == {
        f"test_{adapter}" for adapter in FRAMEWORKS
    }


def test_importing_an_adapter_loads_no_model():
    heavy = ("mlx", "numpy", "tokenizers")
    code = f"import sys, akidb_mlx.integrations.shared; print([m for m in {heavy!r} if m in sys.modules])"
    assert run_python(code).stdout == "[]\n"


def test_adapters_share_a_model_for_as_long_as_one_uses_it():
    one, other = RoleEmbedder(GEMMA, device="cpu"), RoleEmbedder(GEMMA, device="cpu", dimensions=8)
    assert one.embedder is other.embedder
    assert (one.dimension, other.dimension) == (64, 8)
    one.embedder.close()
    again = RoleEmbedder(GEMMA, device="cpu")
    assert again.embedder is not one.embedder  # which takes no calls any more
    assert (GEMMA, "cpu") in shared._embedders
    del again
    assert (GEMMA, "cpu") not in shared._embedders


def test_texts_get_the_prompt_of_their_role(service):
    gemma = service("tiny-gemma3")
    embedder = RoleEmbedder(gemma)
    for input_type in ("query", "document", None):
        expected = gemma.embed_array(["a text"], input_type=input_type)
        assert np.array_equal(embedder.embed(["a text"], input_type), expected)
        assert np.array_equal(asyncio.run(embedder.aembed(["a text"], input_type)), expected)


def test_options_are_checked_at_once_and_cut_texts_are_reported(service, caplog):
    with pytest.raises(InvalidInputError, match="dimensions"):
        RoleEmbedder(FakeEmbedder(), dimensions=17)
    gemma = service("tiny-gemma3")
    long = "word " * 3000
    RoleEmbedder(gemma).embed(["short"], None)
    assert not caplog.records
    RoleEmbedder(gemma).embed(["short", long], None)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"1 of 2 texts were cut to {gemma.max_tokens} tokens")
    with pytest.raises(InvalidInputError, match="text 0"):
        RoleEmbedder(gemma, on_overflow="error").embed([long], None)
