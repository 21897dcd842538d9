from pathlib import Path

import pytest
from pydantic import ValidationError

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.settings import Settings, config_file, load_settings
from model_cache import ModelCache, ModelCacheError


@pytest.fixture
def file(monkeypatch, tmp_path):
    """The TOML file that settings are read from, for a test to write."""
    path = tmp_path / "mlx.toml"
    path.touch()
    monkeypatch.setenv("AKIDB_CONFIG", str(path))
    monkeypatch.delenv("AKIDB_DEVICE")  # which goes before the file
    return path


def test_defaults(monkeypatch):
    monkeypatch.delenv("AKIDB_DEVICE")
    assert (
        load_settings()
        == Settings()
        == Settings(
            cache_dir=load_settings().cache_dir,
            device="auto",
            precision="auto",
            token_budget=None,
            allow_untrained_dimensions=False,
        )
    )


def test_the_environment_goes_before_the_file(monkeypatch, file):
    file.write_text('device = "gpu"\ntoken_budget = 100\n')
    monkeypatch.setenv("AKIDB_DEVICE", "cpu")
    monkeypatch.setenv("AKIDB_PRECISION", "")
    settings = load_settings()
    assert (settings.device, settings.token_budget, settings.precision) == ("cpu", 100, "auto")
    assert Settings(token_budget=7).token_budget == 7


def test_names_may_be_in_any_case(monkeypatch, file):
    file.write_text('DEVICE = "gpu"\nToken_Budget = 100\n')
    monkeypatch.setenv("akidb_coalesce_delay_ms", "5")
    monkeypatch.delenv("AKIDB_CACHE_DIR", raising=False)
    monkeypatch.setenv("Akidb_Cache_Dir", "/any")
    settings = Settings(Precision="float16")
    assert settings.open_cache().root == ModelCache().root == Path("/any/models")
    assert (settings.device, settings.token_budget) == ("gpu", 100)
    assert (settings.coalesce_delay_ms, settings.precision) == (5, "float16")
    assert Settings(DEVICE="cpu").device == "cpu"


def test_one_setting_in_two_cases_has_one_value(monkeypatch, file):
    file.write_text('DEVICE = "gpu"\ndevice = "cpu"\n')
    with pytest.raises(ConfigurationError, match=r"DEVICE and device are one setting with two values"):
        Settings()
    file.write_text('DEVICE = "cpu"\ndevice = "cpu"\n')
    assert Settings().device == "cpu"
    with pytest.raises(ConfigurationError, match=r"Precision and precision are one setting"):
        Settings(Precision="float16", precision="float32")
    monkeypatch.setenv("AKIDB_TOKEN_BUDGET", "5")
    monkeypatch.setenv("akidb_token_budget", "6")
    with pytest.raises(ConfigurationError, match=r"AKIDB_TOKEN_BUDGET and akidb_token_budget|akidb_token_budget and"):
        Settings()
    monkeypatch.setenv("AKIDB_TOKEN_BUDGET", "")
    assert Settings().token_budget == 6


