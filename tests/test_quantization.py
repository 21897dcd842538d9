"""Quantised copies of models: their weights, their files, and what a calibration and a search gain."""

import errno
import json

import mlx.core as mx
import numpy as np
import pytest
from typer.testing import CliRunner

from akidb_mlx import EmbeddingService, MultiVectorEmbedder, Reranker, Settings, SparseEmbedder
from akidb_mlx.cli.commands import create_app
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelLoadError
from akidb_mlx.fidelity.answers import read_answers
from akidb_mlx.fidelity.card import read_card
from akidb_mlx.fidelity.texts import TextSet
from akidb_mlx.quantization import quantize_model
from akidb_mlx.quantization.packing import fit_grid, pack_codes
from tests.static_models import FORMS
from tests.support import GOLDENS, TEXTS, copy_model, edit_tensors, run_python

SAMPLE = TEXTS[:12]


@pytest.fixture
def few_texts(monkeypatch):
    """A card and known answers of a dozen texts."""
    texts = TextSet("sample", None, tuple(SAMPLE), ("",) * len(SAMPLE))
    for module in ("fidelity", "quantize"):
        monkeypatch.setattr(f"akidb_mlx.quantization.{module}.default_texts", lambda: texts)


def quantized(name, folder, **options):
    """A quantised copy of a tiny model, and the report."""
    report = quantize_model(GOLDENS / name, folder / name, **{"card": False, **options})
    return folder / name, report


def embed(directory, texts=SAMPLE, **settings):
    with EmbeddingService(directory, device="cpu", backend="mlx", settings=Settings(**settings)) as one:
        return one.embed_array(texts)


def cosine(directory, name, texts=SAMPLE):
    return (embed(directory, texts) * embed(GOLDENS / name, texts)).sum(axis=1)


