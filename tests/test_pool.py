"""Models that share a budget of memory. Most tests use embedders without a model, of 100 bytes each."""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, ModelPool, pool, pool_manager, pool_models
from akidb_mlx.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    ModelNotFoundError,
    ReentrantCallError,
    ServiceClosedError,
    ServiceOverloadedError,
)
from akidb_mlx.runtime import locks
from akidb_mlx.runtime.owner import run_on_owner_thread
from tests.fake_embedder import FakeEmbedder, encode
from tests.support import GOLDENS, run_python, wait_until

BERT, QWEN, GEMMA = (str(GOLDENS / name) for name in ("tiny-bert", "tiny-qwen3", "tiny-gemma3"))
SLACK = 10_000  # the measured size of a model varies, since other tests' models come and go meanwhile
SHORT = 0.05  # a timeout that is to pass
ENOUGH = 0.3  # one that is to pass after the pool has looked for capacity
LONG = 60  # one that only keeps a failing test from hanging
on_cpu = partial(EmbeddingService, device="cpu")


class Loads:
    """Makes fake embedders of 100 bytes, or as many as their name says, and keeps them by name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.made: list[FakeEmbedder] = []
        self.peak = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: BaseException | None = None

    def __call__(self, name: str) -> FakeEmbedder:
        self.names.append(name)
        assert self.gate.wait(LONG)
        if self.error is not None:
            raise self.error
        self.made.append(FakeEmbedder(name, int("".join(filter(str.isdigit, name)) or 100)))
        self.peak = max(self.peak, self.bytes)
        return self.made[-1]

    def __getitem__(self, name: str) -> FakeEmbedder:
        """The latest embedder of that name."""
        return next(one for one in reversed(self.made) if one.name == name)

    @property
    def bytes(self) -> int:
        return sum(one.weight_bytes for one in self.made if not one.freed.is_set())


@pytest.fixture
def loads():
    return Loads()


def load_all(models: ModelPool, *names: str) -> None:
    for name in names:
        with models.use(name, LONG):
            pass


@contextlib.contextmanager
def draining(models: ModelPool, loads: Loads, name: str):
    """`name` is being unloaded, and its calls hang inside."""
    load_all(models, name)
    loads[name].open.clear()
    with ThreadPoolExecutor(1) as threads:
        unloading = threads.submit(models.unload, name)
        wait_until(lambda: name not in models.loaded())
        try:
            yield unloading
        finally:
            for one in loads.made:
                one.open.set()
        assert unloading.result(LONG)


def test_a_model_is_loaded_on_first_use_and_kept(loads):
    with ModelPool(load=loads) as models:
        assert models.loaded() == {}
        with models.use("a") as embedder:
            assert np.array_equal(embedder.embed_array(["x"])[0], encode("x"))
            assert models.loaded()["a"] == {"weight_bytes": 100, "uses": 1, "pinned": False, "idle_s": 0.0}
        with models.use("a") as again:
            assert again is embedder
        assert models.loaded()["a"]["uses"] == 0
    assert loads.names == ["a"]


def test_the_least_recently_used_gives_way(loads):
    with ModelPool(max_bytes=200, load=loads) as models:
        load_all(models, "a", "b", "a", "c", "c")
        assert list(models.loaded()) == ["a", "c"]
        assert loads["b"].freed.is_set()
        assert not loads["a"].freed.is_set()


def test_what_is_pinned_or_in_use_stays(loads):
    with ModelPool(max_bytes=200, load=loads) as models:
        load_all(models, "c")  # so that its size is known
        models.pin("a")
        with models.use("b"):
            for _ in range(2):  # the first leaves nothing behind
                with pytest.raises(ServiceOverloadedError, match=r"no capacity for c: .* 200 bytes") as refusal:
                    models.pin("c", ENOUGH)
                assert refusal.value.retry_after_s > 0
        assert list(models.loaded()) == ["a", "b"]
        load_all(models, "c")
        assert list(models.loaded()) == ["a", "c"]
        models.unpin("a")
        models.unpin("never loaded")
        load_all(models, "b")
        assert list(models.loaded()) == ["c", "b"]


def test_a_size_that_is_learnt_too_late_does_not_evict_what_is_in_use(loads):
    with ModelPool(max_bytes=100, load=loads) as models, ThreadPoolExecutor(1) as threads:
        with models.use("a"):
            waiting = threads.submit(load_all, models, "b")
            wait_until(lambda: models._manager._waiting and models._manager._waiting[0].refusal)
            assert list(models.loaded()) == ["a"]
            assert loads["b"].freed.is_set()
        waiting.result(LONG)
        assert list(models.loaded()) == ["b"]
    assert loads.names == ["a", "b", "b"]


def test_a_call_waits_for_capacity(loads):
    """The second model is loaded when the first is released, by whichever thread."""
    with ModelPool(max_bytes=100, load=loads) as models, ThreadPoolExecutor(1) as threads:
        load_all(models, "b", "a")
        with models.use("a"):
            waiting = threads.submit(load_all, models, "b")
            wait_until(lambda: models._manager._waiting and models._manager._waiting[0].refusal)
            assert list(models.loaded()) == ["a"]
        waiting.result(LONG)
        assert list(models.loaded()) == ["b"]
    assert loads.names == ["b", "a", "b"]


def test_memory_goes_to_those_who_asked_first(loads):
    """Memory that is freed for one request is not promised to another, too."""
    with ModelPool(max_bytes=200, load=loads) as models, ThreadPoolExecutor(2) as threads:
        load_all(models, "x200", "c", "b", "a")  # x and c are gone; b and a fill the pool
        loads["b"].open.clear()
        loads["a"].open.clear()
        first = threads.submit(load_all, models, "x200")
        wait_until(lambda: not models.loaded())
        with pytest.raises(ServiceOverloadedError), models.use("c", ENOUGH):
            pass
        loads["b"].open.set()
        with pytest.raises(ServiceOverloadedError), models.use("c", ENOUGH):
            pass
        loads["a"].open.set()
        first.result(LONG)
        assert list(models.loaded()) == ["x200"]


def test_a_model_that_never_fits(loads):
    with ModelPool(max_bytes=100, load=loads) as models:
        models.pin("a")
        for _ in range(2):  # before its size is known, and after
            with pytest.raises(ConfigurationError, match="x101 takes 101 bytes; the pool's max_bytes is 100"):
                models.pin("x101")
        assert list(models.loaded()) == ["a"]
        assert loads["x101"].freed.is_set()
    assert loads.names == ["a", "x101"]


def test_threads_that_start_together_load_once(loads):
    loads.gate.clear()
    with ModelPool(load=loads) as models, ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(load_all, models, "a") for _ in range(8)]
        wait_until(lambda: len(models._manager._waiting) == 8)
        loads.gate.set()
        for call in calls:
            call.result(LONG)
    assert loads.names == ["a"]


def test_a_load_that_fails_can_be_tried_again(loads):
    with ModelPool(load=loads) as models, ThreadPoolExecutor(2) as threads:
        loads.error = ModelNotFoundError("no such model")
        loads.gate.clear()
        calls = [threads.submit(load_all, models, "a") for _ in range(2)]
        wait_until(lambda: len(models._manager._waiting) == 2)
        loads.gate.set()
        for call in calls:
            with pytest.raises(ModelNotFoundError):
                call.result(LONG)
        loads.error = None
        load_all(models, "a")
    assert loads.names == ["a", "a"]


def test_an_embedder_that_cannot_report_its_size_is_closed(loads, monkeypatch):
    with ModelPool(load=loads) as models:
        with monkeypatch.context() as patch:
            patch.setattr(FakeEmbedder, "get_model_info", lambda _: {})
            with pytest.raises(KeyError, match="weight_bytes"), models.use("a"):
                pass
        assert loads["a"].freed.wait(LONG)
        load_all(models, "a")


def test_unused_models_are_unloaded(loads):
    with ModelPool(keep_alive_s=SHORT, load=loads) as models:
        models.pin("pinned")
        with models.use("held"):
            load_all(models, "a")
            wait_until(lambda: "a" not in models.loaded())
            assert set(models.loaded()) == {"pinned", "held"}
        models.unpin("pinned")
        wait_until(lambda: not models.loaded())
        assert all(one.freed.wait(LONG) for one in loads.made)


@pytest.mark.parametrize("keep_alive_s", [None, 0, 1e300, 10**400, float("inf")])
def test_any_keep_alive_time(loads, keep_alive_s):
    with ModelPool(keep_alive_s=keep_alive_s, load=loads) as models:
        with models.use("a"):
            assert "a" in models.loaded()
        if keep_alive_s == 0:
            wait_until(lambda: not models.loaded())
        else:
            assert "a" in models.loaded()


@pytest.mark.parametrize("limit", ["max_bytes", "keep_alive_s"])
@pytest.mark.parametrize("value", [-1, float("nan"), "5", True])
def test_limits_are_numbers(limit, value):
    with pytest.raises(InvalidInputError, match=f"{limit} must be a number of 0 or more, or None, found"):
        ModelPool(**{limit: value})


def test_timeouts_are_those_of_embedders(loads):
    with ModelPool(load=loads) as models:
        for timeout in (0, -1, float("nan"), "5", True):
            with pytest.raises(InvalidInputError, match="timeout must be"), models.use("a", timeout):
                pass
        for timeout in (10**400, float("inf"), np.float32(60)):
            with models.use("a", timeout):
                pass


# One deadline for all that `use` waits for


def test_a_timeout_bounds_the_draining_of_a_victim(loads):
    """A victim whose calls hang keeps its memory, and holds up nobody longer than they wish."""
    with ModelPool(max_bytes=200, load=loads) as models:
        load_all(models, "c", "b", "a", "b")
        loads.peak = 0
        loads["a"].open.clear()
        for name in ("c", "a", "c"):  # "a" itself is waited for likewise
            with pytest.raises(DeadlineExceededError), models.use(name, SHORT):
                pass
        assert list(models.loaded()) == ["b"]
        load_all(models, "b")
        loads["a"].open.set()
        load_all(models, "c")
        assert loads.peak <= 200
    assert loads.names == ["c", "b", "a", "c"]


def test_a_load_goes_on_after_its_callers_timeout(loads):
    loads.gate.clear()
    with ModelPool(load=loads) as models, ThreadPoolExecutor(1) as threads:
        with pytest.raises(DeadlineExceededError), models.use("a", SHORT):
            pass
        other = threads.submit(load_all, models, "a")
        with pytest.raises(DeadlineExceededError):
            models.pin("a", SHORT)
        loads.gate.set()
        other.result(LONG)
        assert models.loaded()["a"]["pinned"] is False
        assert models.loaded()["a"]["uses"] == 0
    assert loads.names == ["a"]


def test_a_load_that_fails_after_its_callers_timeout(loads, caplog):
    loads.gate.clear()
    loads.error = ModelNotFoundError("no such model")
    with ModelPool(load=loads) as models:
        with pytest.raises(DeadlineExceededError), models.use("a", SHORT):
            pass
        loads.gate.set()
        wait_until(lambda: not models._manager._models)
        assert "a, which nobody waits for any more, could not be loaded: no such model" in caplog.text
        loads.error = None
        load_all(models, "a")


# The budget


def test_unloading_keeps_the_budget_until_the_memory_is_free(loads):
    with ModelPool(max_bytes=100, load=loads) as models:
        load_all(models, "b")
        with draining(models, loads, "a"):
            with pytest.raises(DeadlineExceededError), models.use("b", SHORT):
                pass
            assert loads.names == ["b", "a"]
            assert not models.unload("a")
        load_all(models, "b")
        assert loads.peak == 200  # as "a" was loaded for the first time
        loads.peak = 0
        load_all(models, "a", "b", "a")
        assert loads.peak == 100


def test_keep_alive_keeps_the_budget_until_the_memory_is_free(loads):
    with ModelPool(max_bytes=100, keep_alive_s=0, load=loads) as models:
        load_all(models, "b")
        wait_until(lambda: loads.bytes == 0)
        with models.use("a"):
            loads["a"].open.clear()
        wait_until(lambda: not models.loaded())
        with pytest.raises(DeadlineExceededError), models.use("b", SHORT):
            pass
        loads["a"].open.set()
        load_all(models, "b")
        assert loads.peak == 100


def test_a_model_that_is_being_unloaded_is_loaded_again(loads):
    with ModelPool(load=loads) as models, ThreadPoolExecutor(1) as threads:
        with draining(models, loads, "a"):
            waiting = threads.submit(load_all, models, "a")
            wait_until(lambda: models._manager._waiting)
            assert loads.names == ["a"]
        waiting.result(LONG)
    assert loads.names == ["a", "a"]


def test_a_model_that_cannot_be_closed_is_forgotten(loads, monkeypatch, caplog):
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    with ModelPool(load=loads) as models:
        load_all(models, "a")
        with monkeypatch.context() as patch:
            patch.setattr(FakeEmbedder, "close", fail)
            assert models.unload("a")
        assert "a could not be closed" in caplog.text
        load_all(models, "a")


def test_an_embedder_that_ended_is_replaced(loads):
    with ModelPool(load=loads) as models:
        with models.use("a") as embedder:
            embedder.status = "failed"
            with models.use("a", LONG) as other:
                assert other is not embedder
                assert other.embed(["a"])
            assert embedder.freed.is_set()
        assert models.loaded()["a"]["uses"] == 0


# Closing


def test_closing_fails_those_who_wait_and_those_inside(loads):
    models = ModelPool(max_bytes=100, keep_alive_s=60, load=loads)
    load_all(models, "b")
    with ThreadPoolExecutor(1) as threads, models.use("a") as embedder:
        waiting = threads.submit(load_all, models, "b")
        wait_until(lambda: models._manager._waiting)
        models.close()
        with pytest.raises(ServiceClosedError):
            embedder.embed(["a"])
        with pytest.raises(ServiceClosedError, match="the pool is closed"):
            waiting.result(LONG)
    models.close()
    assert loads.bytes == 0
    assert models.loaded() == {}
    assert not models.unload("a")
    with pytest.raises(ServiceClosedError, match="the pool is closed"), models.use("a"):
        pass
    wait_until(lambda: not models._manager.is_running)


def test_closing_waits_for_no_call_that_hangs_and_no_load(loads):
    with ModelPool(load=loads) as models:
        with draining(models, loads, "a"):
            loads.gate.clear()
            with pytest.raises(DeadlineExceededError), models.use("b", SHORT):
                pass
            models.close()
            assert loads["a"].freed.is_set()
        loads.gate.set()
        wait_until(lambda: loads.names == ["a", "b"] and len(loads.made) == 2)
        assert loads["b"].freed.wait(LONG)
        wait_until(lambda: not models._manager.is_running)


def test_a_pool_that_is_collected_closes_its_models(loads):
    models = ModelPool(load=loads)
    load_all(models, "a")
    del models
    gc.collect()
    assert loads["a"].freed.wait(LONG)


EXIT = """
import threading, time
from akidb_mlx import ModelPool
from tests.fake_embedder import FakeEmbedder

