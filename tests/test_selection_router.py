"""Routers, and `akidb-mlx route`: texts in, labels out."""

import json
import logging
import re
import traceback

import numpy as np
import pytest
from typer.testing import CliRunner

from akidb_mlx import Router, Selector
from akidb_mlx.cli.commands import create_app
from akidb_mlx.errors import InvalidInputError, NotTrainedError
from akidb_mlx.selection import EmbeddingModel, Record, evaluate
from akidb_mlx.selection.knn import NearestNeighbours
from model_cache import CorruptModelError, DownloadError, ModelUnavailableError, UploadError
from model_cache.kinds import SELECTOR, kind_of
from model_cache.names import RepoName
from model_cache.retries import retry
from model_cache.upload import push_file
from tests.fake_embedder import FakeEmbedder, encode
from tests.hub import Fault
from tests.support import GOLDENS, run_in_terminal
from tests.test_cli import run

MODEL = str(GOLDENS / "tiny-bert")


def selector(texts, *, model="fake", prompt=None, one_hot=False, dimension=16, **changes):
    """A KNN of texts with their labels, as a file that names its embedding model; of categories, letters are law."""
    rows = [
        encode(text).astype(np.float64).tolist()
        + (np.eye(14)[8 if label == "letters" else 0].tolist() if one_hot else [])
        for text, label in texts.items()
    ]
    document = {
        "algorithm": "knn",
        "trained": True,
        "k": 3,
        "embeddings": rows,
        "labels": list(texts.values()),
        "format_version": 1,
        "embedding_model": {"name": model, "dimension": dimension, "prompt": prompt},
        "features": {"category_one_hot": one_hot},
        **changes,
    }
    return Selector.from_json(json.dumps(document))


TEXTS = {"aaa": "letters", "aab": "letters", "444": "digits", "445": "digits", "4a4": "both"}


def test_a_text_is_routed():
    with FakeEmbedder() as fake:
        one = selector(TEXTS)
        route = Router(one, fake).route("aba")
        vector = encode("aba").astype(np.float64)
        assert route.label == "letters" == one.select(vector)
        assert route.scores == one.scores(vector)
        assert route.margin == pytest.approx(
            sorted(route.scores.values())[-1] - sorted([0, *route.scores.values()])[-2]
        )
        assert not route.is_fallback
        assert re.fullmatch(r"example 1 at distance \S+ votes 0.55 for letters", route.reasons[0])
        assert len(route.reasons) == 3


def test_batches_are_the_same_as_single_texts():
    texts = ["aba", "454", "zz", "4a5"]
    with FakeEmbedder() as fake:
        router = Router(selector(TEXTS), fake)
        assert router.route_batch(texts) == [router.route(text) for text in texts]
        fake.calls.clear()
        router.route_batch(iter(texts))
        assert fake.calls == [texts]
        assert router.route_batch([]) == []


def test_the_prompt_of_training_goes_before_each_text():
    with FakeEmbedder() as fake:
        Router(selector(TEXTS, prompt="Q: "), fake)
        prompts = []
        embed, fake.embed_array = fake.embed_array, lambda texts, **options: prompts.append(options) or embed(texts)
        Router(selector(TEXTS, prompt="Q: "), fake).route("a")
        Router(selector(TEXTS), fake).route("a")
    assert prompts == [{"prompt": "Q: "}, {"prompt": None}]


def test_a_fallback_below_a_threshold():
    with FakeEmbedder() as fake:
        router = Router(selector(TEXTS, k=2), fake, fallback="ask a person", threshold=0.9)
        sure, unsure = router.route("aaa"), router.route("4a4")
    assert (sure.label, sure.is_fallback) == ("letters", False)
    assert (unsure.label, unsure.is_fallback) == ("ask a person", True)
    assert unsure.margin < 0.9 <= sure.margin
    assert re.match(r"the margin \S+ of \w+ is below 0.9: ask a person instead", unsure.reasons[0])


def test_a_threshold_is_exclusive():
    with FakeEmbedder() as fake:
        margin = Router(selector(TEXTS), fake).route("4a4").margin
        assert not Router(selector(TEXTS), fake, fallback="x", threshold=margin).route("4a4").is_fallback


def test_one_label_has_an_infinite_margin():
    document = {
        "algorithm": "kmeans",
        "trained": True,
        "num_clusters": 1,
        "centroids": [[0.0] * 16],
        "cluster_models": ["a"],
    }
    with FakeEmbedder() as fake:
        assert Router(Selector(document), fake, fallback="x", threshold=1e9).route("text").margin == float("inf")


