"""Training: records, features, what the labels of queries are, and files that equal scikit-learn's own predictions."""

import json
import tracemalloc

import numpy as np
import pytest

from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.selection import (
    CATEGORIES,
    Record,
    Selector,
    evaluate,
    fitting,
    plot_evaluation,
    read_records,
    split_records,
    train,
)
from akidb_mlx.selection.outcomes import gather
from akidb_mlx.selection.training import _folds
from tests.fake_embedder import FakeEmbedder, encode
from tests.support import run_python

sklearn = pytest.importorskip("sklearn")

TOPICS = {
    "sums": ("12 + 7 = 19", "81 - 4 = 77", "3 * 9 = 27", "64 / 8 = 8", "5 + 55 = 60", "99 - 90 = 9", "7 * 7 = 49"),
    "shouts": ("STOP RIGHT NOW", "OH MY WORD", "NOT AGAIN", "GO AWAY", "HELP ME OUT", "WAIT FOR ME", "LOOK AT THAT"),
    "whispers": (
        "be quiet now",
        "hush little one",
        "softly goes it",
        "a low voice",
        "say it gently",
        "no noise",
        "shh",
    ),
}


def labelled():
    """Records that only say which label is right."""
    return [Record(text, topic) for topic, texts in TOPICS.items() for text in texts]


def routed(models=("large", "small", "tiny")):
    """Each query with each model: each model is good at one topic, and the small ones are faster."""
    return [
        Record(text, model, 0.9 if number == skill else 0.3, 3.0 - skill)
        for number, texts in enumerate(TOPICS.values())
        for text in texts
        for skill, model in enumerate(models)
    ]


