"""Embedding models that llama.cpp computes; `make test-llama-cpp` runs them where llama-cpp-python is installed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="the extra `llama-cpp` is not installed")

from akidb_mlx import EmbeddingService
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelLoadError, ServiceClosedError
from akidb_mlx.settings import Settings
from tests.gguf_files import CLS, LAST, MEAN, write_bert, write_qwen3
from tests.support import GOLDENS, TEXTS, WEIGHTS, golden

# llama.cpp splits other texts than BERT's tokenizer does: it keeps the accents of Hindi, and takes no text for a token.
_SPLIT_OTHERWISE = {"tiny-bert": {17, 42}, "tiny-qwen3": {41}}
_WRITERS = {"tiny-bert": write_bert, "tiny-qwen3": write_qwen3}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    with (
        EmbeddingService(write_bert(folder / "tiny-bert.gguf"), device="cpu") as bert,
        EmbeddingService(write_qwen3(folder / "tiny-qwen3.gguf"), device="cpu") as qwen3,
    ):
        yield {"tiny-bert": bert, "tiny-qwen3": qwen3}


# BERT's GELU is a table of half-precision values in llama.cpp, which costs two digits.
@pytest.mark.parametrize(("name", "exactness"), [("tiny-bert", 1e-4), ("tiny-qwen3", 1e-5)])
def test_vectors_are_those_of_the_reference(services, name, exactness):
    found = services[name].embed_array(TEXTS)
    same = [index for index in range(len(TEXTS)) if index not in _SPLIT_OTHERWISE[name]]
    assert len(same) > 40
    assert np.abs(found - golden(name)["none"])[same].max() <= exactness


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3"])
def test_tokens_are_those_of_the_checkpoint(services, name):
    found = services[name].embed_detailed(TEXTS)
    with EmbeddingService(GOLDENS / name, device="cpu", backend="mlx") as local:
        expected = local.embed_detailed(TEXTS)
    for index in range(len(TEXTS)):
        if index not in _SPLIT_OTHERWISE[name]:
            assert found.token_counts[index] == expected.token_counts[index]
            assert found.truncated[index] == expected.truncated[index]


@pytest.mark.parametrize(
    ("name", "control"), [("tiny-bert", "[SEP] [CLS] [MASK]"), ("tiny-qwen3", "<|endoftext|><|im_start|>")]
)
def test_control_tokens_in_texts_stay_texts(services, name, control):
    tokenizer = services[name]._tokenizers[""]
    (ids,) = tokenizer.encode([control])
    parsed = tokenizer.vocabulary.tokenize(control, control=True)
    special = set(tokenizer._before) | set(tokenizer._after) | set(parsed)
    assert len(parsed) < len(ids)
    assert not special & set(ids)
    (window,) = tokenizer([control], "", "truncate")[0].windows
    assert window.tolist() == [*tokenizer._before, *ids, *tokenizer._after]


def test_special_tokens_are_those_that_the_file_asks_for(services, tmp_path):
    assert [part.tolist() for part in (_frame(services["tiny-bert"]))] == [[2], [3]]
    assert [part.tolist() for part in (_frame(services["tiny-qwen3"]))] == [[], [0]]
    bare = write_qwen3(tmp_path / "bare.gguf", tokenizer__ggml__add_eos_token=False)
    with EmbeddingService(bare, device="cpu") as service:
        assert [part.tolist() for part in _frame(service)] == [[], []]
        with pytest.raises(InvalidInputError, match="text 1 yields no token"):
            service.embed(["a", ""])
        assert service.embed_detailed(["a"]).token_counts == [1]


def _frame(service):
    tokenizer = service._tokenizers[""]
    return tokenizer._before, tokenizer._after


# A value near the middle of two of the table's becomes the one or the other.
@pytest.mark.parametrize(("name", "exactness"), [("tiny-bert", 1e-4), ("tiny-qwen3", 1e-6)])
def test_a_batch_changes_no_vector(services, name, exactness):
    texts = ["a", "word " * 200, "", "b c d", "数学", *(f"text {number}" for number in range(200))]
    together = services[name].embed_array(texts)
    assert np.isfinite(together).all()
    for index in (0, 1, 3, 4, 100, 204):
        assert np.abs(together[index] - services[name].embed_array([texts[index]])[0]).max() <= exactness


def test_options_are_those_of_every_service(services):
    service = services["tiny-bert"]
    text = "word " * 900
    cut, whole = service.embed_detailed([text]), service.embed_detailed([text], on_overflow="chunk")
    assert (cut.token_counts, cut.truncated) == ([256], [True])
    assert (whole.token_counts, whole.truncated) == ([902], [False])
    with pytest.raises(InvalidInputError, match="902 tokens and the model takes 256"):
        service.embed([text], on_overflow="error")
    plain = service.embed_array(["a b"], normalize=False)
    assert abs(np.linalg.norm(plain) - 1) > 0.01
    assert np.abs(plain / np.linalg.norm(plain) - service.embed_array(["a b"])).max() < 1e-6
    assert np.array_equal(service.embed_array(["a b"], prompt="x "), service.embed_array(["x a b"]))
    assert service.embed_array(["a"], output_dtype="int8", ranges=np.array([[-1.0] * 64, [1.0] * 64])).dtype == np.int8
    with pytest.raises(InvalidInputError, match="GGUF files are not listed"):
        service.tokenize(["a"])
    assert np.array_equal(
        service.embed_array(["a"], input_type="query"), service.embed_array(["a"])
    )  # it has no prompts
    with pytest.raises(InvalidInputError, match="poem"):
        service.embed(["a"], input_type="poem")


def test_the_model_is_described(services):
    info = services["tiny-qwen3"].get_model_info()
    assert (info["backend"], info["device"], info["architecture"]) == ("llama.cpp", "cpu", "qwen3")
    assert (info["dimension"], info["max_tokens"], info["pooling"]) == (64, 512, "last")
    assert info["pooling_source"] == "qwen3.pooling_type in tiny-qwen3.gguf"
    assert info["path"].endswith("tiny-qwen3.gguf")
    assert info["weight_bytes"] > 100_000
    assert services["tiny-qwen3"].health_check()["status"] == "ok"


@pytest.mark.parametrize(("pooling", "row"), [(MEAN, slice(None)), (CLS, 0), (LAST, -1)])
def test_the_pooling_of_the_file_counts(services, tmp_path, pooling, row):
    with EmbeddingService(write_bert(tmp_path / "m.gguf", pooling), device="cpu") as service:
        found = service.embed_array(["a b c"])[0]
    assert (np.abs(found - services["tiny-bert"].embed_array(["a b c"])[0]).max() < 1e-6) == (row == slice(None))


def test_calls_of_many_threads_get_their_own_vectors(services):
    service = services["tiny-qwen3"]
    expected = {number: service.embed_array([f"text {number} " * (number % 7 + 1)])[0] for number in range(40)}

    def call(number):
        return np.abs(service.embed_array([f"text {number} " * (number % 7 + 1)])[0] - expected[number]).max()

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(call, [*expected] * 5)) <= 1e-6


def test_closing_while_calls_run_breaks_nothing(tmp_path):
    file = write_bert(tmp_path / "m.gguf")
    for _ in range(3):
        service = EmbeddingService(file, device="cpu")
        errors = []

        def call(service=service, errors=errors):
            try:
                while True:
                    service.embed([f"text {number}" for number in range(50)])
            except ServiceClosedError:
                pass
            except Exception as error:  # noqa: BLE001 - looked at below
                errors.append(error)

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        service.embed(["a"])
        service.close()
        for thread in threads:
            thread.join(30)
        assert not errors


def test_weights_that_are_damaged_or_missing_are_refused(tmp_path):
    content = bytearray(write_bert(tmp_path / "whole.gguf").read_bytes())
    file = tmp_path / "m.gguf"
    content[-4000:-3000] = b"\xff" * 1000  # NaN
    file.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"cannot be loaded by llama\.cpp|not finite"):
        EmbeddingService(file, device="cpu")
    for changes, words in (
        ({"general__architecture": "unheard-of"}, "unheard-of.block_count"),
        ({"bert__attention__layer_norm_epsilon": None}, r"cannot be loaded by llama\.cpp: .*layer_norm_epsilon"),
        ({"tokenizer__ggml__model": "odd"}, r"cannot be loaded by llama\.cpp: .*odd"),
        ({"bert__embedding_length": 128}, r"cannot be loaded by llama\.cpp: .*token_embd"),
    ):
        with pytest.raises(ModelLoadError, match=words):
            EmbeddingService(write_bert(file, **changes), device="cpu")


def test_nothing_is_written_to_the_standard_streams(tmp_path, capfd):
    with EmbeddingService(write_bert(tmp_path / "m.gguf"), device="cpu") as service:
        service.embed(["a"])
    assert capfd.readouterr() == ("", "")


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    import llama_cpp

    if llama_cpp.llama_supports_gpu_offload():
        pytest.skip("this llama.cpp has a GPU")
    with pytest.raises(ConfigurationError, match="built without one"):
        EmbeddingService(write_bert(tmp_path / "m.gguf"), device="gpu")


def test_the_settings_choose_llama_cpp_too(tmp_path):
    file = write_bert(tmp_path / "m.GGUF")
    with EmbeddingService(file, settings=Settings(backend="llama.cpp", device="cpu", token_budget=64)) as service:
        assert len(service.embed(["a b c"] * 100)) == 100


@pytest.mark.real_weights
def test_minilm_is_nearly_exact(tmp_path):
    pytest.importorskip("gguf")
    from benchmarks.bert_gguf import convert

    convert(WEIGHTS / "all-MiniLM-L6-v2", tmp_path / "m.gguf")
    with EmbeddingService(tmp_path / "m.gguf", device="cpu") as service:
        found = service.embed_array([text for text in TEXTS if len(text) < 500])
    expected = golden("all-MiniLM-L6-v2")["none"][[len(text) < 500 for text in TEXTS]]
    differences = np.abs(found - expected).max(axis=1)
    assert np.median(differences) <= 5e-4
    assert np.sort((found * expected).sum(axis=1))[4] >= 0.99999
