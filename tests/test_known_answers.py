"""The known-answer test: deliberately broken conversions are refused when they are loaded, and sound ones are not."""

import json
import math
import os
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from akidb_mlx import EmbeddingService, Settings
from akidb_mlx.catalog import CATALOG
from akidb_mlx.cli.commands import create_app
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.fidelity import checking
from akidb_mlx.fidelity.answers import ANSWERS, MAX_TOKENS, encode_vectors, parse_answers, read_answers, write_answers
from akidb_mlx.fidelity.checking import check_answers, cosine_bounds
from akidb_mlx.fidelity.making import make_answers, with_reached
from akidb_mlx.fidelity.shipped import shipped_file
from benchmarks.quantize import quantize
from tests.fake_embedder import FakeEmbedder
from tests.support import GOLDENS, WEIGHTS, edit_json, edit_tensors

UNCHECKED = Settings(known_answers=False)


def load(directory, **settings):
    return EmbeddingService(str(directory), device="cpu", settings=Settings(**settings))


def convert(original, into):
    """Quantise a model to 4 bits, with the answers of its original."""
    with load(original) as one:
        answers = make_answers(one)
    quantize(original, into)
    with load(into) as one:
        write_answers(with_reached(answers, one), into)
    return into


@pytest.fixture(scope="module")
def conversions(tmp_path_factory):
    """Sound conversions by name, each made once."""
    made = {}

    def get(name, original=None):
        if name not in made:
            made[name] = convert(original or GOLDENS / name, tmp_path_factory.mktemp("conversion") / name)
        return made[name]

    return get


@pytest.fixture(scope="module")
def bert_answers(service):
    return make_answers(service("tiny-bert"))


@pytest.fixture
def copied(conversions, tmp_path):
    """A conversion of one's own."""
    return lambda name: shutil.copytree(conversions(name), tmp_path / name)


def pool_otherwise(directory):
    path = directory / "1_Pooling/config.json"
    pooling = json.loads(path.read_text())
    modes = [key for key in pooling if key.startswith("pooling_mode_")]
    mean = not pooling["pooling_mode_mean_tokens"]
    chosen = {"pooling_mode_mean_tokens": mean, "pooling_mode_cls_token": not mean}
    edit_json(path, **dict.fromkeys(modes, False) | chosen)


def widen_window(directory):
    edit_json(directory / "config.json", sliding_window=24 if "tiny" in directory.name else 1024)


def drop_dense(directory):
    path = directory / "modules.json"
    path.write_text(json.dumps([one for one in json.loads(path.read_text()) if not one["type"].endswith("Dense")]))
    shutil.rmtree(directory / "2_Dense")
    shutil.rmtree(directory / "3_Dense")


def drop_end_token(directory):
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    pieces = tokenizer["post_processor"]["single"]
    assert "SpecialToken" in pieces.pop()
    path.write_text(json.dumps(tokenizer))


def change_prompt(directory):
    path = directory / "config_sentence_transformers.json"
    prompts = json.loads(path.read_text())["prompts"]
    edit_json(path, prompts={**prompts, "query": "query: "})


def cut_texts(directory):
    edit_json(directory / "sentence_bert_config.json", max_seq_length=128)


def change_scale(directory):
    def change(tensors):
        name = min(name for name in tensors if name.endswith(("down_proj.scales", "output.dense.scales")))
        tensors[name] = tensors[name].copy()
        tensors[name].flat[0] *= np.float32(4)
        return tensors

    edit_tensors(directory / "model.safetensors", change)


def lose_norm(directory):
    def change(tensors):
        name = min(name for name in tensors if "norm" in name.lower() and name.endswith(".weight"))
        tensors[name] = np.ones_like(tensors[name])
        return tensors

    edit_tensors(directory / "model.safetensors", change)


