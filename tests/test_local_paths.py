"""Places to write to: a URL is refused by name, where a folder called "s3:" would appear otherwise."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from akidb_mlx.bulk import embed_files
from akidb_mlx.cli.commands import create_app
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.local_paths import local_path
from akidb_mlx.quantization import quantize_model
from akidb_mlx.selection.files import output_file
from tests.support import GOLDENS

URL = "s3://bucket/folder/"
TINY = str(GOLDENS / "tiny-bert")


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["embed-files", "texts.jsonl", "-m", TINY],
        ["quantize", TINY],
        ["evaluate", TINY],
        ["verify", TINY, "--answers-from", TINY],
        ["export", TINY, "--to", "onnx"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("url", [URL, "hf://datasets/org/name", "https://host/folder", "file:///folder", "S3://bucket"])
def test_commands_refuse_to_write_to_a_url(command, url):
    done = CliRunner().invoke(create_app(), [*command, "-o", url])
    assert isinstance(done.exception, InvalidInputError)
    assert str(done.exception).startswith(url.partition("/")[0]) and "is a URL" in str(done.exception)


def test_a_selector_is_not_trained_for_a_url():
    with pytest.raises(InvalidInputError, match="s3://bucket/folder/ is a URL"):
        output_file(URL, "knn")


def test_calls_refuse_to_write_to_a_url():
    with pytest.raises(InvalidInputError, match="s3://bucket/folder/ is a URL"):
        embed_files(["texts.jsonl"], column="text", output=URL, model=TINY)
    with pytest.raises(InvalidInputError, match="s3://bucket/folder/ is a URL"):
        quantize_model(TINY, URL, bits=8)


@pytest.mark.parametrize("path", ["vectors", "/a/b", "a:b", "C:/vectors", "./s3://bucket", "12:/a", "a b:/c"])
def test_other_names_are_local(path):
    assert local_path(path) == Path(path)
