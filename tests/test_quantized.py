"""Vectors of smaller types against those of sentence-transformers, and search with them."""

import json

import numpy as np
import pytest

import akidb_mlx
from akidb_mlx import calibration_ranges, dequantize, hamming_distances, quantize, rescore
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.quantized import OUTPUT_DTYPES
from tests.fake_embedder import FakeEmbedder
from tests.support import GOLDENS, TEXTS, golden, run_python

TYPES = {"float16": "float16", "int8": "int8", "uint8": "uint8", "binary": "int8", "ubinary": "uint8"}
PACKED = ("binary", "ubinary")
SHORT = [text for text in TEXTS if len(text) < 400]


@pytest.fixture(scope="module")
def outputs():
    return golden("outputs")


def unit_vectors(rows: int, dimension: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary"])
def test_they_are_the_references(outputs, dtype):
    ranges = None if dtype in PACKED else calibration_ranges(outputs["sample"])
    found = quantize(outputs["vectors"], dtype, ranges)
    assert found.dtype == outputs[dtype].dtype
    assert np.array_equal(found, outputs[dtype])
    assert np.array_equal(quantize(outputs["vectors"][5], dtype, ranges), outputs[dtype][5])


def test_ranges_are_the_least_and_the_greatest_values():
    assert calibration_ranges([[1.0, 5.0], [3.0, -2.0], [2.0, 0.0]]).tolist() == [[1, -2], [3, 5]]


def test_a_vector_does_not_depend_on_its_neighbours(outputs):
    ranges = calibration_ranges(outputs["sample"])
    together = quantize(outputs["vectors"], "int8", ranges)
    alone = np.concatenate([quantize(row[None], "int8", ranges) for row in outputs["vectors"]])
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_value_is_restored_to_less_than_a_step(outputs, dtype):
    sample = outputs["sample"]
    ranges = calibration_ranges(sample)
    lost = sample - dequantize(quantize(sample, dtype, ranges), ranges)
    step = (ranges[1] - ranges[0]) / 255
    assert (lost >= -1e-6).all()
    assert (lost <= step * 1.0001 + 1e-6).all()


@pytest.mark.parametrize("dtype", PACKED)
def test_hamming_distances_count_the_bits_that_differ(dtype):
    queries, documents = unit_vectors(3, 19, 1), unit_vectors(7, 19, 2)
    expected = ((queries > 0)[:, None] != (documents > 0)[None]).sum(axis=2)
    found = hamming_distances(quantize(queries, dtype), quantize(documents, dtype))
    assert found.dtype == np.uint32
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", TYPES)
def test_candidates_are_scored_by_whole_queries(dtype):
    queries, documents = unit_vectors(3, 19, 1), unit_vectors(7, 19, 2)
    ranges = None if dtype in PACKED or dtype == "float16" else calibration_ranges(documents)
    candidates = np.array([[6, 0], [1, 1], [3, 5]])
    known = documents if dtype == "float16" else (documents > 0)
    if ranges is not None:
        known = dequantize(quantize(documents, dtype, ranges), ranges)
    expected = [[queries[q] @ known[d] for d in row] for q, row in enumerate(candidates)]
    found = rescore(queries, quantize(documents, dtype, ranges), candidates, ranges)
    assert np.abs(found - expected).max() < (1e-3 if dtype == "float16" else 1e-6)


def test_queries_may_be_int8_too():
    queries, documents = unit_vectors(2, 64, 1), unit_vectors(5, 64, 2)
    ranges = calibration_ranges(np.concatenate([queries, documents]))
    candidates = np.array([[0, 1, 2], [2, 3, 4]])
    int8 = quantize(queries, "int8", ranges)
    for stored, given in ((quantize(documents, "binary"), ranges), (quantize(documents, "int8", ranges), ranges)):
        expected = rescore(dequantize(int8, ranges), stored, candidates, given)
        assert np.abs(rescore(int8, stored, candidates, given) - expected).max() < 1e-6


def test_two_steps_find_what_one_exact_step_finds():
    """Every query is a document with a little noise."""
    documents = unit_vectors(500, 256, 3)
    queries = documents[::50] + 0.02 * unit_vectors(10, 256, 4)
    packed = quantize(documents, "ubinary")
    nearest = np.argsort(hamming_distances(quantize(queries, "ubinary"), packed), axis=1)[:, :20]
    scores = rescore(queries, packed, nearest)
    found = nearest[np.arange(10), scores.argmax(axis=1)]
    assert found.tolist() == list(range(0, 500, 50))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (([[1, 2]], "binary"), "vectors must be floating-point numbers"),
        (([[1.0], [1.0, 2.0]], "binary"), "vectors must be"),
        (([[1.0]], "int4"), "dtype must be one of float32, .*, found 'int4'"),
        (([[1.0]], "int8"), "int8 needs ranges: embed a sample"),
        (([[1.0]], "binary", [[0.0], [1.0]]), "ranges are for int8 and uint8, and the type is binary"),
        (([[1.0]], "int8", [[0.0, 0.0], [1.0, 1.0]]), r"ranges must have the shape \(2, 1\), found \(2, 2\)"),
        (([[1.0]], "uint8", [[1.0], [0.0]]), "upper ones not below them"),
        (([[1.0]], "uint8", [[0.0], [np.inf]]), "ranges must be finite"),
        (([[70000.0]], "float16"), "not finite in float16"),
    ],
)
def test_what_cannot_be_quantised(arguments, problem):
    with pytest.raises(InvalidInputError, match=problem):
        quantize(*arguments)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: calibration_ranges([[1.0]]), "at least two vectors"),
        (lambda: hamming_distances([[1.0]], [[1.0]]), "queries must be binary"),
        (lambda: hamming_distances(np.zeros((1, 2), np.int8), np.zeros((1, 2), np.uint8)), "of one type and size"),
        (lambda: hamming_distances(np.zeros((1, 2), np.int8), np.zeros((1, 3), np.int8)), "of one type and size"),
        (lambda: rescore([[1.0, 2.0]], [[1.0, 2.0]], [[1]]), "candidates must be integers from 0 to 0"),
        (lambda: rescore([[1.0, 2.0]], [[1.0, 2.0]], [[0.0]]), "candidates must be integers"),
        (lambda: rescore([[1.0, 2.0]], [[1.0]], [[0]]), "queries have 2 values and documents 1"),
        (lambda: rescore([[1.0, 2.0]], np.zeros((1, 2), np.int8), [[0]]), "needs ranges"),
        (lambda: rescore([[1.0, 2.0]], [[1.0, 2.0]], [[0], [0]]), "a row of candidates for each query"),
        (lambda: dequantize([[1]], [[0.0], [1.0]]), "int8 or uint8, found int64"),
    ],
)
def test_arguments_that_are_refused(call, problem):
    with pytest.raises(InvalidInputError, match=problem):
        call()


