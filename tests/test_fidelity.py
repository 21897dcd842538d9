"""Fidelity cards, the figures in them, the comparison of models, and the commands that write and show them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from akidb_mlx import EmbeddingService, Reranker, Settings
from akidb_mlx.cli.commands import create_app
from akidb_mlx.cli.compare import NOT_INTERCHANGEABLE
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.fidelity.answers import ANSWERS, read_answers
from akidb_mlx.fidelity.card import Cosines, read_card, write_card
from akidb_mlx.fidelity.comparing import compare, sample
from akidb_mlx.fidelity.figures import cosines, cut, neighbour_recall, neighbours, spearman
from akidb_mlx.fidelity.json_files import CARD
from akidb_mlx.fidelity.markdown import to_markdown
from akidb_mlx.fidelity.measuring import make_card, measure, read_pairs, stored_bytes
from akidb_mlx.fidelity.scores import make_reranker_card, measure_scores
from akidb_mlx.fidelity.texts import TextSet, default_texts, read_texts
from akidb_mlx.quantization import quantize_model
from benchmarks.quantize import quantize
from model_cache.record import CacheRecord
from tests.support import GOLDENS, TEXTS, edit_json, edit_tensors

SHORT = tuple(text for text in TEXTS if text and len(text) < 60)[:16]
TEXT_SET = TextSet("some", "CC0-1.0", SHORT, ("en",) * 5 + ("",) * (len(SHORT) - 5))


def run(*arguments, status=0):
    done = CliRunner().invoke(create_app(), [str(one) for one in arguments])
    assert done.exit_code == status, done.output
    return done.stdout


def refused(*arguments):
    done = CliRunner().invoke(create_app(), [str(one) for one in arguments])
    assert done.exit_code == 1
    return str(done.exception)


@pytest.fixture
def texts(tmp_path):
    """A file of a few short texts."""
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(SHORT))
    return path


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A copy of tiny-gemma3, in 4 bits."""
    folder = tmp_path_factory.mktemp("quantised") / "tiny-gemma3"
    quantize(GOLDENS / "tiny-gemma3", folder)
    return folder


@pytest.fixture(scope="module")
def measured(service, quantised):
    """The original and its conversion, measured."""
    with EmbeddingService(str(quantised), device="cpu") as one:
        return measure(service("tiny-gemma3"), TEXT_SET), measure(one, TEXT_SET)


@pytest.fixture(scope="module")
def card(measured):
    return make_card(measured[1], measured[0], TEXT_SET)


def test_cosines_are_those_of_directions():
    first = np.array([[3, 0], [1, 1], [1, 0]], np.float32)
    second = np.array([[1, 0], [0, 2], [-1, 0]], np.float32)
    assert cosines(first, second) == pytest.approx([1, np.sqrt(0.5), -1])
    assert cut(np.array([[3, 4, 9]], np.float32), 2).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]


def test_neighbours_leave_out_the_text_itself():
    index = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
    assert neighbours(index, index, 1)[:, 0].tolist() == [1, 0, 3, 2]
    assert neighbour_recall(index, index) == 1
    swapped = index[[2, 3, 0, 1]]
    # The three neighbours of four texts are all others.
    assert neighbour_recall(swapped, index) == 1
    random = np.random.default_rng(0)
    many = random.normal(size=(700, 8)).astype(np.float32)
    unrelated = random.normal(size=(700, 8)).astype(np.float32)
    assert neighbour_recall(unrelated, many) < 0.05
    expected = [set(np.argsort(-(row @ many.T))[:11].tolist()) - {i} for i, row in enumerate(cut(many, 8))]
    found = neighbours(cut(many, 8), many, 10)
    assert sum(len(set(one) & other) for one, other in zip(found.tolist(), expected, strict=True)) >= 10 * 695