def test_a_category_is_part_of_the_vector():
    one = selector(TEXTS, one_hot=True)
    with FakeEmbedder() as fake:
        router = Router(one, fake)
        law, none = router.route("aba", category="law"), router.route("aba")
        vector = np.concatenate([encode("aba"), np.eye(14)[8]]).astype(np.float64)
        assert law.reasons == one.explain(vector)
        assert law.reasons != selector(TEXTS).explain(vector[:16])
        assert none.scores == one.scores(np.concatenate([encode("aba"), np.eye(14)[13]]))
        with pytest.raises(InvalidInputError, match="there are 1 categories and 2 texts"):
            router.route_batch(["a", "b"], categories=["law"])
        with pytest.raises(InvalidInputError, match="category must be a string"):
            router.route("a", category=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "org/other"}, "trained with the embeddings of org/other, and the service has fake"),
        ({"embedding_model": None, "embeddings": [[1.0] * 8] * 5}, "takes 8 values of an embedding, and fake gives 16"),
        (
            {"embedding_model": None, "embeddings": [[1.0] * 16] * 5, "features": {"category_one_hot": True}},
            "takes 2 values",
        ),
    ],
)
def test_another_model_or_dimension_is_refused_by_name(options, message):
    with FakeEmbedder() as fake, pytest.raises(InvalidInputError, match=message):
        Router(selector(TEXTS, **options), fake)


def test_a_file_without_a_model_is_theirs():
    with FakeEmbedder() as fake:
        assert Router(selector(TEXTS, embedding_model=None, features=None), fake).route("aaa").label == "letters"


@pytest.mark.parametrize(
    ("name", "services", "same", "warned"),
    [
        ("minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2", True, False),
        ("/models/one/tiny-bert", "../tiny-bert", True, True),
        ("tests/goldens/tiny-bert", "/elsewhere/tiny-bert/", True, True),
        ("/models/tiny-bert", "/models/tiny-bert", True, False),
        ("org/a", "other/a", False, False),
        ("org/a@v1", "org/a@v2", False, False),
    ],
)
def test_names_of_one_model(name, services, same, warned, caplog):
    """Directories of one name are taken for one model, but not silently."""
    with FakeEmbedder(services) as fake:
        assert EmbeddingModel(name, 16).is_of(fake) == same
    assert [name in message and services in message for message in caplog.messages] == [True] * warned


@pytest.mark.parametrize(
    ("trained", "found", "warned"), [("a", "b", True), ("a", "a", False), (None, "b", False), ("a", None, False)]
)
def test_another_commit_of_the_model_is_told(trained, found, warned, caplog, monkeypatch):
    with FakeEmbedder("org/a") as fake:
        info = fake.get_model_info() | {"revision": found}
        monkeypatch.setattr(fake, "get_model_info", lambda: info)
        assert EmbeddingModel("org/a", 16, None, trained).is_of(fake)
        assert EmbeddingModel.of(fake, "Q: ") == EmbeddingModel("org/a", 16, "Q: ", found)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned


def test_a_text_is_computed_once(monkeypatch):
    asked = []
    nearest = NearestNeighbours._nearest
    monkeypatch.setattr(
        NearestNeighbours, "_nearest", lambda self, queries: asked.append(len(queries)) or nearest(self, queries)
    )
    with FakeEmbedder() as fake:
        Router(selector(TEXTS), fake).route_batch(["aba", "454", "zz"])
    assert asked == [3]


# Files of vLLM's router have 14 more values than an embedding, and do not say what they are.


def theirs(**changes):
    return selector(TEXTS, one_hot=True, embedding_model=None, **{"features": None, **changes})


def test_a_category_for_a_file_that_does_not_say():
    one, ours = theirs(), selector(TEXTS, one_hot=True)
    with FakeEmbedder() as fake:
        with pytest.raises(
            InvalidInputError,
            match=r"takes 30 values of an embedding, and fake gives 16: if the last 14 .* say category_one_hot=True",
        ):
            Router(one, fake)
        router = Router(one, fake, category_one_hot=True)
        assert router.route_batch(["aba", "454"], categories=["law", None]) == Router(ours, fake).route_batch(
            ["aba", "454"], categories=["law", None]
        )
        records = [Record("aba", "letters", category="law"), Record("455", "digits", category="math")]
        assert (
            evaluate(one, records, service=fake, category_one_hot=True).strategies
            == evaluate(ours, records, service=fake).strategies
        )
        with pytest.raises(InvalidInputError, match="takes 30 values"):
            evaluate(one, records, service=fake)
        with pytest.raises(InvalidInputError, match=r"takes 2 values of an embedding, and fake gives 16$"):
            Router(selector(TEXTS, embedding_model=None, features=None), fake, category_one_hot=True)