def blobs(seed, labels, count=150, dimension=8, spread=2.0):
    """Records with embeddings around a point for each label."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(labels, dimension)) * spread
    return [
        Record(
            f"query {number}", f"m{number % labels}", embedding=centres[number % labels] + rng.normal(size=dimension)
        )
        for number in range(count)
    ]


# Records


def test_records_of_a_file(tmp_path):
    path = tmp_path / "records.jsonl"
    lines = [
        {
            "query": "a",
            "model_name": "m",
            "performance": 0.5,
            "response_time": 1.25,
            "category": "law",
            "task_name": "x",
        },
        {"query": "b", "model_name": "n", "embedding": [1, 2.5], "response": None, "unknown": {"a": 1}},
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n \n")
    first, second = read_records(path)
    assert (first.query, first.model_name, first.performance, first.category) == ("a", "m", 0.5, "law")
    assert (first.latency, first.embedding) == (1_250_000_000, None)
    assert (second.performance, second.latency, second.embedding.tolist()) == (None, None, [1.0, 2.5])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"model_name": "m"}', "line 3: it has no query"),
        ('{"query": "a", "model_name": null}', "line 3: it has no model_name"),
        ('{"query": "  ", "model_name": "m"}', "line 3: query is empty"),
        ('{"query": 7, "model_name": "m"}', "line 3: query must be a string, found int"),
        (
            '{"query": "a", "model_name": "m", "performance": 1.5}',
            "performance must be a number from 0 to 1, found 1.5",
        ),
        ('{"query": "a", "model_name": "m", "performance": "good"}', "performance must be a number"),
        ('{"query": "a", "model_name": "m", "performance": NaN}', "performance must be a number"),
        ('{"query": "a", "model_name": "m", "response_time": -1}', "response_time must be a number from 0"),
        ('{"query": "a", "model_name": "m", "response_time": 1e300}', "response_time must be a number from 0"),
        ('{"query": "a", "model_name": "m", "category": 3}', "category must be a string"),
        ('{"query": "a", "model_name": "m", "embedding": []}', "embedding must be a list of numbers"),
        ('{"query": "a", "model_name": "m", "embedding": [1, "2"]}', "embedding must be a list of numbers"),
        (
            '{"query": "a", "model_name": "m", "embedding": [1, Infinity]}',
            "embedding holds a number that is not finite",
        ),
        ('{"query": "\\ud800", "model_name": "m"}', "query holds a lone surrogate"),
        ("[1]", "line 3: it must be a JSON object, found list"),
        ("{", "line 3: it is not valid JSON"),
        (b"\xff", "line 3: it is not valid JSON"),
        ("[" * 100_000, "line 3: it is not valid JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, message):
    path = tmp_path / "records.jsonl"
    good = b'{"query": "a", "model_name": "m"}\n'
    path.write_bytes(good + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n" + good)
    with pytest.raises(InvalidInputError, match=message):
        read_records(path)


def test_a_file_without_records(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InvalidInputError, match="holds no records"):
        read_records(tmp_path / "empty.jsonl")
    with pytest.raises(InvalidInputError, match=r"none\.jsonl cannot be read"):
        read_records(tmp_path / "none.jsonl")


def test_all_records_of_a_query_are_held_out_together():
    records = routed()
    kept, held = split_records(records, 0.3, seed=1)
    assert len(kept) + len(held) == len(records)
    assert {one.query for one in kept} & {one.query for one in held} == set()
    assert len({one.query for one in held}) == 6
    assert [one.query for one in split_records(records, 0.3, seed=1)[1]] == [one.query for one in held]
    assert [one.query for one in split_records(records, 0.3, seed=2)[1]] != [one.query for one in held]
    for share in (0, 1, -1, 0.001, 0.999):
        with pytest.raises(InvalidInputError, match="share"):
            split_records(records, share)


def test_dictionaries_are_split_too():
    records = [{"query": str(number), "model_name": "m"} for number in range(10)]
    kept, held = split_records(records, 0.3)
    assert (len(kept), len(held)) == (7, 3)
    assert all(isinstance(one, Record) for one in (*kept, *held))
    for records, share, seed, message in (
        ([{"query": "a"}], 0.5, 0, "record 0: it has no model_name"),
        (routed(), "0.3", 0, "the share to hold out must be a number"),
        (routed(), float("nan"), 0, "the share to hold out must be a number"),
        (routed(), True, 0, "the share to hold out must be a number"),
        (routed(), 0.3, -1, "seed must be an integer"),
        (routed(), 0.3, 10**5000, "seed must be an integer .* too many digits"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            split_records(records, share, seed)


def test_numbers_beyond_float64_are_refused():
    for field in ("performance", "response_time"):
        for number in (10**400, 10**5000):
            with pytest.raises(InvalidInputError, match=f"{field} must be a number from 0"):
                train([{"query": "a", "model_name": "m", field: number, "embedding": [1.0]}])
    assert train([{"query": "a", "model_name": "m", "embedding": [1 << 63]}]).select([1.0]) == "m"


# What records say


def test_the_worth_of_labels():
    records = [
        Record("q", "a", 1.0, 3.0),
        Record("q", "b", 0.5, 1.0),
        Record("q", "b", 0.7, 1.0),
        Record("r", "a", 0.2, None),
        Record("s", "b"),
    ]
    records = [
        Record(one.query, one.model_name, one.performance, one.response_time, None, np.ones(2)) for one in records
    ]
    outcomes = gather(records, None)
    assert outcomes.labels == ["a", "b"]
    expected = [[0.9, 0.9 * 0.6 + 0.1], [0.9 * 0.2 + 0.05, np.nan], [0.0, 0.9 + 0.05]]
    np.testing.assert_allclose(outcomes.values, expected)
    np.testing.assert_allclose(outcomes.performances, [[1.0, 0.6], [0.2, np.nan], [0.0, 1.0]])
    assert outcomes.best.tolist() == [0, 0, 1]


def test_a_text_is_in_one_fold_whatever_its_embeddings_and_categories():
    rng = np.random.default_rng(0)
    records = [
        Record(
            str(number % 9), f"m{number % 2}", category=("law", "math")[number % 4 // 2], embedding=rng.normal(size=3)
        )
        for number in range(40)
    ]
    outcomes = gather(records, None, category_one_hot=True)
    assert len(outcomes.features) == 40
    folds = list(_folds(outcomes, 0))
    assert len(folds) == 3
    for fit, held in folds:
        assert {one.query for one in fit.records} & {one.query for one in held.records} == set()
    assert sorted(one.query for _, held in folds for one in held.records) == sorted(one.query for one in records)


def test_speeds_are_on_one_scale_in_every_part():
    records = [Record(str(time), "m", 1.0, float(time), embedding=np.full(2, float(time))) for time in range(1, 12)]
    outcomes = gather(records, None)
    expected = 1 - np.arange(11) / 10
    np.testing.assert_allclose(outcomes.speeds, expected)
    part = outcomes.part(np.array([3, 4, 8]))
    np.testing.assert_allclose(part.speeds, expected[[3, 4, 8]])
    np.testing.assert_allclose(part.values[:, 0], 0.9 + 0.1 * expected[[3, 4, 8]])


def test_an_evaluation_has_the_scale_of_speeds_of_the_training():
    records = [Record(str(time), "m", 1.0, float(time), embedding=np.ones(2)) for time in range(1, 12)]
    selector = train(records)
    assert selector.describe()["training"]["latency_range"] == [1_000_000_000, 11_000_000_000]
    selector = Selector.from_json(selector.to_json())
    held = [Record("q", "m", 1.0, time, embedding=np.ones(2)) for time in (2.0, 3.0, 40.0, None)]
    value = evaluate(selector, held).strategies[0].value.mean
    assert value == pytest.approx(0.9 + 0.1 * np.mean([0.9, 0.8, 0, 0.5]))
    document = json.loads(selector.to_json())
    document["training"]["latency_range"] = [2, "x"]
    with pytest.raises(ModelLoadError, match=r"training\.latency_range must be two integers"):
        evaluate(Selector(document), held)


def test_a_knn_holds_every_record_and_those_without_a_time_last():
    records = [
        Record("q", "a", 0.4, None, None, np.zeros(2)),
        Record("r", "b", 0.6, 2.0, None, np.ones(2)),
        Record("s", "b", None, 1.0, None, np.full(2, 2.0)),
    ]
    document = json.loads(train(records).to_json())
    assert document["labels"] == ["b", "b", "a"]
    assert document["embeddings"] == [[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]
    assert document["qualities"] == [0.6, 1.0, 0.4]
    assert document["latencies"] == [2_000_000_000, 1_000_000_000]


def test_a_cluster_has_the_label_that_did_best_in_it():
    """The mean over those that tried it, not the most frequent one."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(60):
        side = number % 2
        point = np.array([10.0 * side, 0.0]) + rng.normal(size=2)
        records.append(Record(str(number), "often", 0.5, embedding=point))
        if number % 5 == 0:
            records.append(Record(str(number), "well" if side else "badly", 0.9 if side else 0.1, embedding=point))
    outcomes = gather(records, None)
    fitted = fitting.fit_kmeans(outcomes, {"num_clusters": 2}, 0)
    selector = Selector({"algorithm": "kmeans", "trained": True, **fitted.fields})
    assert selector.select_batch([[0.0, 0.0], [10.0, 0.0]]) == ["often", "well"]