def test_queries_of_one_model_are_searched_in_the_vectors_of_the_other():
    """A rotation keeps the neighbours among a model's own vectors, and loses them among the other's."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(200, 16)).astype(np.float32)
    rotation = np.linalg.qr(random.normal(size=(16, 16)))[0].astype(np.float32)
    assert neighbour_recall(vectors @ rotation, vectors) > 0.99
    assert neighbour_recall(vectors @ rotation, vectors, queries_only=True) < 0.3


def test_spearman_is_scipys():
    from scipy.stats import spearmanr

    random = np.random.default_rng(2)
    for ties in (3, 1000):
        first, second = random.integers(0, ties, 60), random.normal(size=60)
        assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert spearman(np.ones(4), np.arange(4.0)) == 0


def test_the_default_texts():
    texts = default_texts()
    assert (len(texts.texts), texts.licence) == (320, "CC0-1.0")
    assert len(set(texts.texts)) == len(texts.texts)
    assert len(set(texts.languages) - {""}) == 30
    assert max(map(len, texts.texts)) > 1000


def test_texts_of_a_file(tmp_path):
    (tmp_path / "lines.txt").write_text("\ufeffone\n\ntwo\r\n", encoding="utf-8")
    assert read_texts(tmp_path / "lines.txt").texts == ("one", "two")
    for name, content, problem in (
        ("one.txt", b"only", "holds 1 texts, at least 2"),
        ("latin.txt", b"\xe9\n\xe9", "is not UTF-8"),
        ("object.json", b"{}", "must hold a JSON array of strings"),
        ("bad.json", b"[", "is not JSON"),
        ("lone.json", b'["a", "\\ud800"]', "text 1 of .*lone.json"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInputError, match=problem):
            read_texts(tmp_path / name)
    with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
        read_texts(tmp_path / "none.txt")


def test_pairs_of_a_file(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('first,second,score\n"a, b",c,1.5\nd,e,2\n')
    pairs = read_pairs(path)
    assert (pairs.first, pairs.second, pairs.scores) == (("a, b", "d"), ("c", "e"), (1.5, 2.0))
    assert len(read_pairs(GOLDENS / "stsb-en-test.csv").scores) == 1379
    for content, problem in (
        ("a,b,1\nc,d,x\n", "row 2 is not two sentences and a score"),
        ("a,b,1\nc,1\n", "row 2 is not two sentences"),
        ("a,b,nan\nc,d,1\n", "row 1 has the score nan, which is not finite"),
        ("a,b,1\n", "holds 1 pairs"),
    ):
        path.write_text(content)
        with pytest.raises(InvalidInputError, match=problem):
            read_pairs(path)


def test_a_card_has_the_figures_of_the_vectors(measured, card, quantised):
    original, model = measured
    each = (model.vectors * original.vectors).sum(axis=1)
    assert card.whole.cosine.mean == pytest.approx(each.mean(), abs=1e-6)
    assert card.whole.cosine.worst == pytest.approx(each.min(), abs=1e-6)
    assert card.whole.cosine.percentile_1 == pytest.approx(np.percentile(each, 1), abs=1e-6)
    assert card.whole.recall_at_10 == pytest.approx(neighbour_recall(model.vectors, original.vectors))
    assert 0.5 < card.whole.cosine.worst < card.whole.cosine.mean < 0.999
    assert sum(one.cosine.texts for one in card.lengths) == len(SHORT)
    assert [(name, one.texts) for name, one in card.languages.items()] == [("en", 5)]
    assert card.languages["en"].mean == pytest.approx(each[:5].mean(), abs=1e-6)
    assert (card.quantization, card.precision, card.texts.count) == ("4-bit affine, group 64", "float32", len(SHORT))
    assert (
        card.weight_bytes
        == stored_bytes(quantised)
        == sum(file.stat().st_size for file in quantised.rglob("*.safetensors"))
    )


def test_a_card_has_figures_for_each_matryoshka_size(service):
    sizes = [one.dimension for one in make_card(*[measure(service("tiny-qwen3"), TEXT_SET)] * 2, TEXT_SET).dimensions]
    assert sizes == [64]
    with EmbeddingService(str(GOLDENS / "tiny-gemma3"), device="cpu") as one:
        original = measure(one, TEXT_SET)
        wide = np.random.default_rng(3).normal(size=(len(SHORT), 200)).astype(np.float32)
        info = {**original.info, "native_dimension": 200}
        fake = type(original)(info, None, wide, original.token_counts, 1.0, {})
        assert [one.dimension for one in make_card(fake, fake, TEXT_SET).dimensions] == [200, 128, 64]


def test_a_card_needs_an_original_in_float32_and_of_its_size(measured):
    original, model = measured
    rounded = type(original)({**original.info, "precision": "bfloat16"}, *list(vars(original).values())[1:])
    with pytest.raises(InvalidInputError, match="was computed in bfloat16: compare with float32"):
        make_card(model, rounded, TEXT_SET)
    short = type(model)(model.info, None, model.vectors[:, :8], model.token_counts, 1.0, {})
    with pytest.raises(InvalidInputError, match=r"has vectors of 8 values, and .* of 64: it is no conversion"):
        make_card(short, original, TEXT_SET)


def test_a_card_is_read_back_strictly(card, tmp_path):
    assert read_card(tmp_path) is None
    write_card(card, tmp_path)
    assert read_card(tmp_path) == card
    for change, problem in (
        ({"version": 2}, "version: Input should be 1"),
        ({"more": 1}, "more: Extra inputs"),
        ({"dimensions": []}, "dimensions: Tuple should have at least 1"),
        ({"texts_per_second": float("inf")}, "texts_per_second"),
    ):
        (tmp_path / CARD).write_text(json.dumps(card.plain() | change))
        with pytest.raises(ModelLoadError, match=rf"{CARD} is not usable: {problem}.*make it anew with"):
            read_card(tmp_path)


@pytest.mark.parametrize("name", ["reranker-bert", "reranker-bert-labels"])
def test_scores_of_a_reranker_are_compared_ranking_by_ranking(name):
    pairs = [(SHORT[query], SHORT[(query + step) % 16]) for query in (0, 10) for step in range(1, 11)]
    with Reranker(GOLDENS / name, device="cpu") as one:
        original = measure_scores(one, TEXT_SET)
        expected = one.scores(pairs).reshape(2, 10, -1)
    labels = expected.shape[2]
    for query in range(2):
        for label in range(labels):
            assert np.allclose(original.rankings[query * labels + label], expected[query, :, label], atol=1e-6)
    turned = original.rankings.copy()
    turned[0] = turned[0][::-1]
    found = make_reranker_card(replace(original, rankings=turned), original, TEXT_SET)
    correlations = [spearmanr(*pair).statistic for pair in zip(turned, original.rankings, strict=True)]
    assert abs(found.scores.order - np.mean(correlations)) < 1e-9
    assert found.scores.worst_difference == np.abs(turned - original.rankings).max() > 0
    assert found.scores.mean_difference == pytest.approx(np.abs(turned - original.rankings).mean())
    assert (found.scores.rankings, found.scores.documents) == (2 * labels, 10)
    assert found.scores.same_best == pytest.approx(1 - 1 / len(turned))
    same = make_reranker_card(original, original, TEXT_SET).scores
    assert (same.order, same.same_best, same.worst_difference) == (pytest.approx(1), 1, 0)


def test_a_card_of_scores_needs_an_original_of_the_same_labels_in_float32():
    measured = []
    for name, precision in (("reranker-bert", "auto"), ("reranker-bert-labels", "auto"), ("reranker-bert", "float16")):
        with Reranker(GOLDENS / name, device="cpu", settings=Settings(precision=precision)) as one:
            measured.append(measure_scores(one, TEXT_SET))
    with pytest.raises(InvalidInputError, match="have not the same number of labels"):
        make_reranker_card(measured[0], measured[1], TEXT_SET)
    with pytest.raises(InvalidInputError, match="was computed in float16: compare with float32"):
        make_reranker_card(measured[0], measured[2], TEXT_SET)
    with pytest.raises(InvalidInputError, match="holds 2 texts, at least 3 are needed"):
        measure_scores(None, TextSet("two", None, SHORT[:2], ("", "")))


def test_evaluate_compares_the_scores_of_a_reranker(texts, tmp_path):
    directory = tmp_path / "reranker"
    quantize_model(GOLDENS / "reranker-bert", directory, bits=8, group_size=32, card=False)
    assert "name the original with --against" in refused("evaluate", directory, "--texts", texts)
    shown = run("evaluate", directory, "--against", GOLDENS / "reranker-bert", "--texts", texts)
    card = read_card(directory)
    assert shown == to_markdown(card)
    assert f"| best document is the original's | {card.scores.same_best:.4f} |" in shown
    assert card.scores.order > 0.95 and 0 < card.scores.worst_difference < 0.02 and card.pairs_per_second > 0
    problem = refused("evaluate", directory, "--against", GOLDENS / "reranker-bert", "--input-type", "query")
    assert "leave --sts and --input-type out" in problem
    assert "is a sparse or multi-vector model" in refused("evaluate", GOLDENS / "sparse-bert")


def test_a_model_reports_its_card(card, quantised, tmp_path, caplog):
    directory = shutil.copytree(quantised, tmp_path / "tiny")
    write_card(card, directory)
    with EmbeddingService(str(directory), device="cpu") as one:
        assert one.get_model_info()["fidelity"] == card.plain()
    (directory / CARD).write_text("{")
    with EmbeddingService(str(directory), device="cpu") as one:
        assert one.get_model_info()["fidelity"] is None
    assert f"{CARD} is not usable" in caplog.text
    (directory / CARD).unlink()
    with EmbeddingService(str(directory), device="cpu") as one:
        assert one.get_model_info()["fidelity"] is None


def test_markdown_is_made_of_whole_tables(card):
    hostile = card.model_copy(update={"model": "a|b\n# c", "languages": {"x|y": card.whole.cosine}})
    text = to_markdown(hostile)
    assert text.startswith("# Fidelity of a\\|b # c\n")
    tables = [block.split("\n") for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    plot = text.split("```text\n")[1].split("```")[0].splitlines()
    assert len(plot) == len(card.lengths) + 1
    assert max(line.count("█") for line in plot) == 40


def test_evaluate_writes_a_card_beside_the_weights(quantised, texts, tmp_path):
    directory = shutil.copytree(quantised, tmp_path / "tiny")
    pairs = tmp_path / "en.csv"
    pairs.write_text("a cat,a dog,3\na car,the sea,0\nyes,yes,5\n")
    shown = run("evaluate", directory, "--against", GOLDENS / "tiny-gemma3", "--texts", texts, "--sts", f"en={pairs}")
    card = read_card(directory)
    assert shown == to_markdown(card)
    assert card.whole.spearman["en"].pairs == 3
    assert "Spearman, en (original)" in shown
    out = tmp_path / "out"
    written = run("evaluate", directory, "--against", GOLDENS / "tiny-gemma3", "--texts", texts, "-o", out, "--json")
    assert json.loads(written) == read_card(out).plain()


def test_evaluate_finds_the_original_or_asks_for_it(quantised, texts, tmp_path):
    directory = shutil.copytree(quantised, tmp_path / "tiny")
    assert "is quantised (4-bit affine, group 64): name the original with --against" in refused(
        "evaluate", directory, "--texts", texts
    )
    run("verify", directory, "--answers-from", GOLDENS / "tiny-gemma3")
    run("evaluate", directory, "--texts", texts)
    assert read_card(directory).original == str(GOLDENS / "tiny-gemma3")
    plain = shutil.copytree(GOLDENS / "tiny-bert", tmp_path / "plain")
    run("evaluate", plain, "--texts", texts)
    assert read_card(plain).whole.cosine.worst > 0.999999
    assert "--sts takes LANGUAGE=FILE" in refused("evaluate", plain, "--texts", texts, "--sts", "x.csv")


def test_a_card_in_the_cache_is_recorded_and_shown(hub, texts):
    hub.add("org/tiny", GOLDENS / "tiny-bert")
    path = json.loads(run("pull", "org/tiny", "--json"))[0]["path"]
    assert json.loads(run("show", "org/tiny", "--json"))[0]["fidelity"] is None
    assert run("list", "--fidelity").rstrip("\n").split("\t")[-1] == ""
    run("evaluate", "org/tiny", "--texts", texts)
    files = CacheRecord.read(type(GOLDENS)(path)).files
    assert CARD in files
    run("verify", "org/tiny")
    card = json.loads(run("show", "org/tiny", "--json"))[0]["fidelity"]
    assert card["model"] == "org/tiny"
    assert "cosine 1.0000 (worst 1.0000), recall@10 1.000 to org/tiny" in run("show", "org/tiny")
    assert run("list", "--fidelity").rstrip("\n").split("\t")[-1].startswith("cosine 1.0000")
    assert json.loads(run("list", "--fidelity", "--json"))[0]["fidelity"] == card
    assert "cosine" not in run("list")


def test_a_card_of_the_hub_comes_with_the_model(hub, card, quantised, tmp_path):
    directory = shutil.copytree(quantised, tmp_path / "tiny")
    write_card(card, directory)
    run("verify", directory, "--answers-from", GOLDENS / "tiny-gemma3")
    hub.add("org/converted", directory)
    path = type(GOLDENS)(json.loads(run("pull", "org/converted", "--json"))[0]["path"])
    assert read_card(path) == card
    assert read_answers(path / ANSWERS).model == str(GOLDENS / "tiny-gemma3")
    with EmbeddingService("org/converted", device="cpu") as one:
        assert one.get_model_info()["fidelity"] == card.plain()


def test_verify_makes_answers(quantised, hub, tmp_path):
    hub.add("org/converted", quantised)
    made = json.loads(run("verify", "org/converted", "--answers-from", GOLDENS / "tiny-gemma3", "--json"))
    answers = read_answers(type(GOLDENS)(made["path"]))
    assert made["cosines"] == [answer.cosine for answer in answers.answers]
    assert (made["original"], made["texts"]) == (answers.model, len(answers.answers))
    assert json.loads(run("verify", "org/converted", "--json")).popitem()[1]["damaged"] == []
    with EmbeddingService("org/converted", device="cpu") as one:
        assert one.dimension == 64
    out = tmp_path / "out"
    assert "12 texts, cosine to" in run("verify", quantised, "--answers-from", GOLDENS / "tiny-gemma3", "-o", out)
    assert not (quantised / ANSWERS).exists()
    assert np.abs(read_answers(out / ANSWERS).array() - answers.array()).max() < 1e-6


def test_verify_refuses_what_does_not_go_together(quantised):
    assert "takes one model" in refused("verify", quantised, quantised, "--answers-from", "x")
    assert "takes one model" in refused("verify", "--answers-from", "x")
    assert "go with --answers-from" in refused("verify", "-o", "x")
    assert "those of another model" in refused("verify", quantised, "--answers-from", GOLDENS / "tiny-bert")


@pytest.fixture(scope="module")
def samples(service):
    made = {}

    def get(name):
        if name not in made:
            made[name] = sample(service(name), TEXT_SET)
        return made[name]

    return get


def test_a_model_is_interchangeable_with_itself(samples):
    found = compare(samples("tiny-gemma3"), samples("tiny-gemma3"))
    assert (found.verdict, found.differences, found.recall_at_10) == ("interchangeable", (), (1.0, 1.0))
    assert found.prompts.keys() == {"query", "document", "STS"}


def test_models_of_other_spaces_and_sizes_are_told_apart(samples):
    found = compare(samples("tiny-gemma3"), samples("tiny-qwen3"))
    assert found.verdict == "different"
    assert found.cosine.mean < 0.5
    assert f"prompts of {GOLDENS / 'tiny-gemma3'} only: STS" in found.differences
    assert "pooling: mean and last" in found.differences
    wide = samples("tiny-gemma3")
    measured = type(wide.measured)(
        {**wide.measured.info, "native_dimension": 32}, None, wide.measured.vectors[:, :32], (), 1.0, {}
    )
    found = compare(samples("tiny-gemma3"), type(wide)(measured, {}))
    assert (found.verdict, found.cosine, found.recall_at_10) == ("different", None, None)
    assert "values that the model computes: 64 and 32" in found.differences


def test_compare_by_command(texts, tmp_path):
    tiny = shutil.copytree(GOLDENS / "tiny-gemma3", tmp_path / "tiny")
    same = run("compare", GOLDENS / "tiny-gemma3", tiny, "--texts", texts)
    assert same.endswith("verdict: interchangeable\n")
    assert "mean cosine\t1.00000\t0.999\t0.95\n" in same
    edit_json(
        tiny / "config_sentence_transformers.json", prompts={"query": "find: ", "document": "title: none | text: "}
    )
    found = json.loads(
        run("compare", GOLDENS / "tiny-gemma3", tiny, "--texts", texts, "--json", status=NOT_INTERCHANGEABLE)
    )
    assert found["verdict"] != "interchangeable"
    assert found["cosine"]["worst"] > 0.999999
    assert found["prompts"]["query"] < 0.999 < found["prompts"]["document"]
    assert found["thresholds"]["close"] == {"mean": 0.95, "worst": 0.8, "recall": 0.7}

    def turn(tensors):
        return {name: np.roll(tensor, 1, axis=0) for name, tensor in tensors.items()}

    edit_tensors(tiny / "model.safetensors", turn)
    shown = run("compare", GOLDENS / "tiny-gemma3", tiny, "--texts", texts, status=NOT_INTERCHANGEABLE)
    assert shown.endswith("verdict: different\n")


def test_a_verdict_needs_every_threshold(samples):
    one = samples("tiny-gemma3")
    vectors = one.measured.vectors

    def turned(angle, rows=slice(None)):
        """Vectors that are turned by an angle, each into the direction of the next value."""
        other = vectors.copy()
        away = np.roll(vectors, 1, axis=1)[rows]
        away -= (away * vectors[rows]).sum(axis=1, keepdims=True) * vectors[rows]
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        other[rows] = np.cos(angle) * vectors[rows] + np.sin(angle) * away
        measured = type(one.measured)(one.measured.info, None, other, one.measured.token_counts, 1.0, {})
        return compare(one, type(one)(measured, one.prompted))

    assert turned(0.0).verdict == "interchangeable"
    assert turned(0.2).verdict in ("close", "different")
    assert turned(0.2).cosine.mean == pytest.approx(np.cos(0.2), abs=1e-5)
    alone = turned(0.5, slice(0, 1))
    assert alone.cosine.mean > 0.99
    assert alone.verdict == "close"
    assert Cosines.of(cosines(vectors, -vectors)).worst == -1
    lost = type(one)(one.measured, {name: each for name, each in one.prompted.items() if name != "STS"})
    assert compare(one, lost).verdict == "close"


def test_settings_of_the_known_answers_do_not_reach_the_measured_model(quantised, texts, tmp_path):
    """A card of a broken model can be made, and stale answers be replaced."""
    directory = shutil.copytree(quantised, tmp_path / "tiny")
    run("verify", directory, "--answers-from", GOLDENS / "tiny-gemma3")
    edit_json(directory / "config.json", sliding_window=24)
    with pytest.raises(ModelLoadError):
        EmbeddingService(str(directory), device="cpu", settings=Settings())
    run("evaluate", directory, "--texts", texts)
