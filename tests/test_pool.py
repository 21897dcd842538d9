"""Models that share a budget of memory. The fixtures take 60 to 600 KB each."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from akidb_mlx import EmbeddingService, ModelPool
from akidb_mlx.errors import ConfigurationError, ModelNotFoundError, ServiceClosedError, ServiceOverloadedError
from tests.support import GOLDENS

BERT, QWEN, GEMMA = (str(GOLDENS / name) for name in ("tiny-bert", "tiny-qwen3", "tiny-gemma3"))
SLACK = 10_000  # what a model takes is measured, and other tests' models come and go meanwhile
on_cpu = partial(EmbeddingService, device="cpu")


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    with ModelPool(load=on_cpu) as pool:
        for model in (BERT, QWEN, GEMMA):
            pool.pin(model)
        return {name: entry["weight_bytes"] for name, entry in pool.loaded().items()}


class Loads:
    """Counts what is loaded, and can make loading wait."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, model: str) -> EmbeddingService:
        self.names.append(model)
        self.gate.wait()
        return on_cpu(model)


def wait_until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_model_is_loaded_on_first_use_and_kept():
    loads = Loads()
    with ModelPool(load=loads) as pool:
        assert pool.loaded() == {}
        with pool.use(BERT) as service, on_cpu(BERT) as alone:
            assert np.array_equal(service.embed_array(["a"]), alone.embed_array(["a"]))
            assert pool.loaded()[BERT]["uses"] == 1
        with pool.use(BERT) as again:
            assert again is service
    assert loads.names == [BERT]


def test_the_least_recently_used_gives_way(sizes):
    services = {}
    with ModelPool(max_bytes=sum(sizes.values()) - SLACK, load=on_cpu) as pool:
        for model in (BERT, QWEN, BERT):
            with pool.use(model) as services[model]:
                pass
        with pool.use(GEMMA):
            assert list(pool.loaded()) == [BERT, GEMMA]
        assert services[QWEN].get_model_info()["status"] == "closed"
        assert services[BERT].get_model_info()["status"] == "ready"


def test_what_is_pinned_or_in_use_stays(sizes):
    with ModelPool(max_bytes=sum(sizes.values()) - SLACK, load=on_cpu) as pool:
        pool.pin(BERT)
        with pool.use(QWEN) as service:
            with (
                pytest.raises(ServiceOverloadedError, match=r"no room for .*tiny-gemma3") as refusal,
                pool.use(GEMMA, 0.1),
            ):
                pass
            assert refusal.value.retry_after_s > 0
            assert service.embed(["still here"])
        with pool.use(GEMMA):
            assert list(pool.loaded()) == [BERT, GEMMA]
        pool.unpin(BERT)
        with pool.use(QWEN):
            assert BERT not in pool.loaded()


def test_a_call_waits_for_room(sizes):
    """The second model is loaded when the first is given back, by whichever thread."""
    with ModelPool(max_bytes=max(sizes.values()) + SLACK, load=on_cpu) as pool, ThreadPoolExecutor(1) as threads:
        with pool.use(QWEN):
            entered = threading.Event()

            def other() -> list[str]:
                entered.set()
                with pool.use(GEMMA):
                    return list(pool.loaded())

            waiting = threads.submit(other)
            entered.wait()
            time.sleep(0.2)
            assert not waiting.done()
            assert list(pool.loaded()) == [QWEN]
        assert waiting.result(30) == [GEMMA]


def test_a_model_that_never_fits(sizes):
    with ModelPool(max_bytes=sizes[BERT] + SLACK, load=on_cpu) as pool:
        pool.pin(BERT)
        for _ in range(2):  # before its size is known, and after
            with pytest.raises(ConfigurationError, match=r"takes \d+ bytes.*max_bytes is"):
                pool.pin(QWEN)
        assert list(pool.loaded()) == [BERT]


def test_threads_that_start_together_load_once():
    loads = Loads()
    loads.gate.clear()
    with ModelPool(load=loads) as pool, ThreadPoolExecutor(8) as threads:

        def embed(_: int) -> list[list[float]]:
            with pool.use(BERT) as service:
                return service.embed(["a"])

        calls = [threads.submit(embed, number) for number in range(8)]
        wait_until(lambda: loads.names)
        loads.gate.set()
        assert len({str(call.result(30)) for call in calls}) == 1
    assert loads.names == [BERT]


def test_a_load_that_fails_can_be_tried_again():
    with ModelPool(load=on_cpu) as pool:
        for _ in range(2):
            with pytest.raises(ModelNotFoundError), pool.use("no/such-model"):
                pass
        with pool.use(BERT):
            assert list(pool.loaded()) == [BERT]


def test_unused_models_are_unloaded():
    with ModelPool(keep_alive_s=0.2, load=on_cpu) as pool:
        pool.pin(QWEN)
        with pool.use(BERT) as service:
            time.sleep(0.4)
            assert service.embed(["still in use"])
        assert BERT in pool.loaded()
        wait_until(lambda: BERT not in pool.loaded())
        assert QWEN in pool.loaded()
        pool.unpin(QWEN)
        wait_until(lambda: not pool.loaded())
        wait_until(lambda: service.get_model_info()["status"] == "closed")


def test_a_future_outlives_its_use():
    """Unloading finishes what was submitted."""
    with ModelPool(load=on_cpu) as pool:
        with pool.use(BERT) as service:
            future = service.submit([f"text {number}" for number in range(300)])
        assert pool.unload(BERT)
        assert future.result(0).vectors.shape[0] == 300
        assert not pool.unload(BERT)


def test_a_service_that_ended_is_replaced():
    with ModelPool(load=on_cpu) as pool:
        with pool.use(BERT) as service:
            service.close()
        with pool.use(BERT) as other:
            assert other.embed(["a"])


def test_closing():
    pool = ModelPool(keep_alive_s=60, load=on_cpu)
    with pool.use(BERT) as service:
        pool.close()
        with pytest.raises(ServiceClosedError):
            service.embed(["a"])
    pool.close()
    with pytest.raises(ServiceClosedError, match="the pool is closed"), pool.use(BERT):
        pass


def test_models_come_and_go_under_load(sizes):
    """Three models, room for two, eight threads: every vector is right, and the budget holds."""
    budget = sum(sizes.values()) - SLACK
    with ModelPool(max_bytes=budget, load=on_cpu) as pool, ThreadPoolExecutor(8) as threads:
        expected = {}
        for model in sizes:
            with pool.use(model) as service:
                expected[model] = service.embed_array(["same"])

        def ask(number: int) -> int:
            model = list(sizes)[number % 3]
            with pool.use(model) as service:
                assert np.array_equal(service.embed_array(["same"]), expected[model])
                return sum(entry["weight_bytes"] for entry in pool.loaded().values())

        assert max(threads.map(ask, range(60))) <= budget
