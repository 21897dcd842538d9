"""A mutex of another language around the service, as a Rust caller holds one (fault 24 of the first integration).

`ctypes.CDLL` releases the GIL while it waits for the mutex, `ctypes.PyDLL` keeps it; a pthread mutex stands for Rust's.
"""

import subprocess

import pytest

from tests.support import GOLDENS, run_python

PROGRAM = f"""
import ctypes, sys, threading
from akidb_mlx import EmbeddingService

mutex = ctypes.create_string_buffer(256)  # zeros are a fresh one, on Linux; macOS needs its initialiser
library = {{"released": ctypes.CDLL, "kept": ctypes.PyDLL}}[sys.argv[1]](None)
library.pthread_mutex_init(mutex, None)
service = EmbeddingService({str(GOLDENS / "tiny-bert")!r}, device="cpu")
expected = service.embed(["one text"])
answers = []

def call():
    for _ in range(20):
        library.pthread_mutex_lock(mutex)
        answers.append(service.embed(["one text"]) == expected)
        library.pthread_mutex_unlock(mutex)
        service.health_check()
        service.get_model_info()

threads = [threading.Thread(target=call) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert answers == [True] * 320
service.close()
print("done")
"""


def test_a_mutex_that_is_waited_for_without_the_gil_is_only_slow():
    done = run_python(PROGRAM, 60, "released")
    assert done.stdout == "done\n", done.stderr


def test_a_mutex_that_is_waited_for_with_the_gil_freezes_whatever_the_callee_does():
    """The holder needs the GIL to come back from `embed`, the waiter keeps it until the holder has come back."""
    with pytest.raises(subprocess.TimeoutExpired):
        run_python(PROGRAM, 8, "kept")