BREAKAGES = [
    ("tiny-gemma3", pool_otherwise, "wrong pooling"),
    ("tiny-gemma3", widen_window, "."),
    ("tiny-gemma3", drop_dense, "a lost Dense layer"),
    ("tiny-gemma3", drop_end_token, r"It reads 3 tokens of text 0, and the original 4"),
    ("tiny-gemma3", change_prompt, "."),
    ("tiny-gemma3", change_scale, "."),
    ("tiny-gemma3", cut_texts, "the length that texts are cut to"),
    ("tiny-qwen3", pool_otherwise, "wrong pooling"),
    ("tiny-qwen3", drop_end_token, "a special token that is added or left out"),
    ("tiny-qwen3", change_prompt, "."),
    ("tiny-qwen3", change_scale, "."),
    ("tiny-bert", pool_otherwise, "wrong pooling"),
    ("tiny-bert", change_scale, "."),
    ("tiny-bert", lose_norm, "damaged weights"),
]


@pytest.mark.parametrize(("name", "damage", "cause"), BREAKAGES)
def test_a_broken_conversion_is_refused(copied, name, damage, cause):
    directory = copied(name)
    damage(directory)
    with pytest.raises(ModelLoadError, match=rf"does not compute its known answers: .*expected 0.* to .*{cause}"):
        load(directory)
    load(directory, known_answers=False).close()


def test_a_limit_that_no_text_reaches_is_compared_too(copied):
    directory = copied("tiny-bert")
    assert max(answer.tokens for answer in read_answers(directory / ANSWERS).answers) < 200
    edit_json(directory / "sentence_bert_config.json", max_seq_length=200)
    with pytest.raises(ModelLoadError, match="reads at most 200 tokens of a text, and the original at most 256"):
        load(directory)
    load(directory, known_answers=False).close()


@pytest.mark.parametrize("name", ["tiny-gemma3", "tiny-qwen3", "tiny-bert"])
def test_a_sound_conversion_is_loaded(conversions, name):
    answers = read_answers(conversions(name) / ANSWERS)
    with load(conversions(name)) as one:
        found = check_answers(one, answers)
    reached = np.array([answer.cosine for answer in answers.answers])
    assert np.abs(found - reached).max() < 1e-6
    assert reached.max() < 0.999


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("tiny-roberta", "bfloat16"),
        ("tiny-modernbert", "float16"),
        *(pytest.param(name, "bfloat16", marks=pytest.mark.slow) for name in ("tiny-embedding-gemma2", "tiny-gemma3")),
        pytest.param("tiny-qwen2", "float16", marks=pytest.mark.slow),
    ],
)
def test_half_precision_is_within_its_margin(service, tmp_path, name, precision):
    directory = shutil.copytree(GOLDENS / name, tmp_path / name)
    write_answers(make_answers(service(name)), directory)
    with load(directory, precision=precision) as one:
        angle = checking.allowed_angle(one.get_model_info())
        lowest = check_answers(one, read_answers(directory / ANSWERS)).min()
    assert math.cos(angle) <= lowest < 1 - 1e-7  # it did not run in float32


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), [("tiny-bert", "float16"), ("tiny-gemma3", "bfloat16")])
def test_a_sound_conversion_is_loaded_in_half_precision(conversions, name, precision):
    with load(conversions(name), precision=precision) as one:
        assert one.get_model_info()["precision"] == precision


def test_a_prompt_that_was_lost_is_named(copied):
    directory = copied("tiny-gemma3")
    edit_json(directory / "config_sentence_transformers.json", prompts={"query": "task: search result | query: "})
    with pytest.raises(ModelLoadError, match="its known answers cannot be computed: input_type 'STS'"):
        load(directory)


