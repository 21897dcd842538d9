from pathlib import Path

import pytest

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.settings import Settings, config_file, load_settings


def test_defaults():
    assert load_settings() == Settings(
        cache_dir=load_settings().cache_dir,
        device="auto",
        precision="auto",
        token_budget=None,
        allow_untrained_dimensions=False,
    )


def test_the_environment_goes_before_the_file(monkeypatch, tmp_path):
    file = tmp_path / "mlx.toml"
    file.write_text('device = "gpu"\ntoken_budget = 100\n')
    monkeypatch.setenv("AKIDB_CONFIG", str(file))
    monkeypatch.setenv("AKIDB_DEVICE", "cpu")
    monkeypatch.setenv("AKIDB_PRECISION", "")
    settings = load_settings()
    assert (settings.device, settings.token_budget, settings.precision) == ("cpu", 100, "auto")
    assert Settings(token_budget=7).token_budget == 7


def test_a_home_folder_in_the_cache_dir_is_expanded(monkeypatch):
    monkeypatch.setenv("AKIDB_CACHE_DIR", "~/vectors")
    assert load_settings().models_dir == Path.home() / "vectors" / "models"


def test_where_the_file_is(monkeypatch):
    monkeypatch.setenv("AKIDB_CONFIG", "/etc/akidb.toml")
    assert config_file() == Path("/etc/akidb.toml")
    monkeypatch.delenv("AKIDB_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert config_file() == Path("/x/akidb/mlx.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_file() == Path.home() / ".config/akidb/mlx.toml"


@pytest.mark.parametrize(("name", "value"), [("AKIDB_DEVICE", "tpu"), ("AKIDB_TOKEN_BUDGET", "0")])
def test_a_bad_variable_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"{name.removeprefix('AKIDB_').lower()}: .*found '{value}'"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "problem"),
    [("devise = 'cpu'", "devise: Extra inputs"), ("device =", "cannot be read"), ("\0", "cannot")],
)
def test_a_bad_file_is_named(monkeypatch, tmp_path, content, problem):
    file = tmp_path / "mlx.toml"
    file.write_text(content)
    monkeypatch.setenv("AKIDB_CONFIG", str(file))
    with pytest.raises(ConfigurationError, match=problem):
        load_settings()