def test_texts_are_embedded_once_with_the_prompt():
    with FakeEmbedder() as fake:
        seen = []
        selector = train(routed(), service=fake, prompt="Q: ", progress=lambda done, total: seen.append((done, total)))
        assert [text for call in fake.calls for text in call] == list(dict.fromkeys(one.query for one in routed()))
        assert seen[-1] == (21, 21)
        assert selector.embedding_model.plain() == {
            "name": "fake",
            "dimension": 16,
            "prompt": "Q: ",
            "revision": None,
        }


def test_the_category_follows_the_embedding():
    with FakeEmbedder() as fake:
        records = [Record("a", "x", category="law"), Record("b", "y", category="cooking"), Record("c", "y")]
        document = json.loads(train(records, service=fake, category_one_hot=True).to_json())
    hot = np.array(document["embeddings"])[:, 16:]
    assert [CATEGORIES[index] for index in hot.argmax(axis=1)] == ["law", "other", "unknown"]
    assert np.array_equal(hot.sum(axis=1), np.ones(3))
    assert np.array_equal(np.array(document["embeddings"])[0, :16], encode("a").astype(np.float64))
    assert document["features"] == {"category_one_hot": True}


# Files that are the model


def fit_case(labels, seed, algorithm, parameters):
    """A fitted selector, its file read again, and queries, also near the borders."""
    outcomes = gather(blobs(seed, labels), None)
    fit = {"kmeans": fitting.fit_kmeans, "svm": fitting.fit_svm, "mlp": fitting.fit_mlp}[algorithm]
    with fitting.reproducible():
        fitted = fit(outcomes, parameters, seed)
    selector = Selector.from_json(json.dumps({"algorithm": algorithm, "trained": True, **fitted.fields}))
    queries = np.random.default_rng(seed).normal(size=(5000, 8)) * 2.5
    return fitted, selector, queries


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_file_is_the_model_kmeans(labels, seed):
    fitted, selector, queries = fit_case(labels, seed, "kmeans", {"num_clusters": 12})
    clusters = fitted.estimators[0].predict(queries)
    assert selector.select_batch(queries) == [fitted.fields["cluster_models"][one] for one in clusters]


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_a_file_is_the_model_svm(labels, seed, kernel):
    fitted, selector, queries = fit_case(labels, seed, "svm", {"kernel": kernel, "C": 3.0})
    assert len(fitted.estimators) == labels
    units = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    decisions = np.stack([one.decision_function(units) for one in fitted.estimators], axis=1)
    names = fitted.fields["model_names"]
    assert selector.select_batch(queries) == [names[best] for best in decisions.argmax(axis=1)]
    found = np.array([[score for _, score in one] for one in selector.score_batch(queries)])
    np.testing.assert_allclose(found, decisions, atol=1e-9)
    if labels == 2:  # one classifier would do, and says the same
        from sklearn.svm import SVC

        outcomes = gather(blobs(seed, 2), None)
        features = outcomes.features / np.linalg.norm(outcomes.features, axis=1, keepdims=True)
        one = SVC(kernel=kernel, C=3.0, gamma=fitted.fields["gamma"]).fit(features, outcomes.best)
        clear = np.abs(one.decision_function(units)) > 1e-2  # the optimiser ends within a thousandth
        chosen = np.array(selector.select_batch(queries))
        assert clear.mean() > 0.9
        assert np.array_equal(chosen[clear], np.array(names)[one.predict(units)][clear])


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_file_is_the_model_mlp(labels, seed):
    fitted, selector, queries = fit_case(labels, seed, "mlp", {"hidden_sizes": [16, 8], "alpha": 1e-3})
    names = fitted.fields["model_names"]
    (estimator,) = fitted.estimators
    assert selector.select_batch(queries) == [names[one] for one in estimator.predict(queries)]
    logits = np.array([[score for _, score in one] for one in selector.score_batch(queries)])
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, estimator.predict_proba(queries), atol=1e-9)


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_the_same_seed_gives_the_same_file(algorithm):
    records = blobs(3, 3, count=60)
    first, second = (train(records, algorithm=algorithm, seed=5).to_json() for _ in range(2))
    assert first == second
    document = json.loads(first)
    assert (document["algorithm"], document["trained"], document["format_version"]) == (algorithm, True, 1)
    assert document["training"]["seed"] == 5
    assert 0.5 < document["training"]["cross_validated_value"] <= 1


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_a_trained_selector_beats_the_best_single_label(algorithm):
    kept, held = split_records(blobs(4, 4, count=240, spread=0.6), 0.3)
    result = evaluate(train(kept, algorithm=algorithm), held)
    values = {one.name: one.value for one in result.strategies}
    assert values["best single label"].mean < 0.4
    assert result.gain.low > 0.1
    assert values["oracle"].mean == pytest.approx(1)
    assert values["random label"].mean == pytest.approx(0.25)
    assert values["random label"].mean < values["selector"].low < values["selector"].mean < values["selector"].high


