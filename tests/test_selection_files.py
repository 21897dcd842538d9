"""Selectors' files that are not usable: each is refused with the name of the field, and none is taken for another."""

import copy
import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from akidb_mlx import Selector
from akidb_mlx.errors import AkidbMlxError, InferenceError, InvalidInputError, ModelLoadError
from akidb_mlx.selection import CATEGORIES
from tests.selectors import KINDS, random_document


def refused(text, message, **options):
    with pytest.raises(ModelLoadError, match=message) as caught:
        Selector.from_json(text if isinstance(text, (str, bytes)) else json.dumps(text), **options)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def changed(kind, **changes):
    """A small selector with other fields; ... removes one."""
    document = {
        "knn": {"k": 2, "embeddings": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "labels": ["a", "b", "a"]},
        "kmeans": {"num_clusters": 2, "centroids": [[1.0, 2.0], [3.0, 4.0]], "cluster_models": ["a", "b"]},
        "svm": {
            "model_names": ["a", "b"],
            "kernel_type": "Rbf",
            "gamma": 1.0,
            "linear_classifiers": [{"model_name": "a", "weights": [1.0, 2.0], "rho": 0.5}],
            "rbf_classifiers": [
                {"model_name": "b", "alpha": [1.0], "support_vectors": [[1.0, 2.0]], "rho": 0.1, "gamma": 1.0}
            ],
        },
        "mlp": {
            "model_names": ["a", "b"],
            "feature_dim": 2,
            "n_classes": 2,
            "hidden_sizes": [],
            "dropout": 0.0,
            "layers": [
                {
                    "type": "linear",
                    "in_features": 2,
                    "out_features": 2,
                    "weight": [[1.0, 2.0], [3.0, 4.0]],
                    "bias": None,
                }
            ],
        },
    }[kind]
    document = {"algorithm": kind, "trained": True, **copy.deepcopy(document), **changes}
    return {key: value for key, value in document.items() if value is not ...}


def layer(**changes):
    base = {"type": "linear", "in_features": 2, "out_features": 2, "weight": [[1.0, 2.0], [3.0, 4.0]]}
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def norm(**changes):
    return {"type": "batch_norm", "num_features": 2, **changes}


def radial(**changes):
    base = {"model_name": "b", "alpha": [1.0], "support_vectors": [[1.0, 2.0]], "rho": 0.1, "gamma": 1.0}
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


@pytest.mark.parametrize("kind", KINDS)
def test_the_small_selectors_are_usable(kind):
    assert Selector.from_json(json.dumps(changed(kind))).select([1.0, 2.0]) in ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"algorithm": "knn"} x', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        ("\N{BYTE ORDER MARK}{}", "not valid JSON"),
        ("[]", "must be a JSON object, found a list"),
        ("3", "must be a JSON object, found a number"),
        ("null", "must be a JSON object, found null"),
        ("{}", "no field algorithm"),
        ('{"algorithm": "knn", "algorithm": "svm"}', "the field 'algorithm' twice"),
        ('{"algorithm": "knn", "notes": {"a": 1, "b": 2, "a": 3}}', "the field 'a' twice"),
        ('{"algorithm": [1, 2], "algorithm": [3]}', "the field 'algorithm' twice"),
        ('{"a[1]": [1], "a[2]": [2]}', "no field algorithm"),
        ('{"a[1]": [1], "a[1]": [2]}', r"the field 'a\[1\]' twice"),
        ('{"a[1]": [1], "a\\u005b1]": [2]}', r"the field 'a\[1\]' twice"),
        ('{"a[\\u0031]": [1], "a[1]": [2]}', r"the field 'a\[1\]' twice"),
        ('{"\\"[": 1, "b": "]\\"", "\\u0022\\u005b": 1}', "twice in one object"),
        ('{"k": NaN}', "not valid JSON"),
        ('{"k": -Infinity}', "not valid JSON"),
        ("[" * 100_000, "nested|not valid JSON"),
        ('{"a":' * 100_000, "nested|not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_text_that_is_no_object_of_json(text, message):
    refused(text, message)


@pytest.mark.parametrize("depth", [65, 500, 900])
def test_depth_is_bounded_where_any_field_may_stand(depth):
    """As in Rust and Go, 64 lists may stand inside each other below the selector itself."""
    document = json.dumps(changed("knn"))[:-1]
    assert Selector.from_json(f'{document}, "notes": {"[" * 64}"deep"{"]" * 64}}}').is_trained
    refused(f'{document}, "notes": {"[" * depth}{"]" * depth}}}', "nested")
    refused(f'{document}, "notes": {"[" * depth}1{"]" * depth}}}', "nested")
    refused(f'{document[: document.index("[[")]}{"[" * depth}{"]" * depth}, "labels": []}}', "embeddings|nested")


# A place for an unknown field, and how many objects and lists it is in.
NESTED = [((), 1), (("features",), 2), (("embedding_model",), 2), (("layers", 0), 3)]


def nested_text(path, levels, opening, closing):
    document = changed("mlp", features={}, embedding_model={"name": "m", "dimension": 2})
    put(document, (*path, "deep"), "@")
    return json.dumps(document).replace('"@"', f"{opening * levels}0{closing * levels}")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('["x",', "]")])