models = ModelPool(max_bytes=100, keep_alive_s=60, load=FakeEmbedder)
for name in "ba":
    with models.use(name) as embedder:
        pass
embedder.open.clear()  # its calls hang

def wait():
    try:
        with models.use("b"):
            pass
    except Exception as error:
        print(type(error).__name__, flush=True)

threading.Thread(target=wait).start()
while models.loaded():
    time.sleep(0.01)
"""


def test_a_process_exits_with_an_open_pool_a_hanging_model_and_a_caller_that_waits():
    done = run_python(EXIT)
    assert (done.stdout, done.stderr, done.returncode) == ("ServiceClosedError\n", "", 0)


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")
from akidb_mlx import ModelPool
from akidb_mlx.errors import ServiceClosedError
from tests.fake_embedder import FakeEmbedder

models = ModelPool(load=FakeEmbedder)
if os.fork() == 0:  # before the pool is used: it works in the child
    with models.use("a"):
        os._exit(0)
assert os.wait()[1] == 0
with models.use("a"):
    pass
if os.fork() == 0:
    try:
        models.loaded()
    except ServiceClosedError:
        models.close()
        os._exit(3)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 3
"""


def test_a_forked_child_gets_an_error_at_once():
    done = run_python(FORK)
    assert done.returncode == 0, done.stderr


