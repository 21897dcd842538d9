"""Processes with closed descriptors or little address space, as daemons and batch systems start them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.support import GOLDENS, TEXTS, golden

MODEL = str(GOLDENS / "tiny-bert")
# Waits for a vector or a typed error.
PROGRAM = """
import json, os, sys
from akidb_mlx import EmbeddingService
from akidb_mlx.errors import ModelLoadError
try:
    with EmbeddingService(sys.argv[1], device="cpu") as service:
        answer = {"vector": service.embed([sys.argv[2]])[0]}
except ModelLoadError as error:
    answer = {"error": str(error)}
with open(sys.argv[3], "w") as file:
    json.dump(answer, file)
"""


def _answer(tmp_path, prepare):
    file = tmp_path / "answer.json"
    command = [sys.executable, "-c", PROGRAM, MODEL, TEXTS[0], str(file)]
    done = subprocess.run(command, preexec_fn=prepare, stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def _assert_right(vector):
    assert np.abs(np.array(vector) - golden("tiny-bert")["none"][0]).max() <= 2e-5


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_model_loads_with_standard_descriptors_closed(tmp_path, closed):
    _assert_right(_answer(tmp_path, lambda: [os.close(descriptor) for descriptor in closed])["vector"])


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce the limit")
@pytest.mark.parametrize("megabytes", [500, 600, 800, 1000, 8000])
def test_a_limit_on_address_space_gives_a_vector_or_an_error(tmp_path, megabytes):
    import resource

    limit = megabytes << 20
    answer = _answer(tmp_path, lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    if "vector" in answer:
        _assert_right(answer["vector"])
    else:
        assert f"ulimit -v is {limit >> 10}" in answer["error"]