@pytest.mark.parametrize(("path", "outside"), NESTED, ids=str)
def test_the_objects_and_lists_around_a_field_count_for_its_depth(path, outside, opening, closing):
    assert Selector.from_json(nested_text(path, 65 - outside, opening, closing)).is_trained
    refused(nested_text(path, 66 - outside, opening, closing), "nested more than 64 levels")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed("knn", algorithm="forest"), "algorithm must be one of knn, kmeans, svm, mlp, found 'forest'"),
        (changed("knn", algorithm=7), "algorithm must be a string, found 7"),
        (changed("knn", trained=...), "no field trained"),
        (changed("knn", trained=1), "trained must be true or false, found 1"),
        (changed("knn", format_version=2), "format_version is 2.*other rules"),
        (changed("kmeans", format_version=0), "format_version is 0"),
        (changed("svm", format_version=2), r"format_version is 2.*exact=True"),
        (changed("mlp", format_version="1"), "format_version must be an integer"),
        # KNN
        (changed("knn", k=...), "no field k"),
        (changed("knn", k=0), "k must be an integer of 1 or more, found 0"),
        (changed("knn", k=-3), "k must be an integer of 1 or more, found -3"),
        (changed("knn", k=3.0), "k must be an integer of 1 or more, found 3.0"),
        (changed("knn", k=True), "k must be an integer"),
        (changed("knn", k=1 << 70), "k must be an integer"),
        (changed("knn", embeddings=[]), "labels has 3 values and embeddings has 0"),
        (changed("knn", embeddings=[], labels=[]), "embeddings is empty, and trained is true"),
        (changed("knn", embeddings=[[], [], []]), r"embeddings\[0\] is empty"),
        (
            changed("knn", embeddings=[[1.0, 2.0], [3.0], [5.0, 6.0]]),
            r"embeddings\[1\] has 1 value and embeddings\[0\] has 2",
        ),
        (
            changed("knn", embeddings=[[1.0, 2.0], 3.0, [5.0, 6.0]]),
            r"embeddings\[1\] must be a list of numbers, found 3.0",
        ),
        (
            changed("knn", embeddings=[[1.0, "2"], [3.0, 4.0], [5.0, 6.0]]),
            r"embeddings\[0\]\[1\] must be a number, found a string",
        ),
        (
            changed("knn", embeddings=[[1.0, True], [3.0, 4.0], [5.0, 6.0]]),
            r"embeddings\[0\]\[1\] must be a number, found true",
        ),
        (
            changed("knn", embeddings=[[1.0, None], [3.0, 4.0], [5.0, 6.0]]),
            r"embeddings\[0\]\[1\] must be a number, found null",
        ),
        (changed("knn", embeddings=[[1, 10**400], [3.0, 4.0], [5.0, 6.0]]), r"embeddings\[0\]\[1\] is not a finite"),
        (changed("knn", embeddings={"0": [1.0]}), "embeddings must be a list of lists of numbers, found an object"),
        (changed("knn", embeddings=...), "no field embeddings"),
        (changed("knn", labels=...), "no field labels"),
        (changed("knn", labels=["a", "b"]), "labels has 2 values and embeddings has 3"),
        (changed("knn", labels=["a", "b", 7]), r"labels\[2\] must be a string, found 7"),
        (changed("knn", labels="abc"), "labels must be a list of strings, found 'abc'"),
        (changed("knn", labels=["a", "b", "\ud800"]), "not valid JSON"),
        (changed("knn", qualities=[1.0] * 4), "qualities has 4 values and embeddings has 3"),
        (changed("knn", qualities=[1.0, None]), r"qualities\[1\] must be a number, found null"),
        (changed("knn", latencies=[1] * 4), "latencies has 4 values and embeddings has 3"),
        (changed("knn", latencies=[1, 2.0]), r"latencies\[1\] must be an integer of 64 bits, found 2.0"),
        (changed("knn", latencies=[1, 1 << 63]), r"latencies\[1\] must be an integer of 64 bits"),
        # k-means
        (changed("kmeans", num_clusters=...), "no field num_clusters"),
        (changed("kmeans", num_clusters=2.5), "num_clusters must be an integer"),
        (changed("kmeans", centroids=[], cluster_models=[]), "centroids is empty, and trained is true"),
        (changed("kmeans", centroids=[[1.0, 2.0], [3.0]]), r"centroids\[1\] has 1 value and centroids\[0\] has 2"),
        (changed("kmeans", cluster_models=["a"]), "cluster_models has 1 values and centroids has 2"),
        # SVM
        (changed("svm", model_names=[]), "model_names is empty"),
        (changed("svm", kernel_type="rbf"), "kernel_type must be one of Linear, Rbf, found 'rbf'"),
        (changed("svm", gamma=...), "no field gamma"),
        (changed("svm", gamma="scale"), "gamma must be a number, found 'scale'"),
        (changed("svm", linear_classifiers={}), "linear_classifiers must be a list of objects"),
        (changed("svm", linear_classifiers=[3]), r"linear_classifiers\[0\] must be an object, found 3"),
        (changed("svm", linear_classifiers=[{"model_name": "a", "weights": [], "rho": 1}]), r"weights is empty"),
        (changed("svm", linear_classifiers=[{"model_name": "a", "weights": [1, 2]}]), r"linear_classifiers\[0\].rho"),
        (
            changed("svm", rbf_classifiers=[radial(), radial(alpha=[1, 2])]),
            r"rbf_classifiers\[1\].support_vectors has 1 .*alpha has 2",
        ),
        (
            changed("svm", rbf_classifiers=[radial(alpha=[], support_vectors=[])]),
            r"rbf_classifiers\[0\].support_vectors is empty",
        ),
        (
            changed("svm", rbf_classifiers=[radial(), radial(alpha=[1, 2], support_vectors=[[1, 2], [1]])]),
            r"rbf_classifiers\[1\].support_vectors\[1\] has 1 value and linear_classifiers\[0\].weights has 2",
        ),
        (changed("svm", rbf_classifiers=[radial(gamma=...)]), r"no field rbf_classifiers\[0\].gamma"),
        (
            changed("svm", rbf_classifiers=[radial(model_name=None)]),
            r"rbf_classifiers\[0\].model_name must be a string",
        ),
        # MLP
        (changed("mlp", layers=[]), "layers is empty"),
        (changed("mlp", layers=[{}]), r"no field layers\[0\].type"),
        (
            changed("mlp", layers=[{"type": "tanh"}]),
            r"layers\[0\].type must be one of linear, relu, batch_norm, dropout",
        ),
        (changed("mlp", layers=[layer(in_features=3)]), r"layers\[0\].in_features is 3, and the layer gets 2"),
        (changed("mlp", layers=[layer(weight=[[1.0, 2.0]])]), r"layers\[0\].weight has 1 by 2 values, expected 2 by 2"),
        (changed("mlp", layers=[layer(weight=[[1.0, 2.0], [3.0]])]), r"layers\[0\].weight\[1\] has 1 value"),
        (changed("mlp", layers=[layer(bias=[1.0])]), r"layers\[0\].bias has 1 values, expected 2"),
        (changed("mlp", layers=[layer(), norm(num_features=3)]), r"layers\[1\].num_features is 3"),
        (changed("mlp", layers=[layer(), norm(running_var=[1.0, -1.0])]), r"layers\[1\].running_var\[1\] plus eps"),
        (changed("mlp", layers=[layer(), norm(eps="small")]), r"layers\[1\].eps must be a number"),
        (changed("mlp", layers=[layer(), {"type": "dropout"}]), r"no field layers\[1\].p"),
        (changed("mlp", layers=[layer(), layer(out_features=1, weight=[[1.0, 1.0]])]), "layers end with 1 values"),
        (changed("mlp", n_classes=3), "n_classes is 3 and model_names has 2"),
        (changed("mlp", feature_dim=3), r"layers\[0\].in_features is 2, and the layer gets 3"),
        (changed("mlp", hidden_sizes=[0]), r"hidden_sizes\[0\] must be an integer of 1 or more"),
        (changed("mlp", hidden_sizes=[2.0]), r"hidden_sizes\[0\] must be an integer"),
        (changed("mlp", dropout=None), "dropout must be a number, found null"),
        # Ours
        (
            changed("knn", embedding_model={"name": "m", "dimension": 3}),
            "embedding_model.dimension is 3, and the selector takes 2",
        ),
        (changed("knn", embedding_model={"name": "m"}), "no field embedding_model.dimension"),
        (changed("knn", embedding_model="m"), "embedding_model must be an object"),
        (changed("knn", features={"category_one_hot": "yes"}), "features.category_one_hot must be true or false"),
        (
            changed("knn", features={"category_one_hot": True}, embedding_model={"name": "m", "dimension": 2}),
            "is 2 and 14 of",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_that_is_wrong_is_named(document, message):
    refused(document, message)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_not_finite_is_refused_wherever_it_is(kind, number):
    text = json.dumps(changed(kind))
    refused(text.replace("2.0", number, 1), "is not a finite number")
    refused(f'{text[:-1]}, "notes": [{number.replace("1000", "1e999;", 1).split(";")[0]}]}}', "finite")


def test_size_is_bounded(tmp_path):
    text = json.dumps(changed("knn"))
    refused(text, rf"the selector has {len(text)} bytes, and at most 100 are read: raise max_bytes", max_bytes=100)
    refused(text.replace('"a"', '"é"').encode(), "bytes", max_bytes=len(text) + 1)
    path = tmp_path / "knn_model.json"
    path.write_text(text)
    with pytest.raises(ModelLoadError, match=r"knn_model\.json: the selector has"):
        Selector.load(path, max_bytes=100)
    assert Selector.load(path, max_bytes=len(text)).is_trained


def test_parts_are_bounded():
    """As in Rust and Go: 10 000 whatever the limit, and else one for 64 bytes that may be read."""
    message = "the selector has more than {} lists, objects, strings and other values: raise max_bytes"
    start = json.dumps(changed("knn"))[:-1]
    others = count_parts(f'{start}, "list": [""]}}')
    text = f'{start}, "list": [""{",null" * (10_000 - others)}]}}'
    assert Selector.from_json(text, max_bytes=80_000).is_trained
    longer = text.replace('""', '"",null')
    refused(longer, message.format(10_000), max_bytes=80_000)
    assert Selector.from_json(longer, max_bytes=64 * 10_001).is_trained
    refused(longer.replace('""', '"",null'), message.format(10_001), max_bytes=64 * 10_001)
    numbers = f'{start}, "list": [{",".join("0" * 20_000)}]}}'
    assert Selector.from_json(numbers, max_bytes=80_000).is_trained
    assert Selector.from_json(f'{start}, "text": "{"," * 20_000}"}}', max_bytes=80_000).is_trained
    for item in ("[]", "[1]", "{}", '""'):
        refused(f'{start}, "list": [{",".join([item] * 5_100)}]}}', message.format(10_000), max_bytes=80_000)


def count_parts(text):
    """Brackets, braces and quotation marks, and the commas of objects and of lists that hold more than numbers."""
    commas = 0

    def walk(value):
        nonlocal commas
        if isinstance(value, (list, dict)):
            children = list(value.values() if isinstance(value, dict) else value)
            if isinstance(value, dict) or not {type(one) for one in children} <= {int, float}:
                commas += max(0, len(children) - 1)
            for one in children:
                walk(one)

    walk(json.loads(text))
    return sum(map(text.count, '[{"')) + commas


@pytest.mark.parametrize(
    ("first", "item", "last"),
    [
        *(("", item, "") for item in ("0", "300", "0.5", "1e9", "[0]", "[300,300]", "[]", "{}", '""', '"a"', "null")),
        ("", f"{'[' * 60}0{']' * 60}", ""),
        ('"",', "300", ""),
        ("", "300", ',""'),
        ("", "[300]", ',""'),
    ],
    ids=lambda value: value[:8],
)
def test_reading_takes_at_most_sixteen_times_the_limit(first, item, last):
    start = json.dumps(changed("knn"))[:-1]
    text = f'{start}, "list": [{first}{",".join([item] * ((1 << 18) // (len(item) + 1)))}{last}]}}'
    tracemalloc.start()
    try:
        Selector.from_json(text, max_bytes=len(text))
    except ModelLoadError as error:
        assert "lists, objects, strings" in str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most <= 16 * len(text) + (1 << 20)  # the fewest parts that are always read take a little


@pytest.mark.parametrize("limit", [0, -1, 1.5, None, True, "9"])
def test_a_limit_that_is_none(limit, tmp_path):
    path = tmp_path / "knn_model.json"
    path.write_text(json.dumps(changed("knn")))
    for call in (Selector.from_json, Selector.load):
        with pytest.raises(InvalidInputError, match="max_bytes must be an integer of 1 or more"):
            call(path if call == Selector.load else path.read_text(), max_bytes=limit)
    for huge in (1 << 63, 10**400):
        assert Selector.load(path, max_bytes=huge).is_trained
        assert Selector.from_json(path.read_text(), max_bytes=huge).is_trained


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ModelLoadError, match=r"none\.json cannot be read: No such file"):
        Selector.load(tmp_path / "none.json")
    with pytest.raises(ModelLoadError, match="Is a directory"):
        Selector.load(tmp_path)
    with pytest.raises(ModelLoadError, match="cannot be read"):
        Selector.load("a\0b")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"bad\.json: the selector has no field algorithm"):
        Selector.load(tmp_path / "bad.json")