@pytest.mark.parametrize(("stated", "said"), [(True, False), (False, True)])
def test_a_caller_does_not_contradict_the_file(stated, said):
    one = selector(TEXTS, one_hot=stated)
    with FakeEmbedder() as fake:
        with pytest.raises(InvalidInputError, match=f"category_one_hot is {said}, and the selector's file"):
            Router(one, fake, category_one_hot=said)
        assert Router(one, fake, category_one_hot=stated).route("aaa").label == "letters"
        with pytest.raises(InvalidInputError, match="category_one_hot must be true, false or None, found 1"):
            Router(one, fake, category_one_hot=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fallback": "a"}, "give fallback and threshold together"),
        ({"threshold": 1.0}, "give fallback and threshold together"),
        ({"fallback": "", "threshold": 1.0}, "fallback must be a label"),
        ({"fallback": 7, "threshold": 1.0}, "fallback must be a label"),
        ({"fallback": "a", "threshold": float("nan")}, "threshold must be a finite number"),
        ({"fallback": "a", "threshold": "1"}, "threshold must be a finite number"),
        ({"fallback": "a", "threshold": True}, "threshold must be a finite number"),
        ({"fallback": "a", "threshold": 10**400}, "threshold must be a finite number, found 1000"),
        (
            {"fallback": "a", "threshold": 10**5000},
            "threshold must be a finite number, found an int of too many digits",
        ),
    ],
)
def test_options_of_a_router(options, message):
    with FakeEmbedder() as fake, pytest.raises(InvalidInputError, match=message):
        Router(selector(TEXTS), fake, **options)


def test_texts_that_are_not_usable():
    with FakeEmbedder() as fake:
        router = Router(selector(TEXTS), fake)
        with pytest.raises(InvalidInputError, match="use route_batch"):
            router.route(["a"])
        with pytest.raises(InvalidInputError, match="text 1 must be a string"):
            router.route_batch(["a", 3])
        for categories in ("la", 3):
            with pytest.raises(InvalidInputError, match="categories must be a list of strings"):
                router.route_batch(["a", "b"], categories=categories)
        with pytest.raises(NotTrainedError):
            Router(selector(TEXTS, trained=False), fake).route("a")