# Calls


@pytest.mark.parametrize("dtype", TYPES)
def test_a_call_gives_what_quantising_its_vectors_gives(service, dtype):
    """Cut and normalised first, which a range of the cut dimensions and the signs show."""
    one = service("tiny-qwen3")
    vectors = one.embed_array(SHORT, dimensions=44)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    ranges = calibration_ranges(vectors) if dtype in ("int8", "uint8") else None
    batch = one.embed_detailed(SHORT, dimensions=44, output_dtype=dtype, ranges=ranges)
    expected = quantize(vectors, dtype, ranges)
    assert batch.vectors.dtype == TYPES[dtype]
    assert batch.vectors.flags.c_contiguous
    assert batch.dimension == 44
    assert batch.vectors.shape == (len(SHORT), 6 if dtype in PACKED else 44)
    # The vectors of two calls may differ by rounding, and so by a step.
    assert (batch.vectors.astype(float) != expected.astype(float)).mean() < 0.01


def test_the_lists_hold_integers_and_the_bytes_are_the_arrays(service):
    one = service("tiny-bert")
    array = one.embed_array(["a", "b"], output_dtype="binary")
    assert one.embed(["a", "b"], output_dtype="binary") == array.tolist()
    assert isinstance(one.embed(["a"], output_dtype="binary")[0][0], int)
    assert one.embed_bytes(["a", "b"], output_dtype="binary") == array.tobytes()
    half = one.embed_array(["a"], output_dtype="float16")
    assert one.embed_bytes(["a"], output_dtype="float16") == half.astype("<f2").tobytes()


@pytest.mark.parametrize("dtype", OUTPUT_DTYPES)
def test_no_texts_have_no_vectors_of_that_type(service, dtype):
    ranges = np.zeros((2, 64), np.float32) if dtype in ("int8", "uint8") else None
    found = service("tiny-bert").embed_array([], output_dtype=dtype, ranges=ranges)
    assert found.dtype == TYPES.get(dtype, "float32")
    assert found.shape == (0, 8 if dtype in PACKED else 64)


def test_a_call_without_ranges_is_refused(service):
    for one in (service("tiny-bert"), FakeEmbedder()):
        with pytest.raises(InvalidInputError, match=r"int8 needs ranges: .*akidb_mlx\.calibration_ranges"):
            one.embed(["a"] * 200, output_dtype="int8")
    with pytest.raises(InvalidInputError, match=r"ranges must have the shape \(2, 64\)"):
        service("tiny-bert").embed(["a"], output_dtype="int8", ranges=np.zeros((2, 63)))
    with pytest.raises(InvalidInputError, match="ranges are for int8 and uint8"):
        service("tiny-bert").embed(["a"], ranges=np.zeros((2, 64)))


def test_other_types_are_refused_by_name(service):
    with pytest.raises(InvalidInputError, match=r"output_dtype must be one of float32, .*ubinary, found 'int4'"):
        service("tiny-bert").embed(["a"], output_dtype="int4")


def test_the_command_line(tmp_path, service):
    model = str(GOLDENS / "tiny-bert")
    one = service("tiny-bert")
    ranges = calibration_ranges(one.embed_array(SHORT))
    file = tmp_path / "ranges.json"
    file.write_text(json.dumps(ranges.tolist()))
    run = "from akidb_mlx.cli import main; main()"
    arguments = ("embed", "-m", model, "--device", "cpu", "--output-dtype")
    done = run_python(run, 60, *arguments, "int8", "--ranges", str(file), "a text")
    assert done.stderr == ""
    assert json.loads(done.stdout) == one.embed(["a text"], output_dtype="int8", ranges=ranges)[0]
    done = run_python(run, 60, *arguments, "int8", "a text")
    assert done.returncode == 1
    assert "int8 needs ranges" in done.stderr
    file.write_text("[[1], [2, 3]]")
    done = run_python(run, 60, *arguments, "int8", "--ranges", str(file), "a text")
    assert done.returncode == 1
    assert "must hold two JSON lists of numbers" in done.stderr


def test_the_names_are_at_the_top():
    assert akidb_mlx.quantize is quantize