@pytest.mark.parametrize("text", [None, 7, {"algorithm": "knn"}, ["{}"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(InvalidInputError, match="a string or bytes"):
        Selector.from_json(text)


def test_optional_fields_may_be_null_and_extra_labels_of_clusters_are_ignored():
    document = changed("knn", qualities=None, latencies=None)
    assert Selector.from_json(json.dumps(document)).scores([1.0, 2.0]) == {"a": 0.55, "b": 0.55}
    document = changed("kmeans", cluster_models=["a", "b", "c"])
    assert Selector.from_json(json.dumps(document)).labels == ["a", "b"]
    document = changed(
        "mlp", layers=[layer(), norm(weight=None, bias=None, running_mean=None, running_var=None, eps=None)]
    )
    assert Selector.from_json(json.dumps(document)).scores([1.0, 0.0]) == pytest.approx({"a": 1, "b": 3}, rel=1e-5)


def test_a_huge_size_takes_no_memory():
    layers = [{"type": "batch_norm", "num_features": 1 << 60}, {"type": "relu"}]
    refused(changed("mlp", feature_dim=1 << 60, layers=layers), "layers end with 1152921504606846976 values")
    text = json.dumps(changed("mlp", trained=False, feature_dim=1 << 60, layers=[]))
    assert Selector.from_json(text).dimension == 1 << 60
    assert Selector.from_json(json.dumps(changed("knn", k=(1 << 63) - 1))).select([1.0, 2.0]) == "a"


def test_one_hot_of_a_file():
    """An embedding of 2 and 14 for the category."""
    row = [1.0] * 16
    document = changed(
        "kmeans",
        centroids=[row, [2.0] * 16],
        embedding_model={"name": "m", "dimension": 2, "prompt": None},
        features={"category_one_hot": True},
    )
    selector = Selector.from_json(json.dumps(document))
    assert (selector.dimension, len(CATEGORIES)) == (16, 14)
    assert selector.category_one_hot


# scikit-learn's arrays.
EXACT = {
    "support_vectors": [[1.0, 2.0], [3.0, 4.0]],
    "dual_coef": [[1.0, -1.0]],
    "intercept": [0.5],
    "n_support": [1, 1],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_support": [1, 2]}, "n_support must be 2 counts that add up to 2"),
        ({"dual_coef": [[1.0]]}, "dual_coef has 1 by 1 values, expected 1 by 2"),
        ({"intercept": [0.5, 0.5]}, "intercept has 2 values, expected 1"),
        ({"kernel_type": "Poly"}, "kernel_type"),
        ({"input_normalization": "l2"}, "input_normalization must be one of none"),
        ({"format_version": 3}, "format_version is 3"),
        ({"model_names": ["a"], "n_support": [2]}, "model_names has 1 values, and an SVM needs 2 or more"),
        *(({key: ...}, rf"no field (svc\.)?{key}") for key in EXACT),
        *(({key: None}, f"{key} must be a list") for key in EXACT),
        ({"classes": [0, 2]}, r"classes\[1\] is 2, and model_names has 2 values"),
        ({"classes": [0, -1]}, r"classes\[1\] is -1, and model_names has 2 values"),
        ({"classes": [1, 1]}, r"classes\[1\] is 1, a label that one before it has too"),
        ({"classes": [0, 1, 0]}, r"classes\[2\] is 0, a label"),
        ({"classes": [0]}, "classes has 1 values, and an SVM needs 2 or more"),
        ({"classes": ["a", "b"]}, r"classes\[0\] must be an integer"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_arrays_of_an_exact_svm_that_do_not_fit(changes, message, inside):
    at_top = {key: value for key, value in changes.items() if key not in (*EXACT, "classes")}
    arrays = EXACT | {key: value for key, value in changes.items() if key not in at_top}
    arrays = {key: value for key, value in arrays.items() if value is not ...}
    refused(changed("svm", **at_top, **({"svc": arrays} if inside else arrays)), message, exact=True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exact_reading_without_the_arrays_is_refused(kind):
    message = "no field support_vectors" if kind == "svm" else f"algorithm is {kind}, and exact=True reads"
    refused(changed(kind), message, exact=True)


@pytest.mark.parametrize("key", [*EXACT, "notes", "linear_classifiers", "classes"])
@pytest.mark.parametrize("inside", [False, True])
def test_every_field_of_an_exact_svm_is_checked(key, inside):
    """Also those that its reading has no use for: what is written again must be JSON."""
    arrays = {**EXACT, key: "@"}
    text = json.dumps(changed("svm", **({"svc": arrays} if inside else arrays))).replace('"@"', "[[1e999]]")
    refused(text, "is not a finite number|must be", exact=True)


def test_decisions_of_an_exact_svm_that_overflow_are_refused():
    for kernel, changes in (("Linear", {}), ("Rbf", {"gamma": -1e300})):
        text = json.dumps(changed("svm", kernel_type=kernel, **{**EXACT, "dual_coef": [[1e308, 1e308]], **changes}))
        with pytest.raises(InferenceError, match="the score of a is not finite"):
            Selector.from_json(text, exact=True).select([1e10, 1e10])


# Fuzzing

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["knn", "svm", "linear", "Rbf", 0, 1, 2, -1, 1e308, 5e-324]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def places(value, path=()):
    """Yield the path of each value in a document."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in children:
        yield from places(one, (*path, key))


def put(document, path, value):
    for key in path[:-1]:
        document = document[key]
    if value is ...:
        del document[path[-1]]
    else:
        document[path[-1]] = value


def try_text(text):
    """Read a text, and choose where it can be read; only errors of this package come, and every answer is a label."""
    try:
        selector = Selector.from_json(text)
    except AkidbMlxError as error:
        assert str(error)
        return
    assert Selector.from_json(selector.to_json()).to_json() == selector.to_json()
    if selector.is_trained:
        try:
            vector = np.ones(selector.dimension or 3)
            assert selector.select(vector) in selector.labels
            assert all(math.isfinite(score) for score in selector.scores(vector).values())
        except InferenceError as error:
            assert "finite" in str(error)


def fuzz(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def try_changes(data, kind, large):
    document = copy.deepcopy(changed(kind))
    if large:
        document = random_document(kind, data.draw(st.integers(0, 50)), dimension=3, size=6)
    for _ in range(data.draw(st.integers(1, 3))):
        options = [path for path in places(document) if path]
        put(document, data.draw(st.sampled_from(options)), data.draw(_VALUES | st.just(...)))
    try_text(json.dumps(document))


def try_damage(data, kind):
    text = bytearray(json.dumps(changed(kind)).encode())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(text)))
        text[place : place + data.draw(st.integers(0, 6))] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"[", b"]", b"{", b"1e999", b"NaN", b",", b'"', b"-", b"\\ud800"])
        )
    try_text(bytes(text))


@fuzz(100)
@given(data=st.data(), kind=st.sampled_from(KINDS), large=st.booleans())
def test_any_change_of_a_file_is_read_or_refused(data, kind, large):
    try_changes(data, kind, large)


@fuzz(100)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_any_damage_of_a_text_is_read_or_refused(data, kind):
    try_damage(data, kind)


@pytest.mark.slow
@fuzz(3000)
@given(data=st.data(), kind=st.sampled_from(KINDS), large=st.booleans())
def test_many_changes_of_a_file_are_read_or_refused(data, kind, large):
    try_changes(data, kind, large)


@pytest.mark.slow
@fuzz(3000)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_many_damages_of_a_text_are_read_or_refused(data, kind):
    try_damage(data, kind)


@fuzz(100)
@given(text=st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_refused(text):
    with pytest.raises(ModelLoadError):
        Selector.from_json(text)