# One matrix


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_codes_lie_where_mlx_looks_for_them(bits):
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (48, 256))
    packed = pack_codes(mx.array(codes), bits)
    ones = mx.ones((48, 4))
    found = mx.dequantize(packed, ones, mx.zeros_like(ones), group_size=64, bits=bits)
    assert np.array_equal(np.array(found), codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_a_grid_is_no_worse_than_mlx_own_with_parameters_in_half_precision(bits):
    values = mx.random.normal((64, 4, 64), key=mx.random.key(bits))
    grid = fit_grid(values, bits, mx.bfloat16)
    error = mx.square(grid.values(grid.codes(values, bits)) - values).mean().item()
    parts = mx.quantize(values.reshape(64, 256), 64, bits)
    own = mx.dequantize(*parts, 64, bits).reshape(values.shape)
    assert error < 1.0 * mx.square(own - values).mean().item()


def test_groups_of_one_value_and_of_zeros_are_kept_exactly():
    values = mx.stack([mx.zeros((64,)), mx.full((64,), 0.75), mx.full((64,), -3.0)])[None]
    grid = fit_grid(values, 4, mx.float16)
    assert mx.array_equal(grid.values(grid.codes(values, 4)), values)


# Whole models


EMBEDDERS = [
    *("tiny-bert", "tiny-distilbert", "tiny-roberta", "tiny-mpnet", "tiny-modernbert", "tiny-nomic-bert", "tiny-gte"),
    *("tiny-qwen3", "tiny-llama", "tiny-gemma3", "tiny-eurobert", "tiny-embedding-gemma2", "tiny-bert-modules"),
]


@pytest.mark.parametrize("name", EMBEDDERS)
def test_an_embedding_model_of_8_bits_keeps_its_vectors(name, tmp_path):
    directory, report = quantized(name, tmp_path, bits=8, group_size=32)
    assert cosine(directory, name).min() > 0.999
    assert report.weight_bytes < report.original_bytes


def test_a_model_of_two_encoders(tmp_path):
    directory, _ = quantized("towers-bert-qwen3", tmp_path, bits=8, group_size=32)
    source = GOLDENS / "towers-bert-qwen3"
    with EmbeddingService(source, device="cpu") as original, EmbeddingService(directory, device="cpu") as one:
        assert one.get_model_info()["quantization"] == "8-bit affine, group 32"
        for role in ("query", "document"):
            found = one.embed_array(SAMPLE, input_type=role) * original.embed_array(SAMPLE, input_type=role)
            assert found.sum(axis=1).min() > 0.999


@pytest.mark.parametrize("name", ["reranker-bert", "reranker-qwen3", "reranker-modernbert-modules", "reranker-gte"])
def test_a_reranker(name, tmp_path):
    directory, _ = quantized(name, tmp_path, bits=8, group_size=32)
    pairs = [(SAMPLE[0], text) for text in SAMPLE]
    with Reranker(GOLDENS / name, device="cpu") as original, Reranker(directory, device="cpu") as one:
        assert one.get_model_info()["quantization"] == "8-bit affine, group 32"
        assert np.abs(one.scores(pairs) - original.scores(pairs)).max() < 0.02


@pytest.mark.parametrize("name", ["sparse-bert", "sparse-modernbert"])
def test_a_sparse_model(name, tmp_path):
    directory, _ = quantized(name, tmp_path, bits=8, group_size=32)
    with SparseEmbedder(GOLDENS / name, device="cpu") as original, SparseEmbedder(directory, device="cpu") as one:
        found, expected = (each.embed_documents(SAMPLE).to_dense() for each in (one, original))
        assert np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize("name", ["colbert-bert", "colbert-modernbert", "colbert-stanford"])
def test_a_multi_vector_model(name, tmp_path):
    directory, _ = quantized(name, tmp_path, bits=8, group_size=32)
    with MultiVectorEmbedder(GOLDENS / name, device="cpu") as original, MultiVectorEmbedder(directory) as one:
        for found, expected in zip(one.embed_documents(SAMPLE), original.embed_documents(SAMPLE), strict=True):
            assert np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize(
    ("options", "summary"),
    [
        *(({"bits": bits}, f"{bits}-bit affine, group 64") for bits in (2, 3, 4, 5, 6, 8)),
        ({"group_size": 32}, "4-bit affine, group 32"),
        ({"mode": "mxfp4"}, "4-bit mxfp4, group 32"),
        ({"mode": "mxfp8"}, "8-bit mxfp8, group 32"),
        ({"mode": "nvfp4"}, "4-bit nvfp4, group 16"),
        ({"recipe": "mixed-4-6"}, "4-bit affine, group 64; 6-bit affine, group 64"),
    ],
)
def test_every_packing_is_read_again_in_both_ways(options, summary, tmp_path):
    """Tables, Dense layers and layers with packings of their own too; the native way is a GPU's."""
    directory, report = quantized("tiny-gemma3", tmp_path, **options)
    with EmbeddingService(directory, device="cpu") as one:
        assert one.get_model_info()["quantization"] == summary
        exact = one.embed_array(SAMPLE)
    assert (embed(directory, precision="bfloat16") * exact).sum(axis=1).min() > 0.95
    assert sum(report.packings.values()) == 45
    original = embed(GOLDENS / "tiny-gemma3")
    least = {2: 0.2, 3: 0.6, 4: 0.85, 5: 0.96}.get(int(summary[0]), 0.98)
    assert (exact * original).sum(axis=1).mean() > least


def test_dense_layers_and_all_other_files_are_kept(tmp_path):
    source = copy_model("tiny-gemma3", tmp_path / "source")
    (source / "README.md").write_text("# The original\n")
    for name in ("pytorch_model.bin", "modeling.py", "akidb_fidelity.json", ".cache"):
        (source / name).write_text("left out")
    quantize_model(source, tmp_path / "4bit", card=False)
    files = {path.relative_to(tmp_path / "4bit").as_posix() for path in (tmp_path / "4bit").rglob("*.*")}
    assert files == {
        *("README.md", "akidb_quantization.json", "config.json", "config_sentence_transformers.json", "modules.json"),
        *("model.safetensors", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("1_Pooling/config.json", "2_Dense/config.json", "3_Dense/config.json"),
        *("2_Dense/model.safetensors", "3_Dense/model.safetensors"),
    }
    assert (tmp_path / "4bit/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert set(mx.load(str(tmp_path / "4bit/2_Dense/model.safetensors"))) == {
        *("linear.weight", "linear.scales", "linear.biases")
    }


def test_what_is_not_packed_stays_bit_for_bit(tmp_path):
    directory, report = quantized("tiny-bert", tmp_path)
    before, after = (mx.load(str(one / "model.safetensors")) for one in (GOLDENS / "tiny-bert", directory))
    assert report.kept == {"embeddings.token_type_embeddings": "has only 2 rows"}
    kept = [name for name in before if name.replace(".weight", ".scales") not in after or before[name].ndim == 1]
    assert len(kept) > 20
    assert all(mx.array_equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in kept)


def test_shards_and_their_index(tmp_path):
    source = copy_model("tiny-qwen3", tmp_path / "source")
    tensors = mx.load(str(source / "model.safetensors"))
    (source / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for number in range(3):
        file = f"model-0000{number + 1}-of-00003.safetensors"
        part = {name: tensors[name].astype(mx.bfloat16) for name in names[number::3]}
        mx.save_safetensors(str(source / file), part)
        index |= dict.fromkeys(part, file)
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    quantize_model(source, tmp_path / "8bit", bits=8, group_size=32, card=False)
    written = json.loads((tmp_path / "8bit/model.safetensors.index.json").read_text())["weight_map"]
    for file in set(index.values()):
        assert set(mx.load(str(tmp_path / "8bit" / file))) == {name for name, place in written.items() if place == file}
    assert (
        mx.load(str(tmp_path / "8bit/model-00001-of-00003.safetensors"))["model.embed_tokens.scales"].dtype
        == mx.bfloat16
    )
    assert (embed(tmp_path / "8bit") * embed(source)).sum(axis=1).min() > 0.999


@pytest.mark.usefixtures("language_models")
@pytest.mark.parametrize("recipe", [None, "mixed-4-6"])
def test_mlx_lm_reads_the_same_model(recipe, tmp_path):
    """Its hidden states of the last token are those of our own encoder, of the same weights."""
    from mlx_lm.utils import load_model

    directory, _ = quantized("tiny-qwen3", tmp_path, group_size=32, recipe=recipe)
    texts = SAMPLE[:4]
    with EmbeddingService(directory, device="cpu") as one:
        expected = one.embed_array(texts)
        ids = [[token.id for token in tokens] for tokens in one.tokenize(texts)]
    with mx.stream(mx.cpu):
        model, config = load_model(directory)
        last = [np.array(model.model(mx.array([row]))[0, -1].astype(mx.float32)) for row in ids]
    found = np.stack([vector / np.linalg.norm(vector) for vector in last])
    assert config["quantization"]["bits"] == 4
    assert (found * expected).sum(axis=1).min() > 0.9999


@pytest.mark.usefixtures("language_models")
@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_mlx_lm_reads_a_gemma(mode, tmp_path):
    """Its tokens do not see those after them, so that the weights are compared."""
    from mlx_lm.utils import load_model

    directory, _ = quantized("tiny-gemma3", tmp_path, recipe="mixed-4-6" if mode == "affine" else None, mode=mode)
    original = mx.load(str(GOLDENS / "tiny-gemma3/model.safetensors"))
    with mx.stream(mx.cpu):
        model, _ = load_model(directory)
        assert mx.isfinite(model(mx.array([[2, 5, 7]]))).all()
        for number, layer in enumerate(model.layers):
            one, expected = layer.mlp.down_proj, original[f"layers.{number}.mlp.down_proj.weight"]
            found = mx.dequantize(one.weight, one.scales, one.get("biases"), one.group_size, one.bits, mode=one.mode)
            assert mx.abs(found - expected).max() < 0.3 * mx.abs(expected).max()


# Calibration and search


def test_a_calibration_brings_the_vectors_closer(tmp_path):
    plain, _ = quantized("tiny-gemma3", tmp_path / "plain", bits=3, group_size=32)
    calibrated, report = quantized("tiny-gemma3", tmp_path / "calibrated", bits=3, group_size=32, texts=TEXTS[12:24])
    assert report.calibration_texts == 12
    found, before = cosine(calibrated, "tiny-gemma3").mean(), cosine(plain, "tiny-gemma3").mean()
    assert 1 - found < 0.8 * (1 - before)


def test_a_target_of_bytes_is_kept_and_used(tmp_path):
    original = GOLDENS / "tiny-qwen3"
    target = 190_000
    reports = [
        quantize_model(original, tmp_path / str(number), target_size=target, texts=TEXTS[:4], card=False)
        for number in range(2)
    ]
    assert 0.85 * target < reports[0].weight_bytes <= target
    assert len(reports[0].packings) > 1
    first, second = ((tmp_path / str(number) / "model.safetensors").read_bytes() for number in range(2))
    assert first == second  # nothing of it is left to chance
    with pytest.raises(InvalidInputError, match=r"target_size 60000 cannot be reached: 2 bits everywhere take \d+"):
        quantize_model(original, tmp_path / "less", target_size=60_000, texts=TEXTS[:4], card=False)
    assert not (tmp_path / "less").exists()


def test_a_target_cosine_is_reached_with_less_than_8_bits(tmp_path):
    directory, report = quantized("tiny-bert", tmp_path, target_cosine=0.999, texts=TEXTS[12:24])
    assert report.calibration_cosine >= 0.999
    assert report.bits_per_weight < 6
    assert cosine(directory, "tiny-bert").mean() > 0.998  # other texts than those of the search
    with pytest.raises(InvalidInputError, match=r"target_cosine 0.9999999 cannot be reached: 8 bits everywhere give"):
        quantized("tiny-bert", tmp_path / "more", target_cosine=0.999_999_9, texts=TEXTS[:8])


# What is refused, and what is left behind


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bits": 7}, "bits must be one of 2, 3, 4, 5, 6, 8, found 7"),
        ({"group_size": 16}, "group_size must be one of 32, 64, 128, found 16"),
        ({"mode": "fp4"}, "mode must be one of affine, mxfp4, mxfp8, nvfp4, found 'fp4'"),
        ({"mode": "mxfp4", "bits": 8}, "mode mxfp4 has 4 bits and groups of 32, found bits 8"),
        ({"mode": "mxfp8", "recipe": "mixed-4-6"}, "mode mxfp8 has 8 bits throughout"),
        ({"mode": "mxfp8", "texts": SAMPLE}, "mode mxfp8 is packed without texts"),
        ({"recipe": "mixed-1-2"}, "recipe must be one of mixed-2-6"),
        ({"bits": 4, "target_size": 1000}, "bits and target_size exclude each other"),
        ({"target_size": 0}, "target_size must be 1 byte or more"),
        ({"target_cosine": 1.5}, "target_cosine must lie between 0 and 1"),
        ({"texts": []}, "there are no texts to calibrate on"),
    ],
)
def test_options_that_are_not_usable(options, problem, tmp_path):
    with pytest.raises(InvalidInputError, match=problem):
        quantize_model(GOLDENS / "tiny-bert", tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("tiny-qwen3-4bit", {}, r"is quantised already \(4-bit affine, group 64\)"),
        ("tiny-llama-biases", {}, "has no matrix that can be packed in groups of 64: embed_tokens has 24 columns"),
        ("reranker-bert", {"texts": SAMPLE}, "is no embedding model of one encoder"),
        ("towers-bert-qwen3", {"target_size": 10**6, "group_size": 32}, "is no embedding model of one encoder"),
    ],
)
def test_models_that_are_refused(name, options, problem, tmp_path):
    with pytest.raises((ModelLoadError, InvalidInputError), match=problem):
        quantize_model(GOLDENS / name, tmp_path / "out", card=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_static_model_is_refused(tmp_path):
    directory = FORMS["static"].make(tmp_path / "static")
    with pytest.raises(ModelLoadError, match="is a static model"):
        quantize_model(directory, tmp_path / "out")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError, match="is there already, and nothing is overwritten"):
        quantize_model(GOLDENS / "tiny-bert", tmp_path / "out", card=False)


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    from akidb_mlx.quantization import writing

    monkeypatch.setattr(writing, "copy_others", lambda *_: (tmp_path / "out").mkdir())
    with pytest.raises(InvalidInputError, match="nothing is overwritten"):
        quantize_model(GOLDENS / "tiny-bert", tmp_path / "out", card=False)
    assert [*tmp_path.rglob("*")] == [tmp_path / "out"]