def test_a_broken_onnx_file_is_refused(tmp_path):
    """All backends are checked in one place."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    other = shutil.copytree(GOLDENS / "tiny-bert", tmp_path / "other")
    lose_norm(other)
    assert CliRunner().invoke(create_app(), ["export", str(other), "-o", str(tmp_path / "exported")]).exit_code == 0
    directory = shutil.copytree(GOLDENS / "tiny-bert", tmp_path / "tiny-bert")
    with load(directory) as one:
        write_answers(make_answers(one), directory)
    shutil.copytree(tmp_path / "exported/onnx", directory / "onnx")
    load(directory, backend="mlx").close()
    with pytest.raises(ModelLoadError, match="does not compute its known answers"):
        load(directory, backend="onnx")


@pytest.mark.parametrize("name", ["tiny-bert-routes", "towers-bert-qwen3", "tiny-roberta-prompt", "tiny-mpnet"])
def test_models_of_all_kinds_have_answers(service, name):
    one = service(name)
    answers = make_answers(one)
    assert check_answers(one, answers).min() > 1 - 1e-9
    assert sum(answer.tokens for answer in answers.answers) <= MAX_TOKENS


def test_the_texts_hold_each_prompt_once_and_a_long_text(service):
    answers = make_answers(service("tiny-gemma3"))
    kinds = [answer.input_type for answer in answers.answers]
    assert sorted(filter(None, kinds)) == ["STS", "document", "query"]
    assert len(kinds) >= 12
    tokens = [answer.tokens for answer in answers.answers]
    assert MAX_TOKENS - 16 < sum(tokens) <= MAX_TOKENS
    assert max(tokens) > 256  # longer than a window
    assert parse_answers(answers.model_dump_json().encode(), "it") == answers


def test_answers_are_made_in_float32_only(tmp_path):
    shutil.copytree(GOLDENS / "tiny-bert", tmp_path / "tiny")
    with load(tmp_path / "tiny", precision="bfloat16") as one:
        with pytest.raises(InvalidInputError, match="computes in bfloat16: known answers are made in float32"):
            make_answers(one)
        with load(tmp_path / "tiny") as exact:
            answers = make_answers(exact)
        with pytest.raises(InvalidInputError, match="computes in bfloat16"):
            with_reached(answers, one)


def test_what_is_no_conversion_gets_no_answers(copied, service):
    answers = make_answers(service("tiny-gemma3"))
    directory = copied("tiny-gemma3")
    drop_dense(directory)
    with load(directory, known_answers=False) as one, pytest.raises(ModelLoadError, match="reaches a mean cosine of"):
        with_reached(answers, one)
    with pytest.raises(ModelLoadError, match=r"those of another model, .*: architecture gemma3_text, found bert"):
        with_reached(answers, service("tiny-bert"))


def _changed(answers, /, **changes):
    return json.loads(answers.model_dump_json()) | changes


def _each(answers, **changes):
    content = json.loads(answers.model_dump_json())
    content["answers"][0] |= changes
    return content


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda _: [], "Input should be an object"),
        (lambda a: _changed(a, version=2), r"version: Input should be 1 \(found 2\)"),
        (lambda a: _changed(a, more=1), "more: Extra inputs are not permitted"),
        (lambda a: _changed(a, answers=[]), "answers: Tuple should have at least 1"),
        (lambda a: _changed(a, dimension="64"), "dimension: Input should be a valid integer"),
        (lambda a: _changed(a, dimension=63), "vectors holds .* bytes, and .* texts of 63 values take"),
        (lambda a: _changed(a, vectors="?" * 99), "vectors is not base64"),
        (lambda a: _changed(a, vectors=a.vectors[:-4]), "vectors holds"),
        (lambda a: _changed(a, vectors="AADAfw==" + a.vectors[8:]), "vectors"),
        (lambda a: _changed(a, vectors="A" * len(a.vectors)), "the vector of text 0 has the length 0"),
        (lambda a: _each(a, cosine=float("nan")), "answers.0.cosine"),
        (lambda a: _each(a, cosine=1.5), "answers.0.cosine: Input should be less than or equal to 1"),
        (lambda a: _each(a, text=7), r"answers.0.text: Input should be a valid string \(found 7\)"),
        (lambda a: _each(a, text="x" * 9000), "answers.0.text: String should have at most 8192"),
        (lambda a: _each(a, tokens=0), "answers.0.tokens"),
        (lambda a: _each(a, tokens=500), r"its texts have \d+ tokens, at most 512"),
    ],
)
def test_answers_are_read_strictly(bert_answers, tmp_path, change, problem):
    content = change(bert_answers)
    (tmp_path / ANSWERS).write_text(json.dumps(content))
    with pytest.raises(ModelLoadError, match=rf"{ANSWERS} is not usable: .*{problem}.*; make it anew with"):
        read_answers(tmp_path / ANSWERS)


def test_vectors_that_are_not_numbers_are_refused(bert_answers):
    answers = bert_answers
    vectors = answers.array().copy()
    vectors[2, 5] = np.nan
    with pytest.raises(ModelLoadError, match="the vector of text 2 has the length nan, expected 1"):
        parse_answers(answers.model_copy(update={"vectors": encode_vectors(vectors)}).model_dump_json().encode(), "it")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_json_stops_loading(tmp_path, content):
    directory = shutil.copytree(GOLDENS / "tiny-bert", tmp_path / "tiny")
    (directory / ANSWERS).write_bytes(content)
    with pytest.raises(ModelLoadError, match=f"{ANSWERS} is not usable"):
        load(directory)
    load(directory, known_answers=False).close()


def test_what_is_no_file_of_a_sane_size_is_refused(tmp_path):
    os.mkfifo(tmp_path / ANSWERS)
    with pytest.raises(ModelLoadError, match="is not a file"):
        read_answers(tmp_path / ANSWERS)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelLoadError, match="cannot be read: Is a directory"):
        read_answers(tmp_path / "folder")
    assert read_answers(tmp_path / "none" / ANSWERS) is None
    with (tmp_path / "large").open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(ModelLoadError, match="has more than 4194304 bytes"):
        read_answers(tmp_path / "large")


def test_answers_of_another_model_stop_loading(tmp_path, service):
    directory = shutil.copytree(GOLDENS / "tiny-bert", tmp_path / "tiny")
    write_answers(make_answers(service("tiny-qwen3")), directory)
    with pytest.raises(ModelLoadError, match=r"another model, .*tiny-qwen3: architecture qwen3, found bert"):
        load(directory)
    with FakeEmbedder() as fake:
        answers = make_answers(fake).model_copy(update={"architecture": "bert"})
    write_answers(answers, directory)
    with pytest.raises(ModelLoadError, match="another model, fake: dimension 16, found 64"):
        load(directory)


def test_other_tokens_are_refused_however_near_the_vectors_are(service, tmp_path, bert_answers):
    directory = shutil.copytree(GOLDENS / "tiny-bert", tmp_path / "tiny")
    first = bert_answers.answers[0]
    others = (first.model_copy(update={"tokens": first.tokens + 1}), *bert_answers.answers[1:])
    answers = bert_answers.model_copy(update={"answers": others})
    write_answers(answers, directory)
    with pytest.raises(
        ModelLoadError, match=r"reads its known answers otherwise\. It reads 4 tokens of text 0, and the original 5"
    ):
        load(directory)
    with pytest.raises(ModelLoadError, match="reads its known answers otherwise"):
        with_reached(answers, service("tiny-bert"))


def test_the_environment_switches_the_test_off(copied, monkeypatch):
    directory = copied("tiny-bert")
    pool_otherwise(directory)
    monkeypatch.setenv("AKIDB_KNOWN_ANSWERS", "false")
    EmbeddingService(str(directory), device="cpu").close()
    monkeypatch.delenv("AKIDB_KNOWN_ANSWERS")
    with pytest.raises(ModelLoadError, match="AKIDB_KNOWN_ANSWERS=false loads it nevertheless"):
        EmbeddingService(str(directory), device="cpu")


def test_the_answers_do_not_depend_on_the_dimensions_of_a_service(conversions):
    with load(conversions("tiny-gemma3"), dimensions=32) as one:
        assert one.dimension == 32


def test_a_cosine_may_be_an_angle_away():
    assert cosine_bounds(1.0, 0.1) == pytest.approx((math.cos(0.1), 1.0))
    assert cosine_bounds(math.cos(0.2), 0.1) == pytest.approx((math.cos(0.3), math.cos(0.1)))
    assert cosine_bounds(-1.0, 0.5) == pytest.approx((-1.0, math.cos(math.pi - 0.5)))


def test_a_vector_that_is_nearer_than_it_was_is_another_one(conversions):
    """As many faults turn a vector to the original as away from it."""
    answers = read_answers(conversions("tiny-bert") / ANSWERS)
    first = answers.answers[0]
    farther = first.model_copy(update={"cosine": math.cos(math.acos(first.cosine) + 0.002)})
    changed = answers.model_copy(update={"answers": (farther, *answers.answers[1:])})
    with load(conversions("tiny-bert")) as one, pytest.raises(ModelLoadError, match=r"text 0 has .*1 of \d+ texts"):
        check_answers(one, changed)


def test_the_angle_depends_on_the_precision():
    info = {"precision": "float32", "allow_tf32": False}
    assert checking.allowed_angle(info) < checking.allowed_angle({**info, "allow_tf32": True})
    assert checking.allowed_angle({**info, "precision": "float32; bfloat16"}) == 0.1
    assert checking.allowed_angle({**info, "precision": "int8"}) == 0.5


SHIPPED = ["minilm-l6-v2", "all-mpnet-base-v2", "embeddinggemma-300m"]


def test_shipped_answers_are_those_of_the_catalogue():
    files = {shipped_file(CATALOG[name].repo_id) for name in SHIPPED}
    assert files == set(files.copy().pop().parent.iterdir())
    for name in SHIPPED:
        record = CATALOG[name]
        answers = read_answers(shipped_file(record.repo_id))
        assert (answers.model, answers.dimension) == (record.repo_id, record.vector_size)
        assert answers.reference.startswith("sentence-transformers")
        longest = max(answer.tokens for answer in answers.answers)
        assert longest > 256 if answers.limit == MAX_TOKENS else longest > 120  # longer than a window
        assert answers.limit == {"minilm-l6-v2": 256, "all-mpnet-base-v2": 384, "embeddinggemma-300m": 512}[name]


def test_minilm_computes_what_the_package_ships(minilm, monkeypatch):
    answers = read_answers(shipped_file(CATALOG["minilm-l6-v2"].repo_id))
    assert check_answers(minilm, answers).min() > 1 - 1e-10
    turned = answers.model_copy(update={"vectors": encode_vectors(np.roll(answers.array(), 1, axis=1))})
    monkeypatch.setattr("akidb_mlx.fidelity.shipped.read_answers", lambda path: turned if path.is_file() else None)
    with pytest.raises(ModelLoadError, match="does not compute its known answers"):
        EmbeddingService("minilm-l6-v2", device="cpu")


@pytest.mark.timing
def test_minilms_answers_take_little_time(minilm):
    import time

    answers = read_answers(shipped_file(CATALOG["minilm-l6-v2"].repo_id))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        check_answers(minilm, answers)
        times.append(time.perf_counter() - began)
    assert sorted(times)[2] < 0.15


@pytest.mark.real_weights
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "all-mpnet-base-v2", "embeddinggemma-300m"])
def test_real_weights_compute_what_the_package_ships(name):
    if not (WEIGHTS / name).is_dir():
        pytest.skip(f"{name} is not in {WEIGHTS}")
    record = next(one for one in CATALOG.values() if one.repo_id.endswith(f"/{name}"))
    with load(WEIGHTS / name) as one:
        assert check_answers(one, read_answers(shipped_file(record.repo_id))).min() > 1 - 1e-9


REAL_BREAKAGES = [pool_otherwise, widen_window, drop_dense, drop_end_token, change_prompt, change_scale, cut_texts]


@pytest.mark.real_weights
@pytest.mark.load
@pytest.mark.parametrize("damage", REAL_BREAKAGES)
def test_a_broken_conversion_of_embeddinggemma_is_refused(conversions, tmp_path, damage):
    name = "embeddinggemma-300m"
    directory = tmp_path / name
    shutil.copytree(conversions(name, WEIGHTS / name), directory)
    damage(directory)
    with pytest.raises(ModelLoadError, match="does not compute its known answers"):
        load(directory)


@pytest.mark.real_weights
@pytest.mark.load
@pytest.mark.parametrize("damage", [pool_otherwise, drop_end_token, change_prompt])
def test_a_broken_conversion_of_qwen3_is_refused(conversions, tmp_path, damage):
    name = "Qwen3-Embedding-0.6B"
    if not (WEIGHTS / name).is_dir():
        pytest.skip(f"{name} is not in {WEIGHTS}")
    directory = shutil.copytree(conversions(name, WEIGHTS / name), tmp_path / name)
    damage(directory)
    with pytest.raises(ModelLoadError, match="does not compute its known answers"):
        load(directory)