# The command line


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of two topics, each query with both models."""
    path = tmp_path_factory.mktemp("route") / "records.jsonl"
    lines = []
    for number in range(24):
        text = f"what is {number} plus {number * 3}" if number % 2 else f"tell me a story of the {number}th king"
        for model in ("calculator", "writer"):
            good = (model == "calculator") == bool(number % 2)
            lines.append({"query": text, "model_name": model, "performance": float(good), "response_time": 1.0 + good})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("selectors")
    pytest.importorskip("sklearn")
    done = run(
        "route", "train", str(records), "-m", MODEL, "-a", "svm", "-o", str(folder), "--hold-out", "0.25", "--json"
    )
    assert done.returncode == 0, done.stderr
    return folder / "svm_model.json", json.loads(done.stdout)


def test_train(trained):
    path, result = trained
    assert result["path"] == str(path)
    assert (result["algorithm"], result["dimension"]) == ("svm", 64)
    assert result["embedding_model"] == {"name": MODEL, "dimension": 64, "prompt": None, "revision": None}
    assert result["evaluation"]["strategies"][0]["name"] == "selector"
    assert result["evaluation"]["queries"] == 6


def test_eval(trained, records, tmp_path):
    plot = tmp_path / "values.svg"
    done = run("route", "eval", str(trained[0]), str(records), "--plot", str(plot))
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["selector", "best single label", "random label", "oracle"]
    assert re.fullmatch(r"\d\.\d{4} \[\d\.\d{4}, \d\.\d{4}\]", rows[0][1])
    assert done.stderr.startswith("akidb-mlx: 24 queries; the best single label is ")
    assert plot.read_text().startswith("<svg")
    result = json.loads(run("route", "eval", str(trained[0]), str(records), "--json").stdout)
    assert f"{result['strategies'][0]['value']['mean']:.4f}" == rows[0][1][:6]


def test_select(trained):
    texts = ["what is 5 plus 15", "tell me a story of the 4th king"]
    done = run("route", "select", str(trained[0]), stdin="\n".join(texts))
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(row[0], row[2]) for row in rows] == [("calculator", texts[0]), ("writer", texts[1])]
    result = json.loads(run("route", "select", str(trained[0]), *texts, "--json").stdout)
    assert [one["label"] for one in result["results"]] == ["calculator", "writer"]
    assert f"{result['results'][0]['margin']:.6g}" == rows[0][1]
    options = ("--fallback", "person", "--threshold", "1e6")
    done = run("route", "select", str(trained[0]), texts[0], "--json", *options)
    assert json.loads(done.stdout)["results"][0]["label"] == "person"


def test_a_terminal_gets_a_table_with_reasons(trained):
    status, shown = run_in_terminal("route", "select", str(trained[0]), "what is 5 plus 15", "--device", "cpu")
    assert status == 0
    assert b"reasons" in shown
    assert b"calculator has the score" in shown
    assert run_in_terminal("route", "show", str(trained[0]))[0] == 0


def test_show(trained):
    result = json.loads(run("route", "show", str(trained[0]), "--json").stdout)
    assert result["labels"] == ["calculator", "writer"]
    rows = dict(line.split("\t") for line in run("route", "show", str(trained[0])).stdout.splitlines())
    assert (rows["algorithm"], rows["labels"]) == ("svm", "calculator, writer")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "none.json"], "none.json cannot be read"),
        (["select", "{trained}", "-m", str(GOLDENS / "tiny-roberta"), "a"], "trained with the embeddings of"),
        (["select", "{trained}", "a", "--fallback", "b"], "give fallback and threshold together"),
        (["train", "none.jsonl", "-m", MODEL], "none.jsonl cannot be read"),
        (["train", "{records}", "-a", "svm"], "queries have no embedding"),
        (["eval", "{trained}", "{trained}"], "line 1: it has no query"),
        (["pull", "nonsense"], "is not a repository name"),
        (["push", "{records}", "org/name"], "not valid JSON"),
        # The model does not exist: it is not asked for before the place of the result is checked.
        (["train", "{records}", "-m", "./none", "-o", "missing/knn.json"], "No such file or directory: 'missing'"),
        (["train", "{records}", "-m", "./none", "-o", "{records}/knn.json"], "Not a directory"),
        (["eval", "{trained}", "{records}", "-m", "./none", "--plot", "missing/a.svg"], "No such file or directory"),
        (["eval", "{trained}", "{records}", "-m", "./none", "--plot", "{folder}"], "Is a directory"),
        (["show", "{trained}", "--exact"], "no field support_vectors"),
        (["select", "{trained}", "a", "--category-one-hot"], "the selector's file has features.category_one_hot False"),
    ],
)
def test_failures_are_one_line(trained, records, arguments, message):
    folder = str(trained[0].parent)
    places = (("{trained}", str(trained[0])), ("{records}", str(records)), ("{folder}", folder))
    for place, path in places:
        arguments = [word.replace(place, path) for word in arguments]
    done = run("route", *arguments, AKIDB_MODEL="")
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_is_named_is_made(tmp_path, monkeypatch):
    """`-o selectors/` is a folder, also where it is not there yet; and a setting tells nothing of given vectors."""
    path = tmp_path / "records.jsonl"
    lines = [{"query": str(n), "model_name": "ab"[n % 2], "embedding": [n % 2, n]} for n in range(8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setenv("AKIDB_MODEL", "./none")
    result = invoke("train", str(path), "-o", f"{tmp_path}/new/selectors/")
    assert result["path"] == f"{tmp_path}/new/selectors/knn_model.json"
    assert result["embedding_model"] is None
    one = Selector.load(result["path"])
    assert one.save(f"{tmp_path}/more/") == tmp_path / "more" / "knn_model.json"
    assert one.save(tmp_path / "plain") == tmp_path / "plain"
    assert (tmp_path / "plain").is_file()


# The Hub


def invoke(*arguments, status=0):
    done = CliRunner().invoke(create_app(), ["route", *arguments, "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


def test_push_and_pull(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_for_tests")
    one = selector(TEXTS)
    path = one.save(tmp_path / "any-name.json")
    pushed = invoke("push", str(path), "org/selectors-pushed", "--private")
    assert (pushed["file"], pushed["name"]) == ("knn_model.json", "org/selectors-pushed")
    assert pushed["commit"].startswith(f"{hub.url}/org/selectors-pushed/commit/")
    pulled = invoke("pull", "org/selectors-pushed")
    (file,) = pulled["files"]
    assert Selector.load(file).to_json() == one.to_json()
    other = tmp_path / "kmeans.json"
    Selector(
        {"algorithm": "kmeans", "trained": True, "num_clusters": 1, "centroids": [[1.0]], "cluster_models": ["a"]}
    ).save(other)
    invoke("push", str(other), "org/selectors-pushed")
    done = CliRunner().invoke(create_app(), ["update", "org/selectors-pushed", "--json"])
    assert done.exit_code == 0
    assert sorted(file.split("/")[-1] for file in invoke("pull", "org/selectors-pushed")["files"]) == [
        "kmeans_model.json",
        "knn_model.json",
    ]


def test_what_is_pulled_is_verified(hub):
    content = selector(TEXTS).to_json().encode()
    files = {"knn_model.json": content, "README.md": b"# Selectors", "weights.bin": b"no"}
    hub.add("org/selectors-damaged", files)
    hub.fail(Fault("*/knn_model.json", times=None, flip=True))
    done = CliRunner().invoke(create_app(), ["route", "pull", "org/selectors-damaged"])
    assert isinstance(done.exception, CorruptModelError)
    hub.reset()
    (file,) = invoke("pull", "org/selectors-damaged")["files"]
    assert Selector.load(file).is_trained
    done = CliRunner().invoke(create_app(), ["verify", "org/selectors-damaged", "--json"])
    assert list(json.loads(done.stdout).values()) == [{"damaged": [], "repaired": False}]
    assert hub.count("*/weights.bin") == 0


def test_a_repository_of_a_model_has_no_selectors(hub):
    hub.add("org/selectors-none", GOLDENS / "tiny-bert")
    done = CliRunner().invoke(create_app(), ["route", "pull", "org/selectors-none"])
    assert "org/selectors-none holds no selector: expected one of knn_model.json" in str(done.exception)
    assert hub.count("*model.safetensors") == 0
    CliRunner().invoke(create_app(), ["pull", "org/selectors-none"])
    assert hub.count("*model.safetensors") > 0
    done = CliRunner().invoke(create_app(), ["route", "pull", "org/selectors-none"])
    assert "org/selectors-none holds no selector" in str(done.exception)


def test_kinds_of_repositories():
    assert kind_of(["README.md", "svm_model.json"]) is SELECTOR
    assert kind_of(["config.json", "knn_model.json"]) is SELECTOR
    assert kind_of(["config.json", "model.safetensors", "knn_model.json"]) is not SELECTOR
    assert kind_of(["below/knn_model.json"]) is not SELECTOR


def test_pushing_without_rights(hub, tmp_path, monkeypatch):
    path = selector(TEXTS).save(tmp_path)
    with pytest.raises(UploadError, match="set HF_TOKEN to a token that may write"):
        push_file(path, "org/selectors-refused", "knn_model.json")
    monkeypatch.setenv("HF_TOKEN", "hf_for_tests")
    hub.fail(Fault("*/preupload/*", method="POST", times=None, status=400))
    with pytest.raises(UploadError, match=r"knn_model\.json could not be pushed to org/selectors-refused"):
        push_file(path, "org/selectors-refused", "knn_model.json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelUnavailableError, match="HF_HUB_OFFLINE is set"):
        push_file(path, "org/selectors-refused", "knn_model.json")


@pytest.mark.usefixtures("hub")
def test_a_token_is_in_no_traceback(tmp_path, monkeypatch):
    """The client's errors of a header or an address may show it."""
    from httpx2 import LocalProtocolError
    from huggingface_hub import HfApi

    def fail(*_, **__):
        raise LocalProtocolError("Illegal header value b'Bearer hf_secret'")

    monkeypatch.setattr(HfApi, "create_repo", fail)
    with pytest.raises(UploadError, match="LocalProtocolError") as caught:
        push_file(selector(TEXTS).save(tmp_path), "org/selectors", "knn_model.json")
    assert "hf_secret" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(DownloadError, match="LocalProtocolError") as caught:
        retry(fail, RepoName("org/a"), 0.0)
    assert "hf_secret" not in "".join(traceback.format_exception(caught.value))
