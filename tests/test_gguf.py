"""GGUF files without llama.cpp: their headers, damaged and hostile ones, and the refusal where it is not installed."""

import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, Reranker
from akidb_mlx.backends.llama_cpp import runtime
from akidb_mlx.checkpoint.gguf import read_header
from akidb_mlx.checkpoint.gguf_model import read_gguf
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelLoadError, ModelNotFoundError
from akidb_mlx.settings import Settings
from tests.gguf_files import CLS, LAST, MEAN, RANK, header, string, tensor, value, write_bert, write_gguf, write_qwen3
from tests.support import GOLDENS


def test_a_file_is_described_by_its_header(tmp_path):
    bert, qwen3 = read_gguf(write_bert(tmp_path / "b.gguf")), read_gguf(write_qwen3(tmp_path / "q.gguf"))
    assert (bert.model_type, bert.max_tokens, bert.pooling) == ("bert", 256, "mean")
    assert (qwen3.model_type, qwen3.max_tokens, qwen3.pooling) == ("qwen3", 512, "last")
    assert bert.pooling_source == "bert.pooling_type in b.gguf"
    assert qwen3.quantization_summary is None
    assert bert.gguf.weight_bytes > 0.9 * (tmp_path / "b.gguf").stat().st_size
    assert bert.encoder_config.hidden_size == 64


def test_the_packing_of_most_weights_is_told(tmp_path):
    file = tmp_path / "m.gguf"
    tensors = [tensor("a", (256, 4), 0, kind=12), tensor("b", (32,), 576, kind=0), tensor("c", (32, 2), 704, kind=8)]
    file.write_bytes(header({"general.architecture": "bert"}, tensors) + bytes(1000))
    found = read_header(file)
    assert found.type_bytes == {"Q4_K": 4 * 144, "F32": 128, "Q8_0": 68}
    assert found.quantization == "Q4_K"


# Files that are damaged or made to harm


def _refused(file: Path, content: bytes, words: str) -> None:
    file.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ModelLoadError, match=words) as caught:
        read_gguf(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(file))
    assert "\n" not in str(caught.value)