# Interruptions

# The files whose lines run on the caller's thread.
INTERRUPTED = {pool.__file__, pool_manager.__file__, pool_models.__file__, locks.__file__, contextlib.__file__}


def at_line(number: int, act):
    """Return a trace function that calls `act` at the `number`th line that runs in one of those files."""
    left = number

    def trace(frame, event, _):
        nonlocal left
        names = (frame.f_code.co_name, frame.f_back.f_code.co_name)
        if frame.f_code.co_filename not in INTERRUPTED or "__del__" in names:
            return None
        if event == "line":
            left -= 1
            if not left:
                act()
        return trace

    trace.reached = lambda: left <= 0
    return trace


@contextlib.contextmanager
def tracing(trace):
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "call", [*(pytest.param(call, marks=pytest.mark.slow) for call in ("use", "pin", "loaded")), "unload", "unpin"]
)
def test_ctrl_c_at_any_line_loses_neither_models_nor_memory(loads, call):
    """The victim is closed, what was to be loaded can be loaded, nothing stays in use, and the budget is whole."""
    for line in range(1, 1000):
        with ModelPool(max_bytes=200, load=loads) as models:
            load_all(models, "c", "b", "a")

            def run(models=models):
                if call == "use":
                    with models.use("c", LONG):
                        pass
                elif call == "loaded":
                    models.loaded()
                else:
                    getattr(models, call)("c" if call == "pin" else "b")

            trace = at_line(line, interrupt)
            with contextlib.suppress(KeyboardInterrupt), tracing(trace):
                run()
            gc.collect()  # the traceback held what it interrupted
            for name in "abc":
                models.unpin(name)
            load_all(models, "c", "a", "b")
            wait_until(lambda models=models: all(not one["uses"] for one in models.loaded().values()))
            wait_until(lambda: loads.bytes == 200)
            assert list(models.loaded()) == ["a", "b"]
        wait_until(lambda: loads.bytes == 0)
        if not trace.reached():
            return
    raise AssertionError("the call has no end")


