"""Every `model_type` of transformers is read as its architecture, or refused by name."""

import json
import shutil

import pytest

from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.checkpoint import read_checkpoint
from akidb_mlx.errors import ModelLoadError
from tests.support import GOLDENS, TINY, edit_json

# Of the installed transformers, by tests/goldens/make_reference_keys.py.
MODEL_TYPES = json.loads((GOLDENS / "model_types.json").read_text())


def test_every_architecture_is_one_of_the_references():
    assert set(ARCHITECTURES) <= set(MODEL_TYPES)


def test_every_architecture_has_a_tiny_model_with_vectors_of_the_reference():
    tested = {json.loads((GOLDENS / name / "config.json").read_text())["model_type"] for name in TINY}
    # The two have one encoder and one configuration, which a test below compares.
    assert set(ARCHITECTURES) - tested <= {"xlm-roberta"}
    assert ARCHITECTURES["xlm-roberta"] == ARCHITECTURES["roberta"]


@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name not in ARCHITECTURES])
def test_any_other_is_refused_by_name(tmp_path, model_type):
    """Also where the rest of the directory is that of a model which loads."""
    directory = tmp_path / "model"
    shutil.copytree(GOLDENS / "tiny-bert", directory)
    edit_json(directory / "config.json", model_type=model_type)
    with pytest.raises(ModelLoadError, match=f"model_type '{model_type}' is not supported"):
        read_checkpoint(directory)
