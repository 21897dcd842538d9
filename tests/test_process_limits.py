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
# Four callers, whose batches fill both lanes.
CALLERS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from akidb_mlx import EmbeddingService
from akidb_mlx.errors import ModelLoadError
try:
    with EmbeddingService(sys.argv[1], device="cpu") as service, ThreadPoolExecutor(4) as callers:
        texts = ["word " * count for count in range(1, 400, 7)]
        print([len(vectors) for vectors in callers.map(service.embed, [texts] * 4)])
except ModelLoadError as error:
    print(error)
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


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce the limit")
@pytest.mark.parametrize("megabytes", [800, 1000, 1200, 1300, 1400, 1600])
def test_many_callers_under_a_limit_get_vectors_or_an_error(megabytes):
    """Each thread that computes maps memory of its own; two cores make its amount the same everywhere."""
    import resource

    def prepare():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    command = [sys.executable, "-c", CALLERS, MODEL]
    done = subprocess.run(command, preexec_fn=prepare, capture_output=True, text=True, timeout=120, check=False)
    too_small = done.stdout.startswith("the address space is too small: ") and f"{megabytes << 10}" in done.stdout
    assert done.stdout == "[57, 57, 57, 57]\n" or (too_small and megabytes < 1300), done.stdout + done.stderr