def test_ctrl_c_while_a_victim_drains(loads):
    """A real signal, while the main thread waits."""

    def press_ctrl_c() -> None:
        wait_until(lambda: not models.loaded())
        os.kill(os.getpid(), signal.SIGINT)

    with ModelPool(max_bytes=100, load=loads) as models, ThreadPoolExecutor(1) as threads:
        load_all(models, "b", "a")
        loads["a"].open.clear()
        pressed = threads.submit(press_ctrl_c)
        with pytest.raises(KeyboardInterrupt), models.use("b"):
            pass
        pressed.result(LONG)
        loads["a"].open.set()
        load_all(models, "b", "a")
        wait_until(lambda: loads.bytes == 100)


def test_a_signal_handler_at_any_line_gets_an_answer(loads):
    """A trace function runs on the interrupted thread, as a signal handler does."""
    outcomes: Counter[str] = Counter()
    for line in range(1, 1000):
        with ModelPool(max_bytes=200, load=loads) as models:
            load_all(models, "a")

            def handle(models=models) -> None:
                with models.use("b", LONG) as embedder:
                    outcomes[embedder.name] += 1
                models.loaded()
                models.unload("b")

            trace = at_line(line, handle)
            with tracing(trace):
                load_all(models, "c")
                models.unload("c")
        if not trace.reached():
            assert outcomes == {"b": line - 1}
            return