_ENTRIES = {"general.architecture": "bert"}
_LARGE = (1 << 64) - 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a GGUF file"),
        (b"GGUF", "is cut off"),
        (b"PK\x03\x04" + bytes(100), "begins with"),
        (b"FUGG" + bytes(100), "begins with"),
        (header(_ENTRIES, [], version=1), "version is 1"),
        (header(_ENTRIES, [], version=3 << 24), "version is"),  # of the other byte order
        (header(_ENTRIES, [], entry_count=1_000_000), "1000000 entries, more than"),
        (header(_ENTRIES, [], entry_count=_LARGE), "entries, more than"),
        (header(_ENTRIES, [], entry_count=4000), "is cut off|not known|UTF-8|two entries"),
        (header(_ENTRIES, [], tensor_count=_LARGE), "tensors, more than"),
        (header({"a": struct.pack("<IQ", 8, _LARGE)}, []), "bytes of a, more than"),
        (header({"a": struct.pack("<I", 99)}, []), "type 99"),
        (header({"a": struct.pack("<IIQ", 9, 4, _LARGE)}, []), "values of 'a', more than"),
        (header({"a": struct.pack("<IIQ", 9, 4, 1 << 20)}, []), "is cut off"),
        (header({"a": struct.pack("<IIQ", 9, 8, 1 << 20)}, []), "is cut off"),
        (header({"a": struct.pack("<IIQQ", 9, 8, 2, _LARGE)}, []), "is cut off"),
        (header({"a": struct.pack("<IIQ", 9, 9, 1)}, []), "list of the type 9"),
        (header({"a": struct.pack("<I", 8) + string(b"\xff\xfe")}, []), "not UTF-8"),
        (header({"a\ud800".encode("utf-8", "surrogatepass").decode("latin1"): 1}, []), "general.architecture"),
        (header(_ENTRIES | {"general.alignment": 3}, []), "alignment is 3"),
        (header(_ENTRIES | {"general.alignment": 0}, []), "alignment is 0"),
        (header(_ENTRIES | {"general.alignment": "x"}, []), "alignment is 'x'"),
        (header(_ENTRIES, [tensor("t", (1 << 63, 2), 0)]), "impossible shape"),
        (header(_ENTRIES, [tensor("t", (_LARGE,), 0)]), "impossible shape"),  # -1
        (header(_ENTRIES, [tensor("t", (0,), 0)]), "impossible shape"),
        (header(_ENTRIES, [tensor("t", (), 0)]), "impossible shape"),
        (header(_ENTRIES, [tensor("t", (1,) * 9, 0)]), "9 axes"),
        (header(_ENTRIES, [tensor("t", (8,), 1 << 40)]), "beyond the file"),
        (header(_ENTRIES, [tensor("t", (8,), _LARGE - 31)]), "beyond the file"),
        (header(_ENTRIES, [tensor("t", (1 << 40,) * 4, 0)]), "beyond the file"),
        (header(_ENTRIES, [tensor("t", (8,), 1)]), "no multiple of 32"),
        (header(_ENTRIES, [tensor("t", (8,), 0, kind=999)]), "type 999"),
        (header(_ENTRIES, [tensor("t", (8,), 0, kind=12)]), "no multiple of 256"),
        (header(_ENTRIES, [tensor("t", (8,), 0), tensor("t", (8,), 32)]) + bytes(64), "two tensors 't'"),
        (header({"general.architecture": 7}, []), "must be a string, found 7"),
        (header({"general.architecture": "../x"}, []), "is no name"),
        (header(_ENTRIES, []), "bert.block_count"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_damaged_or_hostile_header_is_refused(tmp_path, content, words):
    _refused(tmp_path / "m.gguf", content, words)


def test_two_entries_of_one_key_are_refused(tmp_path):
    one = string("a") + value(1)
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + one + one
    _refused(tmp_path / "m.gguf", content, "two entries 'a'")


def test_a_file_that_is_cut_off_is_refused_wherever(tmp_path):
    content = write_bert(tmp_path / "whole.gguf").read_bytes()
    for size in (*range(0, 4000, 97), len(content) // 2, len(content) - 400):
        _refused(tmp_path / "cut.gguf", content[:size], "cut off|cannot be read|begins with|beyond")


def test_a_header_that_does_not_end_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("akidb_mlx.checkpoint.gguf._LONGEST_HEADER", 1000)
    content = write_bert(tmp_path / "whole.gguf").read_bytes()
    _refused(tmp_path / "m.gguf", content, "more than 1000 bytes")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bert__block_count": 0}, r"bert\.block_count must be an integer from 1"),
        ({"bert__block_count": 1_000_000}, "bert.block_count"),
        ({"bert__block_count": -3}, "found -3"),
        ({"bert__embedding_length": 1.5}, "found 1.5"),
        ({"bert__context_length": None}, "bert.context_length must be an integer .*found none"),
        ({"bert__context_length": True}, "found True"),
        ({"bert__attention__head_count": 0}, "head_count is 0"),
        ({"tokenizer__ggml__tokens": None}, "tokenizer.ggml.tokens must be a list"),
        ({"tokenizer__ggml__tokens": ["a", "b"]}, "token_type has 615 entries for 2 tokens"),
        ({"tokenizer__ggml__token_type": [1, 2]}, "has 2 entries for 615 tokens"),
        ({"tokenizer__ggml__eos_token_id": 615}, "eos_token_id must be an integer from 0 to 614, found 615"),
        ({"split__count": 3}, "one of 3 parts"),
        ({"tokenizer__ggml__tokens": ["a"] * 615}, "two of its tokens are equal"),
    ],
)
def test_sizes_that_no_model_has_are_refused(tmp_path, changes, words):
    file = write_bert(tmp_path / "m.gguf", **changes)
    with pytest.raises(ModelLoadError, match=words):
        read_gguf(file)


@pytest.mark.parametrize(
    ("pooling", "words"),
    [(None, "does not say how"), (0, "says 0 for how"), (RANK, "holds a reranker"), (9, "says 9 for how")],
)
def test_a_file_that_states_no_pooling_is_refused_by_name(tmp_path, pooling, words):
    file = write_bert(tmp_path / "m.gguf", pooling)
    with pytest.raises(ModelLoadError, match=words) as caught:
        read_gguf(file)
    assert "bert.pooling_type" in str(caught.value)


# Names and backends


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.setattr(runtime, "is_installed", lambda: False)