@pytest.mark.parametrize(
    ("failure", "error", "problem"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(errno.ENOSPC, "No space left on device"), ConfigurationError, "nothing of it is left: No space left"),
        (OSError(errno.EIO, "Input/output error"), OSError, "Input/output error"),
    ],
)
def test_a_failure_midway_leaves_nothing(failure, error, problem, tmp_path, monkeypatch):
    from akidb_mlx.quantization.tensor_files import TensorWriter

    written = []
    original = TensorWriter.append

    def append(self, name, content):
        written.append(name)
        if len(written) == 10:
            raise failure
        original(self, name, content)

    monkeypatch.setattr(TensorWriter, "append", append)
    with pytest.raises(error, match=problem):
        quantize_model(GOLDENS / "tiny-bert", tmp_path / "out", card=False)
    assert len(written) == 10 and list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_noticed_before(tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("akidb_mlx.quantization.publishing.shutil.disk_usage", lambda _: usage(1, 0, 1000))
    with pytest.raises(ConfigurationError, match="the disk has 1000 left"):
        quantize_model(GOLDENS / "tiny-bert", tmp_path / "out", card=False)


def test_values_that_are_not_finite_are_named(tmp_path):
    source = copy_model("tiny-bert", tmp_path / "source")

    def spoil(tensors):
        tensors["embeddings.word_embeddings.weight"][3, 4] = np.nan
        return tensors

    edit_tensors(source / "model.safetensors", spoil)
    with pytest.raises(ModelLoadError, match=r"embeddings\.word_embeddings\.weight holds values that are not finite"):
        quantize_model(source, tmp_path / "out", card=False)
    assert not (tmp_path / "out").exists()


def test_a_large_table_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    from akidb_mlx.quantization import packing, tensor_files

    monkeypatch.setattr(packing, "_CHUNK", 4096)
    read = []
    rows = tensor_files.TensorReader.rows

    def counted(self, name, first, last):
        found = rows(self, name, first, last)
        read.append(found.size)
        return found

    monkeypatch.setattr(tensor_files.TensorReader, "rows", counted)
    directory, _ = quantized("tiny-bert", tmp_path, bits=8, group_size=32)
    assert max(read) <= 4096 < sum(read)
    assert cosine(directory, "tiny-bert").min() > 0.999


# Card, answers and command line


@pytest.mark.usefixtures("few_texts")
def test_the_card_and_the_answers_come_with_the_model(tmp_path):
    result = CliRunner().invoke(
        create_app(), ["quantize", str(GOLDENS / "tiny-bert"), "-o", str(tmp_path / "out"), "--bits", "8", "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    card = read_card(tmp_path / "out")
    assert (card.model, card.original, card.texts.count) == ("out", "tiny-bert", len(SAMPLE))
    assert report["card"]["dimensions"][0]["cosine"]["mean"] == card.whole.cosine.mean > 0.999
    assert report["directory"] == str(tmp_path / "out") and report["packings"] == {"8-bit affine, group 64": 20}
    answers = read_answers(tmp_path / "out/akidb_answers.json")
    assert answers.model == "tiny-bert" and answers.cosine > 0.999


@pytest.mark.usefixtures("few_texts")
@pytest.mark.parametrize("name", ["tiny-bert-routes", "towers-bert-qwen3", "tiny-gemma3"])
def test_models_with_routes_and_prompts_have_a_card(name, tmp_path):
    _, report = quantized(name, tmp_path, bits=8, group_size=32, card=True)
    assert report.card.whole.cosine.worst > 0.999
    assert read_answers(tmp_path / name / "akidb_answers.json").cosine > 0.999


@pytest.mark.usefixtures("few_texts")
@pytest.mark.parametrize("name", ["reranker-bert", "reranker-qwen3"])
def test_a_reranker_has_a_card_of_its_scores(name, tmp_path):
    directory, report = quantized(name, tmp_path, bits=8, group_size=32, card=True)
    assert report.card == read_card(directory)
    assert (report.card.model, report.card.original) == (name, name)
    assert report.card.scores.order > 0.95
    assert not (directory / "akidb_answers.json").exists()
    with Reranker(directory, device="cpu") as one:
        assert one.get_model_info()["fidelity"] == report.card.plain()


@pytest.mark.usefixtures("few_texts")
def test_a_sparse_model_has_no_card(tmp_path):
    _, report = quantized("sparse-bert", tmp_path, bits=8, group_size=32, card=True)
    assert report.card is None
    assert not list((tmp_path / "sparse-bert").glob("akidb_[af]*"))


def test_the_command_line(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(text.replace("\n", " ") for text in TEXTS[:6]))
    arguments = [*("quantize", str(GOLDENS / "tiny-bert"), "-o", str(tmp_path / "out"), "--no-card")]
    result = CliRunner().invoke(
        create_app(), [*arguments, "--target-size", "140000", "--calibrate", str(tmp_path / "texts.txt")]
    )
    assert result.exit_code == 0, result.output
    lines = dict(line.split("\t", 1) for line in result.stdout.splitlines()[1:])
    assert set(lines) == {"weights", "bits per weight", "packing", "search"}
    assert "on 6 calibration texts" in lines["search"]
    assert "embeddings.token_type_embeddings has only 2 rows" in result.stderr
    again = CliRunner().invoke(create_app(), arguments)
    assert again.exit_code == 1 and isinstance(again.exception, InvalidInputError)


@pytest.mark.slow
def test_memory_stays_below_twice_the_largest_shard(tmp_path):
    """Far below: no tensor is held as a whole."""
    rows = 400_000
    source = copy_model("tiny-qwen3", tmp_path, vocab_size=rows)

    def enlarge(tensors):
        return tensors | {"embed_tokens.weight": np.random.default_rng(0).random((rows, 64), np.float32)}

    edit_tensors(source / "model.safetensors", enlarge)
    done = run_python(
        "import resource, sys\n"
        "from akidb_mlx.quantization import quantize_model\n"
        "unit = 1 if sys.platform == 'darwin' else 1024\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit\n"
        "small, large, out = sys.argv[1:]\n"
        "quantize_model(small, out + '/small', card=False)\n"
        "own = peak()\n"
        "quantize_model(large, out + '/large', card=False)\n"
        "print(peak() - own)\n",
        300,
        *(str(GOLDENS / "tiny-qwen3"), str(source), str(tmp_path)),
    )
    assert int(done.stdout) < 0.5 * (source / "model.safetensors").stat().st_size, done.stderr