def test_a_finalizer_on_the_pools_own_thread_gets_an_error_at_once(loads):
    with ModelPool(load=loads) as models:
        with pytest.raises(ReentrantCallError, match="akidb-mlx-pool"):
            models._manager.call(models.loaded)
        load_all(models, "a")


def test_a_done_callback_gets_an_error_at_once(loads):
    """It runs on the thread of a model, which the pool may want to close first."""
    errors, done = [], threading.Event()

    def callback() -> None:
        for call in (models.pin, models.unload):
            with contextlib.suppress(ReentrantCallError):
                call("a")
                errors.append(call)
        models.close()
        done.set()

    with ModelPool(load=loads) as models:
        load_all(models, "a")
        run_on_owner_thread(callback)
        assert done.wait(LONG)
        assert not errors


# The rest


def test_a_pool_shows_how_full_it_is(loads):
    with ModelPool(max_bytes=300, load=loads) as models:
        load_all(models, "a", "b")
        assert repr(models) == "<ModelPool: 2 models, 200 of 300 bytes>"
    assert repr(ModelPool()) == "<ModelPool: 0 models, 0 bytes>"


def test_importing_it_is_light():
    done = run_python(
        "import sys, akidb_mlx.pool\n"
        "print([name for name in ('mlx', 'numpy', 'pydantic', 'tokenizers') if name in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


# Real models


def test_a_future_outlives_its_use():
    """Unloading finishes what was submitted."""
    with ModelPool(load=on_cpu) as models:
        with models.use(BERT) as service:
            future = service.submit([f"text {number}" for number in range(300)])
        assert models.unload(BERT)
        assert future.result(0).vectors.shape[0] == 300
        assert service.get_model_info()["status"] == "closed"
        assert not models.unload(BERT)


def test_a_default_pool_loads_services():
    with ModelPool() as models, models.use(BERT) as service, on_cpu(BERT) as alone:
        assert isinstance(service, EmbeddingService)
        assert np.allclose(service.embed_array(["a"]), alone.embed_array(["a"]), atol=1e-3)


def test_models_come_and_go_under_load():
    """Three models, memory for two, eight threads: every vector is right, and the budget holds."""
    with ModelPool(load=on_cpu) as models:
        load_all(models, BERT, QWEN, GEMMA)
        sizes = {name: entry["weight_bytes"] for name, entry in models.loaded().items()}
    budget = sum(sizes.values()) - SLACK
    with ModelPool(max_bytes=budget, load=on_cpu) as models, ThreadPoolExecutor(8) as threads:
        expected = {}
        for model in sizes:
            with models.use(model) as service:
                expected[model] = service.embed_array(["same"])

        def ask(number: int) -> int:
            model = list(sizes)[number % 3]
            with models.use(model) as service:
                assert np.array_equal(service.embed_array(["same"]), expected[model])
                return sum(entry["weight_bytes"] for entry in models.loaded().values())

        assert max(threads.map(ask, range(60))) <= budget
