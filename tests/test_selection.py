"""The choice of a selector, against the plain definition of each kind, and what it keeps of its file."""

import json
import threading

import numpy as np
import pytest

from akidb_mlx import Selector
from akidb_mlx.errors import InferenceError, InvalidInputError, NotTrainedError, ServiceClosedError
from akidb_mlx.selection import FILE_NAMES
from tests.selectors import KINDS, label_by_definition, random_document, random_queries, scores_by_definition
from tests.support import run_python


def make(document):
    return Selector.from_json(json.dumps(document))


def check(kind, seed, count, **sizes):
    document = random_document(kind, seed, **sizes)
    queries = random_queries(seed, count, len(document["embeddings"][0]) if kind == "knn" else 12)
    selector = make(document)
    labels, lists = selector.select_batch(queries), selector.score_batch(queries)
    for query, label, scores in zip(queries, labels, lists, strict=True):
        expected = scores_by_definition(document, query)
        assert label == label_by_definition(document, query)
        assert [name for name, _ in scores] == [name for name, _ in expected]
        assert [value for _, value in scores] == pytest.approx([value for _, value in expected], abs=1e-9, rel=1e-12)
    one = queries[0]
    assert selector.select(one.tolist()) == labels[0]
    assert selector.score_list(one) == lists[0]
    assert selector.select_batch(queries.tolist()) == labels


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_follows_its_definition(kind, seed):
    check(kind, seed, 20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_follows_its_definition_on_ten_thousand_queries(kind):
    for seed in range(100, 120):
        check(kind, seed, 500)


def test_sums_of_votes_are_equal_to_the_bit():
    """They are added up in the order of the neighbours, which are found by exact distances."""
    for seed in range(20):
        document = random_document("knn", seed)
        selector = make(document)
        for query in random_queries(seed, 10):
            assert selector.score_list(query) == scores_by_definition(document, query)


def test_equally_near_examples_count_by_their_place():
    """Among examples at one point, those of a lower index are the neighbours; there are thousands of them."""
    document = {
        "algorithm": "knn",
        "trained": True,
        "k": 3,
        "embeddings": [[1.0, 2.0]] * 3000,
        "labels": ["b", "b", "a", *["a"] * 2997],
    }
    assert make(document).select([5.0, 5.0]) == "b"


def test_near_ties_are_told_apart_exactly():
    """The estimate of products of matrices cannot: the points are far from 0 and a rounding apart."""
    base = np.full(64, 1e4)
    rows = np.stack([base + np.eye(64)[index] * 1e-6 * (index + 1) for index in range(40)])
    document = {
        "algorithm": "knn",
        "trained": True,
        "k": 1,
        "embeddings": rows[::-1].tolist(),
        "labels": [str(index) for index in range(39, -1, -1)],
    }
    assert make(document).select(base) == "0"


@pytest.mark.parametrize("width", [1, 2, 48])
@pytest.mark.parametrize("offset", [1e3, 1e5, 1e7])
def test_no_neighbour_is_lost_to_the_rounding_of_the_estimate(offset, width):
    """Far from 0, the estimates are wrong by more than most rows differ: a bound on that which is too small shows."""
    rng = np.random.default_rng(1)
    spread = offset * 3e-9
    rows = offset + rng.normal(size=(300, width)) * spread
    document = {
        "algorithm": "knn",
        "trained": True,
        "k": 7,
        "embeddings": rows.tolist(),
        "labels": [str(index) for index in range(300)],
    }
    selector = make(document)
    for query in offset + rng.normal(size=(30, width)) * spread:
        squares = np.array([sum((a - b) * (a - b) for a, b in zip(query, row, strict=True)) for row in rows])
        nearest = np.argsort(squares, kind="stable")[:7].tolist()
        assert [one.example for one in selector.neighbours(query)] == nearest


def test_squares_are_added_from_left_to_right():
    """Rows of the same values in other orders are equally far but for the rounding of the sums."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        row = rng.normal(size=40)
        document = {
            "algorithm": "knn",
            "trained": True,
            "k": 1,
            "embeddings": [rng.permutation(row).tolist() for _ in range(4)],
            "labels": list("dcba"),
        }
        assert make(document).select(np.zeros(40)) == label_by_definition(document, np.zeros(40))


def test_a_tie_of_votes_is_for_the_smaller_label():
    document = {"algorithm": "knn", "trained": True, "k": 2, "embeddings": [[0.0], [1.0]], "labels": ["b", "a"]}
    assert make(document).select([0.2]) == "a"
    document["labels"] = ["Z", "\N{GREEK SMALL LETTER ALPHA}"]
    assert make(document).select([0.9]) == "Z"


def test_votes_weigh_quality_and_speed():
    document = {
        "algorithm": "knn",
        "trained": True,
        "k": 3,
        "embeddings": [[0.0], [0.1], [0.2], [9.0]],
        "labels": ["slow", "fast", "unknown", "far"],
        "qualities": [0.8, 0.8],
        "latencies": [2_000_000_000, 1_000_000_000],
    }
    scores = make(document).scores([0.0])
    assert scores == {"fast": 0.9 * 0.8 + 0.1, "slow": 0.9 * 0.8, "unknown": pytest.approx(0.9 * 0.5 + 0.05, abs=1e-15)}


def test_no_latencies_count_as_fast_and_a_bad_quality_counts_a_little():
    document = {"algorithm": "knn", "trained": True, "k": 1, "embeddings": [[0.0]], "labels": ["a"], "qualities": [0.0]}
    assert make(document).scores([0.0]) == {"a": 0.9 * 0.01 + 0.1}


def test_the_first_of_equal_centroids_wins():
    document = {
        "algorithm": "kmeans",
        "trained": True,
        "num_clusters": 99,
        "centroids": [[1.0], [-1.0], [3.0]],
        "cluster_models": ["b", "a", "b"],
    }
    selector = make(document)
    assert selector.select([0.0]) == "b"
    assert selector.score_list([2.0]) == [("b", -1.0), ("a", -9.0)]


def test_the_first_of_equal_classifiers_wins_and_a_zero_vector_stays_zero():
    classifier = {"weights": [1.0, 2.0, 3.0], "rho": 0.25}
    document = {
        "algorithm": "svm",
        "trained": True,
        "model_names": ["a", "b"],
        "kernel_type": "Rbf",
        "gamma": 1,
        "linear_classifiers": [{"model_name": "b", **classifier}, {"model_name": "a", **classifier}],
        "rbf_classifiers": [],
    }
    selector = make(document)
    assert selector.select([0.3, 0.1, 0.7]) == "b"
    assert selector.scores([0, 0, 0]) == {"b": -0.25, "a": -0.25}
    assert selector.scores([2, 0, 0]) == {"b": 0.75, "a": 0.75}


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e307])
def test_the_length_of_a_query_does_not_matter_to_an_svm(scale):
    selector = make(random_document("svm", 0))
    queries = np.clip(random_queries(0, 20), -3, 3)
    expected = np.array([[score for _, score in one] for one in selector.score_batch(queries)])
    found = np.array([[score for _, score in one] for one in selector.score_batch(queries * scale)])
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_an_svm_without_classifiers_chooses_the_first_name():
    document = {
        "algorithm": "svm",
        "trained": True,
        "model_names": ["z", "a"],
        "kernel_type": "Linear",
        "gamma": 1.0,
        "linear_classifiers": [],
        "rbf_classifiers": [],
    }
    selector = make(document)
    assert (selector.select([1.0, 2.0]), selector.scores([1.0]), selector.dimension) == ("z", {}, None)
    assert selector.select_batch([[1.0], [1.0, 2.0]]) == ["z", "z"]
    assert selector.score_batch([[1.0], [1.0, 2.0]]) == [[], []]


def test_a_label_with_two_classifiers_has_the_larger_score():
    document = random_document("svm", 3)
    classifier = {"model_name": "model-0", "weights": [0.0] * 12, "rho": 0.0}
    document["linear_classifiers"] = [{**classifier, "rho": -3.0}, {**classifier, "rho": 4.0}]
    document["rbf_classifiers"] = []
    selector = make(document)
    assert selector.score_list(np.ones(12)) == [("model-0", 3.0), ("model-0", -4.0)]
    assert selector.scores(np.ones(12)) == {"model-0": 3.0}


def test_the_first_of_equal_logits_wins_whatever_is_beside_it():
    """Equal rows of a layer give equal logits, alone and in a batch."""
    row = np.random.default_rng(0).normal(size=37).tolist()
    layer = {"type": "linear", "in_features": 37, "out_features": 7, "weight": [row] * 7, "bias": None}
    document = {
        "algorithm": "mlp",
        "trained": True,
        "model_names": list("gfedcba"),
        "feature_dim": 37,
        "n_classes": 7,
        "hidden_sizes": [],
        "dropout": 0.0,
        "layers": [layer],
    }
    queries = np.random.default_rng(1).normal(size=(50, 37))
    selector = make(document)
    assert set(selector.select_batch(queries)) == {"g"}
    assert {selector.select(query) for query in queries} == {"g"}


@pytest.mark.parametrize("kind", ["knn", "kmeans"])
def test_distances_that_overflow_are_refused(kind):
    """They cannot be compared; far examples that do not vote may overflow."""
    selector = make(random_document(kind, 1))
    queries = np.ones((3, 12))
    queries[1] = 1e200
    with pytest.raises(InferenceError, match="is not finite") as caught:
        selector.select_batch(queries)
    assert caught.value.index == 1
    with pytest.raises(InferenceError, match="is not finite"):
        selector.scores(queries[1])
    document = {"algorithm": "knn", "trained": True, "k": 1, "embeddings": [[1e200], [2.0]], "labels": ["a", "b"]}
    assert make(document).select([1.0]) == "b"


def test_sums_of_votes_that_overflow_are_refused():
    document = {
        "algorithm": "knn",
        "trained": True,
        "k": 2,
        "embeddings": [[0.0], [1.0], [9.0]],
        "labels": ["a", "a", "b"],
        "qualities": [1.79e308] * 3,
    }
    selector = make(document)
    for call in (selector.select, selector.scores, selector.explain):
        with pytest.raises(InferenceError, match="the score of a is not finite"):
            call([0.0])
    with pytest.raises(InferenceError, match="the score of a is not finite") as caught:
        selector.select_batch([[8.0], [0.0]])
    assert caught.value.index == 1
    assert selector.select([8.0]) == "a"


def test_scores_that_overflow_are_refused():
    document = random_document("mlp", 1)
    queries = np.ones((3, 12))
    queries[1] = 1e300
    document["layers"][0]["weight"] = (np.array(document["layers"][0]["weight"]) * 1e300).tolist()
    with pytest.raises(InferenceError, match="is not finite"):
        make(document).select_batch(queries)


@pytest.mark.parametrize("kind", KINDS)
def test_all_fields_come_back(kind, tmp_path):
    """Also those that no rule reads, wherever they are, in the order of the file."""
    document = random_document(kind, 5)
    document = {"feature_dim": 12, **document} if kind != "mlp" else document
    document |= {"notes": {"deep": [1, None, {"text": "é\n"}]}, "num_samples": 60, "scales": [0.5, 1.5]}
    for inner in (*document.get("rbf_classifiers", []), *document.get("layers", [])):
        inner["unknown"] = [True, "kept"]
    selector = make(document)
    assert json.loads(selector.to_json()) == document
    assert list(json.loads(selector.to_json())) == list(document)
    path = selector.save(tmp_path)
    assert path == tmp_path / FILE_NAMES[kind]
    again = Selector.load(path)
    assert again.to_json() == selector.to_json()
    query = random_queries(1, 1)[0]
    assert again.score_list(query) == selector.score_list(query)


def test_a_selector_that_is_not_trained_says_so():
    document = {"algorithm": "knn", "trained": False, "k": 5, "embeddings": [], "labels": []}
    selector = make(document)
    assert not selector.is_trained
    for call in (selector.select, selector.scores, selector.explain):
        with pytest.raises(NotTrainedError, match="not trained"):
            call([1.0])
    with pytest.raises(NotTrainedError):
        selector.select_batch([[1.0]])
    assert json.loads(selector.to_json()) == document


def test_a_closed_selector_is_an_error():
    selector = make(random_document("svm", 2))
    with selector:
        assert selector.is_trained
    selector.close()
    for call in (selector.select, selector.scores, selector.select_batch, selector.explain, selector.score_batch):
        with pytest.raises(ServiceClosedError, match="closed"):
            call(np.ones(12))
    for call in (selector.to_json, selector.describe, lambda: selector.is_trained):
        with pytest.raises(ServiceClosedError):
            call()
    assert "closed" in repr(selector)


class ClosedMeanwhile(Selector):
    """A selector that another thread closes as soon as a call has found it open."""

    def _open(self):
        found = super()._open()
        self.close()
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_began_before_close_has_all_of_the_selector(kind, tmp_path):
    document = random_document(kind, 2)
    text = make(document).to_json()

    def opened():
        return ClosedMeanwhile(json.loads(text))

    assert opened().to_json() == text
    assert opened().save(tmp_path).read_text() == text
    assert opened().describe() == make(document).describe()
    query = random_queries(2, 1)[0]
    assert opened().select(query) == make(document).select(query)


@pytest.mark.parametrize("kind", KINDS)
def test_decisions_are_the_labels_the_scores_and_the_reasons(kind):
    for seed in range(4):
        selector = make(random_document(kind, seed))
        queries = random_queries(seed, 20)
        decisions = selector.decide_batch(queries)
        assert [one.label for one in decisions] == selector.select_batch(queries)
        assert [one.scores for one in decisions] == selector.score_batch(queries)
        assert [one.reasons for one in decisions] == [selector.explain(query) for query in queries]
    assert selector.decide_batch([]) == []


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0] * 11, "the vector has 11 values, and the selector takes 12"),
        ([1.0] * 13, "the vector has 13 values, and the selector takes 12"),
        ([], "the vector has 0 values"),
        ([1.0] * 4 + [float("nan")] + [1.0] * 7, "its value 4 is nan"),
        ([1.0] * 11 + [float("-inf")], "its value 11 is -inf"),
        (np.ones((1, 12)), "one dimension, found 2"),
        (1.0, "one dimension, found 0"),
        ("text", "must hold numbers"),
        (None, "must hold numbers"),
        ([1j] * 12, "must hold numbers"),
        (["1"] * 12, "must hold numbers"),
        ([True] * 12, "must hold numbers"),
        ([[1.0], [1.0, 2.0]], "must hold numbers"),
        ([10**400] * 12, "must hold numbers"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_that_is_not_usable(kind, vector, message):
    selector = make(random_document(kind, 9) if kind != "svm" else random_document(kind, 1))
    with pytest.raises(InvalidInputError, match=message):
        selector.select(vector)
    with pytest.raises(InvalidInputError, match=message):
        selector.scores(vector)


@pytest.mark.parametrize(
    ("vectors", "index", "message"),
    [
        ([[1.0] * 12, [1.0] * 7], 1, "vector 1 has 7 values, and the selector takes 12"),
        (np.ones((2, 5)), 0, "vector 0 has 5 values"),
        (np.full((2, 12), np.inf), 0, "vector 0 is not finite"),
        ([[1.0] * 12, [float("nan")] * 12], 1, "vector 1 is not finite: its value 0 is nan"),
        ([[1.0] * 12, "text"], 1, "vector 1 must hold numbers"),
        (np.ones(12), None, "two dimensions, found 1"),
        ([1.0] * 12, 0, "vector 0 must have one dimension"),
        ("text", None, "a list of vectors"),
        (None, None, "a list of vectors"),
    ],
)
def test_vectors_that_are_not_usable(vectors, index, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        make(random_document("kmeans", 1)).select_batch(vectors)
    assert caught.value.index == index


@pytest.mark.parametrize("kind", KINDS)
def test_no_vectors_have_no_labels(kind):
    selector = make(random_document(kind, 4))
    assert selector.select_batch([]) == selector.score_batch(np.empty((0, 12))) == []


@pytest.mark.parametrize("type_", [np.float32, np.float16, np.int64, np.uint8])
def test_vectors_of_every_type_of_number(type_):
    selector = make(random_document("kmeans", 1))
    vector = (np.arange(12) * 10).astype(type_)
    assert selector.score_list(vector) == selector.score_list(vector.astype(np.float64).tolist())


def test_many_threads_choose_alike():
    selector = make(random_document("knn", 6, size=500))
    queries = random_queries(6, 200)
    expected = selector.select_batch(queries)
    found = [None] * 8

    def work(number):
        found[number] = [selector.select(query) for query in queries]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * len(found)


def test_the_neighbours_of_a_choice():
    document = random_document("knn", 8)
    selector = make(document)
    query = random_queries(8, 1)[0]
    neighbours = selector.neighbours(query)
    assert len(neighbours) == document["k"]
    votes = {}
    for one in neighbours:
        assert one.label == document["labels"][one.example]
        assert one.distance == pytest.approx(np.linalg.norm(query - document["embeddings"][one.example]))
        votes[one.label] = votes.get(one.label, 0.0) + one.weight
    assert votes == selector.scores(query)
    assert selector.explain(query)[0].startswith(f"example {neighbours[0].example} at distance")
    with pytest.raises(InvalidInputError, match="only a KNN"):
        make(random_document("mlp", 1)).neighbours(query)


def test_choosing_needs_numpy_only():
    text = json.dumps(random_document("svm", 1))
    done = run_python(
        "import sys; sys.modules['sklearn'] = sys.modules['mlx'] = None\n"
        "from akidb_mlx import Selector\n"
        f"print(Selector.from_json({text!r}).select([1.0] * 12))\n"
        "print([m for m in ('scipy', 'tokenizers', 'safetensors') if m in sys.modules])"
    )
    assert done.stdout.splitlines()[1:] == ["[]"], done.stderr


# scikit-learn's own arrays


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("version", [1, 2])
def test_the_exact_reading_of_an_svm_is_scikit_learns_prediction(kernel, classes, version):
    svm = pytest.importorskip("sklearn.svm")
    rng = np.random.default_rng(classes)
    features = rng.normal(size=(120, 6)) * 3
    targets = rng.integers(0, classes, 120)
    estimator = svm.SVC(kernel=kernel, gamma=0.3, C=2.0).fit(features, targets)
    arrays = {
        "support_vectors": estimator.support_vectors_.tolist(),
        "dual_coef": estimator.dual_coef_.tolist(),
        "intercept": estimator.intercept_.tolist(),
        "n_support": estimator.n_support_.tolist(),
    }
    document = {
        "algorithm": "svm",
        "trained": True,
        "model_names": [f"m{index}" for index in range(classes)],
        "kernel_type": "Rbf" if kernel == "rbf" else "Linear",
        "gamma": 0.3,
    }
    if version == 2:
        document |= {"format_version": 2, "input_normalization": "none", "svc": arrays}
    else:
        document |= {**arrays, "linear_classifiers": [], "rbf_classifiers": []}
    selector = Selector.from_json(json.dumps(document), exact=True)
    queries = rng.normal(size=(3000, 6)) * 3
    assert selector.select_batch(queries) == [f"m{label}" for label in estimator.predict(queries)]
    assert json.loads(selector.to_json()) == document


@pytest.mark.parametrize("version", [1, 2])
def test_the_classes_of_an_exact_svm_are_in_their_own_order(version):
    """scikit-learn's classes are places in `model_names`, of which some may have no classifier."""
    svm = pytest.importorskip("sklearn.svm")
    rng = np.random.default_rng(3)
    features, targets = rng.normal(size=(90, 5)), rng.integers(0, 3, 90)
    estimator = svm.SVC(kernel="rbf", gamma=0.3).fit(features, targets)
    names = ["never", "c", "a", "unused", "b"]
    classes = [4, 2, 1]  # the estimator's classes 0, 1 and 2 are "b", "a" and "c"
    arrays = {
        "support_vectors": estimator.support_vectors_.tolist(),
        "dual_coef": estimator.dual_coef_.tolist(),
        "intercept": estimator.intercept_.tolist(),
        "n_support": estimator.n_support_.tolist(),
        "classes": classes,
    }
    document = {"algorithm": "svm", "trained": True, "model_names": names, "kernel_type": "Rbf", "gamma": 0.3}
    document |= {"format_version": 2, "svc": arrays} if version == 2 else arrays
    selector = Selector.from_json(json.dumps(document), exact=True)
    queries = rng.normal(size=(500, 5))
    assert selector.select_batch(queries) == [names[classes[one]] for one in estimator.predict(queries)]
    assert selector.labels == ["b", "a", "c"]
    assert json.loads(selector.to_json()) == document