@pytest.mark.usefixtures("missing")
def test_without_the_package_a_file_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"")
    for backend in (None, "auto", "llama.cpp"):
        with pytest.raises(ConfigurationError, match=r"pip install 'akidb-mlx\[llama-cpp\]'"):
            EmbeddingService(file, backend=backend)


def test_other_backends_do_not_compute_such_files(tmp_path):
    file = write_bert(tmp_path / "m.gguf", MEAN)
    for backend in ("mlx", "onnx"):
        with pytest.raises(ConfigurationError, match=r"only llama\.cpp computes"):
            EmbeddingService(file, backend=backend)
    with pytest.raises(ConfigurationError, match=r"only llama\.cpp computes"):
        EmbeddingService(file, settings=Settings(backend="mlx"))
    with pytest.raises(ConfigurationError, match=r"only llama\.cpp computes"):
        EmbeddingService(file, onnx_file="model.onnx")
    with pytest.raises(ConfigurationError, match="computes embedding models, and not a reranker"):
        Reranker(str(file))


def test_llama_cpp_computes_no_other_models():
    with pytest.raises(ConfigurationError, match=r"backend llama\.cpp computes GGUF files"):
        EmbeddingService(GOLDENS / "tiny-bert", backend="llama.cpp")


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "is_installed", lambda: True)
    settings = Settings(cache_dir=tmp_path)
    for name, words in (
        (str(tmp_path / "none.gguf"), "is not a file"),
        ("org/model:none.gguf", "is not on this machine and downloading is switched off"),
        ("org/model:../none.gguf", "is not a GGUF file of a repository"),
        ("model:none.gguf", "is not a repository name"),
    ):
        with pytest.raises(ModelNotFoundError, match=words):
            EmbeddingService(name, auto_download=False, settings=settings)
    with pytest.raises(InvalidInputError):
        EmbeddingService("openai:m.gguf\n", settings=settings)


@pytest.mark.parametrize("left", [(), ("dense_2.weight",), ("dense_3.weight",)])
def test_an_embeddinggemma_that_lost_dense_layers_is_refused(tmp_path, left):
    entries = {
        "general.architecture": "gemma-embedding",
        **{f"gemma-embedding.{key}": 2 for key in ("block_count", "context_length", "embedding_length")},
        "gemma-embedding.pooling_type": MEAN,
        "tokenizer.ggml.tokens": ["a", "b"],
    }
    arrays = {"token_embd.weight": np.ones((2, 2)), **dict.fromkeys(left, np.ones((2, 2)))}
    with pytest.raises(ModelLoadError, match=r"lacks the Dense layers of gemma-embedding \(dense_[23].weight"):
        read_gguf(write_gguf(tmp_path / "m.gguf", entries, arrays))
    whole = {**arrays, "dense_2.weight": np.ones((2, 2)), "dense_3.weight": np.ones((2, 2))}
    assert read_gguf(write_gguf(tmp_path / "m.gguf", entries, whole)).pooling == "mean"


@pytest.mark.parametrize(
    ("pooling", "key"), [(LAST, "tokenizer.ggml.add_eos_token"), (CLS, "tokenizer.ggml.add_bos_token")]
)
def test_a_pooling_by_a_token_that_may_be_missing_is_refused(tmp_path, pooling, key):
    """As the first files of Qwen3-Embedding, and some of bge-m3."""
    entry = key.replace(".", "__")
    for stated in (True, False):
        read_gguf(write_qwen3(tmp_path / "m.gguf", pooling, **{entry: stated}))
    for unstated in (None, 1, "true"):
        with pytest.raises(ModelLoadError, match=rf"does not say whether texts (begin|end) with .* \({key}\)"):
            read_gguf(write_qwen3(tmp_path / "m.gguf", pooling, **{entry: unstated}))
    assert read_gguf(write_qwen3(tmp_path / "m.gguf", MEAN, **{entry: None})).pooling == "mean"


def test_berts_tokenizer_always_adds_its_tokens(tmp_path):
    for pooling, name in ((CLS, "cls"), (LAST, "last")):
        assert read_gguf(write_bert(tmp_path / "m.gguf", pooling)).pooling == name


def test_nothing_of_llama_cpp_is_imported():
    assert "llama_cpp" not in sys.modules or runtime.is_installed()


def test_a_model_without_weights_is_described_too(tmp_path):
    file = write_gguf(tmp_path / "m.gguf", _ENTRIES, {})
    assert read_header(file).weight_bytes == 0
