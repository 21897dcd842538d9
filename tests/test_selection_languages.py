"""Python, Rust and Go choose the same: random selectors of every kind, queries on standard input, answers compared.

Each program is `choose FILE`: a line with a JSON list of numbers gives `{"label", "scores": [[label, value], …]}` or
`{"error"}`.
"""

import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from akidb_mlx import Selector
from akidb_mlx.errors import AkidbMlxError, ModelLoadError
from tests.selectors import KINDS, random_document, random_queries
from tests.test_selection_files import NESTED, changed, count_parts, nested_text, places, put

ROOT = Path(__file__).parent.parent
CRATE = ROOT / "crates" / "akidb-selection"
GO = ROOT / "bindings" / "go"


def _build(folder: Path) -> dict[str, list[str]]:
    """Build each program whose toolchain and sources are there; return how to run them."""
    programs = {}
    if shutil.which("cargo") and (CRATE / "Cargo.toml").is_file():
        target = ROOT / "target"  # where the Go package looks for the library
        command = [
            "cargo",
            "build",
            "--release",
            "--locked",
            "--quiet",
            "-p",
            "akidb-selection",
            "--target-dir",
            target,
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        subprocess.run([*command, "--example", "choose"], cwd=ROOT, check=True)
        programs["rust"] = [str(target / "release" / "examples" / "choose")]
        if shutil.which("go") and (GO / "cmd" / "choose").is_dir():
            binary = folder / "choose-go"
            subprocess.run(["go", "build", "-o", str(binary), "./cmd/choose"], cwd=GO, check=True)
            programs["go"] = [str(binary)]
    return programs


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return _build(tmp_path_factory.mktemp("programs"))


@pytest.fixture(params=["rust", "go"])
def program(request, programs):
    if request.param not in programs:
        pytest.skip(f"{request.param}: its toolchain, or crates/akidb-selection or bindings/go, is not here")
    return programs[request.param]


def ask(program, path, lines):
    done = subprocess.run(
        [*program, str(path)],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.removesuffix("\n").split("\n")]


def compare(program, tmp_path, kind, seed, count, **sizes):
    document = random_document(kind, seed, **sizes)
    path = tmp_path / f"{kind}-{seed}.json"
    path.write_text(json.dumps(document))
    selector = Selector.load(path)
    queries = random_queries(seed, count)
    answers = ask(program, path, (json.dumps(query.tolist()) for query in queries))
    assert len(answers) == count
    labels, lists = selector.select_batch(queries), selector.score_batch(queries)
    assert [answer.get("label") for answer in answers] == labels
    for answer, scores in zip(answers, lists, strict=True):
        assert [label for label, _ in answer["scores"]] == [label for label, _ in scores]
    found = np.array([value for answer in answers for _, value in answer["scores"]])
    expected = np.array([value for scores in lists for _, value in scores])
    largest = float(np.abs(found - expected).max(initial=0))
    assert largest <= 1e-9
    return largest


@pytest.mark.parametrize("kind", KINDS)
def test_the_languages_choose_alike(program, tmp_path, kind):
    for seed in range(3):
        compare(program, tmp_path, kind, seed, 100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_languages_choose_alike_on_ten_thousand_queries(program, tmp_path, kind):
    largest = max(compare(program, tmp_path, kind, seed, 1000, size=200) for seed in range(10, 20))
    print(f"{kind}: largest difference of a score {largest:.2e}")


@pytest.mark.parametrize("kind", KINDS)
def test_queries_that_are_not_usable_are_errors_in_every_language(program, tmp_path, kind):
    path = tmp_path / "selector.json"
    path.write_text(json.dumps(changed(kind)))
    good, *bad = ask(program, path, ["[1.0, 2.0]", "[1.0]", "[1.0, 2.0, 3.0]", "[]", "[1.0, 1e999]", "nonsense"])
    assert good["label"] == Selector.load(path).select([1.0, 2.0])
    assert all(set(answer) == {"error"} for answer in bad)


@pytest.mark.parametrize(
    "document",
    [
        changed("knn", k=0),
        changed("knn", k=3.0),
        changed("knn", labels=["a"]),
        changed("knn", embeddings=[]),
        changed("knn", embeddings=[[1.0, 2.0], [3.0], [5.0, 6.0]]),
        changed("kmeans", format_version=2),
        changed("kmeans", centroids=[], cluster_models=[]),
        changed("kmeans", cluster_models=["a"]),
        changed("svm", kernel_type="rbf"),
        changed("svm", gamma=...),
        changed("mlp", layers=[]),
        changed("mlp", n_classes=3),
        changed("mlp", algorithm="forest"),
    ],
    ids=lambda document: ",".join(f"{key}={value}"[:24] for key, value in document.items()),
)
def test_files_that_are_not_usable_are_refused_in_every_language(program, tmp_path, document):
    """With a status that is not 0, or an error for each line; never a label."""
    path = tmp_path / "selector.json"
    path.write_text(json.dumps(document))
    done = subprocess.run(
        [*program, str(path)], input="[1.0, 2.0]\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert '"label"' not in done.stdout
    assert done.returncode != 0 or '"error"' in done.stdout
    assert "panic" not in done.stderr
    assert done.returncode >= 0  # no signal ended it


# What is put in the place of a value; ... removes it, and a string that begins with "@" is JSON as it stands.
ODD_VALUES = [
    *(None, True, False, 0, 1, 2, 3, -1, 1.5, 2.0, 1e16, 5e-324, 1 << 53, (1 << 53) + 1, (1 << 63) - 1, 1 << 63),
    *("", "a", "knn", "Rbf", "linear", "\u2028", [], {}, [[]], [1], [1, 2], [1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]]),
    *(["a"], ["a", "b"], [None], [True], [1, "a"], [[1, 2], [3]], [[1, 2], 3], {"a": 1}, [{"type": "relu"}]),
    *(..., ..., ..., "@1e999", "@-0", "@1E2", "@01", "@NaN", "@1.0e2", "@[1,]", '@{"a":1,"a":2}', '@"\\ud800"'),
    *("@" + "9" * 400, "@1.7976931348623159e308", "@" + "[" * 64 + "]" * 64, "@" + "[" * 65 + "]" * 65),
]


def judge(text, query):
    """Return what Python makes of a file: "refused", "error" for the query, or the label and the scores."""
    try:
        selector = Selector.from_json(text)
    except AkidbMlxError:
        return "refused", []
    try:
        return selector.select(query), selector.score_list(query)
    except AkidbMlxError:
        return "error", []


def judge_by(program, path, query):
    done = subprocess.run(
        [*program, str(path)], input=f"{json.dumps(query)}\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode >= 0, "a signal ended it"
    assert "panic" not in done.stderr
    if done.returncode:
        return "refused", []
    line = done.stdout.removesuffix("\n")  # a label may hold another separator of lines
    answer = json.loads(line)
    return answer.get("label", "error"), [tuple(score) for score in answer.get("scores", [])]


@pytest.mark.parametrize(("seed", "count"), [(0, 200), pytest.param(1, 3000, marks=pytest.mark.slow)])
def test_any_change_of_a_file_is_judged_alike(program, tmp_path, seed, count):
    """The same files are refused, the same queries are errors, and all other answers are the same."""
    rng = random.Random(seed)
    path = tmp_path / "selector.json"
    judged = set()
    for _ in range(count):
        kind = rng.choice(KINDS)
        document = (
            changed(kind) if rng.random() < 0.6 else random_document(kind, rng.randrange(40), dimension=2, size=6)
        )
        value = rng.choice(ODD_VALUES)
        raw = isinstance(value, str) and value.startswith("@")
        put(document, rng.choice([place for place in places(document) if place]), "@" if raw else value)
        text = json.dumps(document).replace('"@"', value[1:] if raw else "", 1)
        path.write_text(text)
        label, scores = judge(text, [0.5, 0.75])
        found, found_scores = judge_by(program, path, [0.5, 0.75])
        assert (found, [name for name, _ in found_scores]) == (label, [name for name, _ in scores]), text[:2000]
        assert [one for _, one in found_scores] == pytest.approx([one for _, one in scores], abs=1e-9, rel=1e-9), text[
            :2000
        ]
        judged.add(label)
    assert {"refused", "error", "a", "b"} <= judged


@pytest.mark.parametrize(("path", "outside"), NESTED, ids=str)
def test_depth_has_one_bound_in_every_language(program, tmp_path, path, outside):
    """Also inside of the objects and lists of the format."""
    file = tmp_path / "selector.json"
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        for levels in (65 - outside, 66 - outside):
            file.write_text(nested_text(path, levels, opening, closing))
            label, _ = judge(file.read_text(), [0.5, 0.75])
            assert (label == "refused") == (levels + outside > 65)
            assert judge_by(program, file, [0.5, 0.75])[0] == label


@pytest.mark.slow
@pytest.mark.parametrize("item", ["[]", "[1]", "[[1],[2]]", "{}", '""', "null", '[0,""]', '{"a":1}', '"[,"'])
def test_parts_have_one_bound_in_every_language(program, tmp_path, item):
    """Files with as many of an item as Python reads where the limit is the default, and with one more."""
    path = tmp_path / "selector.json"
    start = json.dumps(changed("knn"))[:-1]

    def text(count):
        return f'{start}, "list": [null,{",".join([item] * count)}]}}'

    each = count_parts(text(2)) - count_parts(text(1))
    most = ((512 << 20) // 64 - count_parts(text(1))) // each + 1
    for count, read in ((most, True), (most + 1, False)):
        path.write_text(text(count))
        label, _ = judge_by(program, path, [0.5, 0.75])
        assert (label != "refused") == read
    with pytest.raises(ModelLoadError, match="lists, objects, strings"):
        Selector.load(path)


@pytest.mark.parametrize(
    "second", ["a[1]", "a\\u005b1]", "\\u0061[1]", "a[\\u0031]", "a[2]", "a\\u005c[1]"], ids=lambda value: value
)
def test_keys_are_compared_as_they_are_read_in_every_language(program, tmp_path, second):
    path = tmp_path / "selector.json"
    path.write_text(f'{json.dumps(changed("knn"))[:-1]}, "a[1]": [1], "{second}": [2]}}')
    label, _ = judge(path.read_text(), [0.5, 0.75])
    assert (label == "refused") == (json.loads(f'"{second}"') == "a[1]")
    assert judge_by(program, path, [0.5, 0.75])[0] == label


def test_sums_of_votes_that_overflow_are_errors_in_every_language(program, tmp_path):
    path = tmp_path / "selector.json"
    path.write_text(json.dumps(changed("knn", labels=["a", "a", "b"], qualities=[1.79e308] * 3)))
    for query, label in (([1.0, 2.0], "error"), ([5.5, 6.0], "a")):
        assert judge(path.read_text(), query)[0] == label
        assert judge_by(program, path, query)[0] == label


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", [[1e200, 1.0], [1e-200, 1e-200], [-1e308, 1e308], [5e-324, 0.0]])
def test_extreme_queries_are_judged_alike(program, tmp_path, kind, query):
    path = tmp_path / "selector.json"
    path.write_text(json.dumps(changed(kind)))
    label, scores = judge(path.read_text(), query)
    found, found_scores = judge_by(program, path, query)
    assert (found, [name for name, _ in found_scores]) == (label, [name for name, _ in scores])
    assert [one for _, one in found_scores] == pytest.approx([one for _, one in scores], abs=1e-9, rel=1e-9)