def test_hyper_parameters_come_from_held_out_queries():
    """The labels of single examples are noise, so more neighbours do better on queries that were held out."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(400):
        side = number % 2
        label = side if rng.random() < 0.7 else 1 - side
        records.append(Record(str(number), f"m{label}", embedding=np.array([4.0 * side, 0]) + rng.normal(size=2)))
    document = json.loads(train(records).to_json())
    assert document["k"] >= 9
    assert document["training"]["parameters"] == {"k": document["k"]}


def test_too_few_queries_for_folds_take_the_first_candidate():
    document = json.loads(train(blobs(0, 2, count=5)).to_json())
    assert (document["k"], document["training"]["cross_validated_value"]) == (5, None)


@pytest.mark.parametrize("algorithm", ["svm", "mlp"])
def test_one_best_label_is_not_enough(algorithm):
    records = [Record(str(number), "only", embedding=np.arange(3.0) + number) for number in range(20)]
    with pytest.raises(InvalidInputError, match="only is the best label of every query"):
        train(records, algorithm=algorithm)
    assert train(records).select([1.0, 2.0, 3.0]) == "only"
    assert train(records, algorithm="kmeans").select([1.0, 2.0, 3.0]) == "only"


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, "there are no records"),
        ("text", {}, "records must be a list of records"),
        ([3], {}, "record 0 must be a Record or a dictionary, found int"),
        ([{"query": "a"}], {}, "record 0: it has no model_name"),
        ([Record("a", "m")], {}, "1 queries have no embedding, as 'a': give a service"),
        (
            [Record("a", "m", embedding=np.ones(2)), Record("b", "m", embedding=np.ones(3))],
            {},
            "has 3 values, and the first has 2",
        ),
        ([Record("a", "m", embedding=np.ones(2))], {"algorithm": "tree"}, "algorithm must be one of"),
        ([Record("a", "m", embedding=np.ones(2))], {"seed": -1}, "seed must be an integer"),
        ([Record("a", "m", embedding=np.ones(2))], {"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_what_cannot_be_trained_on(records, options, message):
    with pytest.raises(InvalidInputError, match=message):
        train(records, **options)


def test_an_embedding_of_another_size_than_the_services():
    with FakeEmbedder() as fake, pytest.raises(InvalidInputError, match="has 2 values, and fake gives 16"):
        train([Record("a", "m", embedding=np.ones(2))], service=fake)


def test_without_scikit_learn_a_knn_is_trained_and_else_the_extra_is_named():
    done = run_python(
        "import sys; sys.modules['sklearn'] = sys.modules['threadpoolctl'] = None\n"
        "from akidb_mlx.errors import ConfigurationError\n"
        "from akidb_mlx.selection import train\n"
        "records = [{'query': str(n), 'model_name': 'ab'[n % 2], 'embedding': [n % 2, n / 9]} for n in range(18)]\n"
        "print(train(records).select([1, 0.5]))\n"
        "for algorithm in ('kmeans', 'svm', 'mlp'):\n"
        "    try: train(records, algorithm=algorithm)\n"
        "    except ConfigurationError as error: print(error)"
    )
    label, *errors = done.stdout.splitlines()
    assert label == "b", done.stderr
    assert len(errors) == 3
    assert all("pip install 'akidb-mlx[selection]'" in error for error in errors)


def test_a_service_is_named_as_the_model_of_all_vectors():
    """Also of those that records bring: they must have its dimension. Without a service, none is named."""
    records = [
        Record(text, topic, embedding=encode(text).astype(np.float64))
        for topic, texts in TOPICS.items()
        for text in texts
    ]
    with FakeEmbedder() as fake:
        assert train(records, service=fake).embedding_model.name == "fake"
        assert fake.calls == []
        assert train([*records, Record("new", "sums")], service=fake).embedding_model.name == "fake"
        assert fake.calls == [["new"]]
        with pytest.raises(InvalidInputError, match="has 3 values, and fake gives 16"):
            train([*records, Record("new", "sums", embedding=np.ones(3))], service=fake)
    assert train(records).embedding_model is None


# Evaluation


def test_a_service_with_another_model_is_refused():
    with FakeEmbedder() as fake:
        one = train(labelled(), service=fake)
    with FakeEmbedder("other") as other, pytest.raises(InvalidInputError, match="of fake, and the service has other"):
        evaluate(one, labelled(), service=other)


def constant(label, dimension=8):
    return Selector(
        {
            "algorithm": "kmeans",
            "trained": True,
            "num_clusters": 1,
            "centroids": [[0.0] * dimension],
            "cluster_models": [label],
        }
    )


def test_the_figures_of_an_evaluation():
    """By hand: two queries, two models, one of them untried on the second."""
    records = [
        Record("q", "a", 1.0, 1.0, embedding=np.zeros(8)),
        Record("q", "b", 0.5, 2.0, embedding=np.zeros(8)),
        Record("r", "a", 0.4, 1.5, embedding=np.ones(8)),
    ]
    result = evaluate(constant("b"), records)
    means = {one.name: (one.value.mean, one.performance.mean) for one in result.strategies}
    q_a, q_b, r_a = 0.9 + 0.1, 0.45, 0.36 + 0.05
    assert means["selector"] == pytest.approx((q_b / 2, 0.25))
    assert means["best single label"] == pytest.approx(((q_a + r_a) / 2, 0.7))
    assert means["random label"] == pytest.approx(((q_a + q_b) / 4 + r_a / 4, (1.5 / 2 + 0.2) / 2))
    assert means["oracle"] == pytest.approx(((q_a + r_a) / 2, 0.7))
    assert (result.queries, result.best_single) == (2, "a")
    assert result.gain.mean == pytest.approx((q_b - q_a - r_a) / 2)
    assert [row[0] for row in result.rows()] == ["selector", "best single label", "random label", "oracle"]
    assert json.loads(json.dumps(result.plain()))["best_single"] == "a"


def test_intervals_are_those_of_the_bootstrap():
    """About 1.96 standard errors to each side, the same for one seed."""
    records = [Record(str(number), f"m{number % 3 == 0}", embedding=np.ones(8)) for number in range(300)]
    result = evaluate(constant("mTrue"), records, seed=3)
    found = result.strategies[0].value
    error = np.sqrt(found.mean * (1 - found.mean) / 300)
    assert found.mean == pytest.approx(1 / 3)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert evaluate(constant("mTrue"), records, seed=3) == result
    assert evaluate(constant("mTrue"), records[:199], seed=4) != evaluate(constant("mTrue"), records[:199], seed=5)


def test_the_bootstrap_takes_little_memory():
    """Not 2 000 numbers for each query."""
    records = [Record(str(number), f"m{number % 3}", embedding=np.ones(8)) for number in range(4000)]
    selector = constant("m0")
    tracemalloc.start()
    evaluate(selector, records)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16e6


@pytest.mark.parametrize("seed", [-1, 1.5, 10**400])
def test_a_seed_of_an_evaluation(seed):
    with pytest.raises(InvalidInputError, match="seed must be an integer"):
        evaluate(constant("m0"), blobs(0, 3, count=30), seed=seed)


def test_a_plot_has_a_bar_for_each_strategy():
    from xml.etree import ElementTree

    result = evaluate(constant("m0"), blobs(0, 3, count=30))
    image = ElementTree.fromstring(plot_evaluation(result))
    bars = list(image.iter("{http://www.w3.org/2000/svg}rect"))[1:]
    assert [float(bar.get("width")) for bar in bars] == pytest.approx(
        [420 * one.value.mean for one in result.strategies], abs=0.06
    )
    texts = [one.text for one in image.iter("{http://www.w3.org/2000/svg}text")]
    assert "best single label" in texts