def test_where_the_file_is(monkeypatch):
    monkeypatch.setenv("AKIDB_CONFIG", "/etc/akidb.toml")
    assert config_file() == Path("/etc/akidb.toml")
    monkeypatch.delenv("AKIDB_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert config_file() == Path("/x/akidb/mlx.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_file() == Path.home() / ".config/akidb/mlx.toml"


# The cache, which model_cache reads.
def test_the_cache_follows_argument_environment_file_and_default(monkeypatch, file):
    file.write_text('cache_dir = "/file"\ncache_max_bytes = 1\n')
    monkeypatch.setenv("AKIDB_CACHE_DIR", "/variable")
    monkeypatch.setenv("AKIDB_CACHE_MAX_BYTES", "2")
    assert repr(Settings(cache_dir="/argument", cache_max_bytes=3).open_cache()) == _cache("/argument/models", 3)
    assert repr(Settings().open_cache()) == repr(ModelCache()) == _cache("/variable/models", 2)
    monkeypatch.delenv("AKIDB_CACHE_MAX_BYTES")
    assert repr(Settings().open_cache()) == _cache("/variable/models", 1)
    monkeypatch.setenv("AKIDB_CACHE_DIR", "")
    assert repr(Settings().open_cache()) == _cache("/file/models", 1)
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert repr(Settings().open_cache()) == repr(ModelCache()) == _cache("/x/akidb/models", None)


def _cache(root: str, max_bytes: int | None) -> str:
    return f"ModelCache('{root}', max_bytes={max_bytes})"


@pytest.mark.parametrize("text", ["0", "12", " 12 ", "1_000", "1.0", "1 GB", "-1", "", "\u0663"])
def test_settings_and_cache_read_the_bound_alike(monkeypatch, text):
    monkeypatch.setenv("AKIDB_CACHE_MAX_BYTES", text)

    def outcome(open_cache):
        try:
            return repr(open_cache())
        except (ConfigurationError, ModelCacheError) as error:
            return str(error).removeprefix("settings are not usable: ")

    assert outcome(lambda: Settings().open_cache()) == outcome(ModelCache)
    assert Settings(cache_max_bytes=5).cache_max_bytes == 5


def test_a_home_folder_in_the_cache_dir_is_expanded(monkeypatch, file):
    monkeypatch.setenv("AKIDB_CACHE_DIR", "~/vectors")
    assert Settings().open_cache().root == Path.home() / "vectors" / "models"
    monkeypatch.delenv("AKIDB_CACHE_DIR")
    file.write_text('cache_dir = "~/filed"')
    assert Settings().open_cache().root == Path.home() / "filed" / "models"


# What is refused.
@pytest.mark.parametrize("url", ["s3://bucket/models", "hf:/org", "file:///models"])
@pytest.mark.usefixtures("file")
def test_a_url_as_the_cache_dir(monkeypatch, tmp_path, url):
    monkeypatch.chdir(tmp_path)
    for open_cache in (lambda: Settings(cache_dir=url).open_cache(), lambda: ModelCache(Path(url))):
        with pytest.raises(ModelCacheError, match="a URL: name a folder of this machine"):
            open_cache()
    monkeypatch.setenv("AKIDB_CACHE_DIR", url)
    with pytest.raises(ModelCacheError, match="a URL"):
        ModelCache()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("load", [load_settings, Settings])
@pytest.mark.parametrize(("name", "value"), [("AKIDB_DEVICE", "tpu"), ("AKIDB_TOKEN_BUDGET", "0")])
def test_a_bad_variable_is_named(monkeypatch, name, value, load):
    monkeypatch.setenv(name, value)
    setting = name.removeprefix("AKIDB_").lower()
    with pytest.raises(ConfigurationError, match=rf"{setting}: .*found '{value}' in the environment variable {name}"):
        load()


@pytest.mark.parametrize("load", [load_settings, Settings])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("devise = 'cpu'", r"'devise' is not a setting; settings are cache_dir, .*found 'cpu' in .*mlx\.toml"),
        ("device = 'tpu'", r"device: Input should be 'auto', 'gpu' or 'cpu' \(found 'tpu' in .*mlx\.toml"),
        ("cache_max_bytes = '1 GB'", r"cache_max_bytes: .*valid integer.*found '1 GB' in .*mlx\.toml"),
        ("device =", r"settings file .*mlx\.toml cannot be read"),
        ("\0", r"settings file .*mlx\.toml cannot be read"),
    ],
)
def test_a_bad_file_is_named(file, content, problem, load):
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=problem):
        load()


def test_a_file_that_is_named_must_exist(monkeypatch, file):
    file.unlink()
    with pytest.raises(ConfigurationError, match=r"settings file .*mlx\.toml cannot be read: AKIDB_CONFIG names it"):
        Settings()
    monkeypatch.delenv("AKIDB_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(file.parent))
    assert Settings().device == "auto"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AKIDB_DEVCE", "AKIDB_DEVICE"),
        ("akidb_token_buget", "AKIDB_TOKEN_BUDGET"),
        ("AKIDB_CACHE_MAXBYTES", "AKIDB_CACHE_MAX_BYTES"),
        ("AKIDB_CACHE_SIZE", None),
        ("AKIDB_PORT", None),
        ("AKIDB_LOG_LEVEL", None),
        ("AKIDB_MODEL", None),
    ],
)
def test_a_variable_with_nearly_the_name_of_a_setting_is_warned_of_once(monkeypatch, caplog, name, meant):
    monkeypatch.setenv(name, "1")
    Settings()
    Settings()
    expected = [] if meant is None else [f"the environment variable {name!r} has no effect: is {meant} meant?"]
    assert [record.getMessage() for record in caplog.records] == expected


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"device": "tpu"}, r"device: Input should be 'auto', 'gpu' or 'cpu' \(found 'tpu' in the arguments\)"),
        ({"token_budget": 0}, r"token_budget: Input should be greater than 0 \(found 0 in the arguments\)"),
        ({"cache_dir": 5}, r"cache_dir: .*path.* \(found 5 in the arguments\)"),
        ({"cache_max_bytes": -1}, r"cache_max_bytes: .*equal to 0 \(found -1 in the arguments\)"),
        ({"coalesce_delay_ms": 1e9}, r"coalesce_delay_ms: .*equal to 1000 "),
        ({"devise": "cpu"}, r"'devise' is not a setting; settings are cache_dir, .*found 'cpu' in the arguments"),
        ({"a\nb": "c\nd" * 1000}, r"'a\\nb' is not a setting"),
        ({"device": "x" * 10_000_000}, r"device: "),
        ({"device": "tpu", "precision": "float8"}, r"device: .*; precision: .*"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_argument_is_named(arguments, problem):
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        Settings(**arguments)
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 800
    assert isinstance(refusal.value.__cause__, ValidationError)


def test_an_argument_goes_before_a_bad_variable(monkeypatch):
    monkeypatch.setenv("AKIDB_DEVICE", "tpu")
    assert Settings(device="cpu").device == "cpu"
    monkeypatch.setenv("AKIDB_DEVICE", "cpu")
    with pytest.raises(ConfigurationError, match="found 'tpu' in the arguments"):
        Settings(device="tpu")
