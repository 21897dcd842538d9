"""The decisions of a pool: which models are loaded, which are closed, and which callers get them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from akidb_mlx.errors import ConfigurationError, ServiceClosedError, ServiceOverloadedError
from akidb_mlx.pool_models import LoadedModel, ModelRequest, Poolable, PooledModel
from akidb_mlx.runtime import process
from akidb_mlx.runtime.actor import Actor
from akidb_mlx.runtime.locks import Latch

logger = logging.getLogger(__name__)

# Seconds after which a caller that found no capacity should ask again.
_RETRY_S = 1.0


class PoolManager(Actor):
    """Models by name, and the requests that wait for one.

    The public methods are the messages of the facade. The thread never waits for a model: each is loaded and closed on
    a thread of its own, which reports by a message.

    Attributes:
        closed: set once the pool is closed and the memory of its models is free.
    """

    def __init__(self, max_bytes: float, keep_alive_s: float, load: Callable[[str], Poolable]) -> None:
        """Create a manager without models.

        Args:
            max_bytes: most bytes of weights in memory; infinity for no bound.
            keep_alive_s: seconds after which a model that nobody used is closed; infinity for never.
            load: makes an embedder of a model's name.
        """
        super().__init__("akidb-mlx-pool")
        self.closed = Latch()
        self._max_bytes = max_bytes
        self._keep_alive_s = min(keep_alive_s, threading.TIMEOUT_MAX)
        self._load = load
        self._models: dict[str, PooledModel] = {}
        self._known_bytes: dict[str, int] = {}
        self._waiting: list[ModelRequest] = []
        self._closed = False

    def admit(self, request: ModelRequest) -> None:
        """Answer a request as soon as its model is ready."""
        if self._closed:
            request.fail(_closed_error())
        else:
            self._waiting.append(request)

    def release(self, request: ModelRequest) -> None:
        """Forget a request, whether it was answered or not. Idempotent."""
        if request in self._waiting:
            self._waiting.remove(request)
        request.release()

    def set_pinned(self, name: str, pinned: bool) -> None:
        """Keep a model that is in memory, or let it be closed again."""
        if model := self._models.get(name):
            model.pinned = pinned

    def unload(self, name: str) -> Latch | None:
        """Begin to close a model; return the latch of its end, or None where it is in use or not loaded."""
        model = self._models.get(name)
        if model is None or model.status != "ready" or model.uses:
            return None
        self._begin_close(model, "as asked")
        return model.freed

    def loaded(self) -> dict[str, LoadedModel]:
        """Report the models that are ready, the least recently used first."""
        now = time.monotonic()
        return {
            model.name: {
                "weight_bytes": model.weight_bytes,
                "uses": model.uses,
                "pinned": model.pinned,
                "idle_s": 0.0 if model.uses else now - model.last_used,
            }
            for model in self._by_age()
            if model.status == "ready"
        }

    def close(self) -> None:
        """Fail the requests that wait, refuse new ones, and close the models without finishing their calls."""
        self._closed = True
        for request in self._waiting:
            request.fail(_closed_error())
        self._waiting.clear()
        for model in self._by_age():
            if model.status != "loading":
                self._begin_close(model, "with its pool", drain=False)

    def stop(self) -> None:
        """Close the pool; waits for nothing and may be called from anywhere."""
        self.post(self.close)

    def join(self, timeout: float | None) -> bool:
        """Wait for the end of a pool that was stopped, `timeout` seconds at most, and return whether it has ended."""
        return not self.is_running or self.closed.wait(timeout)

    def describe(self) -> str:
        """Count the models and their bytes, from any thread; waits for nothing."""
        models = list(self._models.values())
        limit = "" if self._max_bytes == inf else f" of {self._max_bytes}"
        return f"{len(models)} models, {sum(model.weight_bytes for model in models)}{limit} bytes"

    def _is_busy(self) -> bool:
        return bool(self._models or self._waiting)

    def _advance(self) -> float | None:
        """Answer requests, begin to load what others wait for, and begin to close what nobody needs."""
        for name in self._waited_for():
            self._grant(name)
        reserved = 0
        for name in self._waited_for():
            try:
                reserved += self._make(name, reserved)
            except Exception as error:  # noqa: BLE001 - raised where the model is waited for
                self._fail(name, error)
        if self._closed and all(model.status == "loading" for model in self._models.values()):
            self.closed.set()
        return self._close_unused()

    def _waited_for(self) -> list[str]:
        """Return the names of the models that requests wait for, the first request's first."""
        return list(dict.fromkeys(request.name for request in self._waiting))

    def _grant(self, name: str) -> None:
        """Answer all requests for a model that is ready. One that has ended is closed, to be loaded again."""
        model = self._models.get(name)
        if model is None or model.status != "ready":
            return
        assert model.embedder is not None
        if model.embedder.get_model_info()["status"] in ("closed", "failed"):
            self._begin_close(model, "which has ended")
            return
        for request in self._take_requests(name):
            request.grant(model)

    def _make(self, name: str, reserved: int) -> int:
        """Load a model that is not in memory, or begin to free the memory that it needs.

        Args:
            name: the model.
            reserved: bytes that earlier requests wait for.

        Returns:
            The bytes that this model waits for.

        Raises:
            ConfigurationError: the model alone exceeds the budget.
        """
        if name in self._models:
            return 0
        size = self._known_bytes.get(name, 0)
        if size > self._max_bytes:
            raise ConfigurationError(f"{name} takes {size} bytes; the pool's max_bytes is {self._max_bytes}")
        has_capacity = self._close_idle(reserved + size, f"to make room for {name}")
        refusal = None if has_capacity else self._refusal(name)
        for request in self._waiting:
            if request.name == name:
                request.refusal = refusal
        if not has_capacity:
            return 0
        if sum(model.weight_bytes for model in self._models.values()) + size > self._max_bytes:
            return size
        process.stop_at_exit(self)
        model = PooledModel(name, size)
        _start_thread(self._run_load, model)
        self._models[name] = model
        return 0

    def _close_idle(self, size: int, reason: str) -> bool:
        """Close as many idle models as `size` more bytes need; none, and return False, where that is not enough."""
        kept = sum(model.weight_bytes for model in self._models.values() if model.status != "closing")
        excess = kept + size - self._max_bytes
        victims: list[PooledModel] = []
        for model in self._by_age():
            if excess > 0 and model.is_idle:
                victims.append(model)
                excess -= model.weight_bytes
        if excess > 0:
            return False
        for model in victims:
            self._begin_close(model, reason)
        return True

    def _close_unused(self) -> float | None:
        """Close what nobody used for long enough; return the seconds until there is more to close."""
        now = time.monotonic()
        left = {model: model.last_used + self._keep_alive_s - now for model in self._by_age() if model.is_idle}
        for model, seconds in left.items():
            if seconds <= 0:
                self._begin_close(model, f"unused for {self._keep_alive_s:g} s")
        return min((seconds for seconds in left.values() if seconds > 0), default=None)

    def _run_load(self, model: PooledModel) -> None:
        """Load a model, on a thread of its own."""
        embedder: Poolable | None = None
        try:
            embedder = self._load(model.name)
            size = embedder.get_model_info()["weight_bytes"]
        except BaseException as error:  # noqa: BLE001 - raised where the model is waited for
            self.post(partial(self._end_failed_load, model, error))
            if embedder is not None:
                embedder.close()
        else:
            self.post(partial(self._end_load, model, embedder, size))

    def _end_load(self, model: PooledModel, embedder: Poolable, size: int) -> None:
        """Keep a model that was loaded, if there is capacity now that its size is known."""
        model.embedder, model.weight_bytes, model.last_used = embedder, size, time.monotonic()
        self._known_bytes[model.name] = size
        if self._closed:
            self._begin_close(model, "with its pool", drain=False)
        elif size > self._max_bytes or not self._close_idle(0, f"to make room for {model.name}"):
            self._begin_close(model, "for which there is no capacity")
        else:
            model.status = "ready"

    def _end_failed_load(self, model: PooledModel, error: BaseException) -> None:
        del self._models[model.name]
        if not self._fail(model.name, error):
            logger.warning("%s, which nobody waits for any more, could not be loaded: %s", model.name, error)

    def _begin_close(self, model: PooledModel, reason: str, *, drain: bool = True) -> None:
        """Close a model, and finish its calls first: a future may outlive the `use` in which it was submitted."""
        logger.info("unloading %s, %s", model.name, reason)
        _start_thread(self._run_close, model, drain)
        model.status = "closing"

    def _run_close(self, model: PooledModel, drain: bool) -> None:
        """Close a model, on a thread of its own."""
        assert model.embedder is not None
        try:
            model.embedder.close(drain=drain)
        except Exception:
            logger.exception("%s could not be closed", model.name)
        finally:
            self.post(partial(self._end_close, model))

    def _end_close(self, model: PooledModel) -> None:
        """Forget a model whose memory is free. Idempotent."""
        if self._models.get(model.name) is model:
            del self._models[model.name]
        model.freed.set()

    def _fail(self, name: str, error: BaseException) -> bool:
        """Fail the requests that wait for a model, and return whether there were any."""
        failed = self._take_requests(name)
        for request in failed:
            request.fail(error)
        return bool(failed)

    def _take_requests(self, name: str) -> list[ModelRequest]:
        """Return the requests that wait for a model, which are to be answered now."""
        taken = [request for request in self._waiting if request.name == name]
        self._waiting = [request for request in self._waiting if request.name != name]
        return taken

    def _by_age(self) -> list[PooledModel]:
        return sorted(self._models.values(), key=lambda model: model.last_used)

    def _refusal(self, name: str) -> ServiceOverloadedError:
        return ServiceOverloadedError(
            f"no capacity for {name}: the models in use, pinned or being loaded leave too little of the pool's "
            f"{self._max_bytes} bytes; retry when one is released, or raise max_bytes",
            retry_after_s=_RETRY_S,
        )


def _closed_error() -> ServiceClosedError:
    return ServiceClosedError("the pool is closed; create a new ModelPool")


def _start_thread(target: Callable[..., None], model: PooledModel, *arguments: Any) -> None:
    threading.Thread(target=target, args=(model, *arguments), name=f"akidb-mlx-pool {model.name}", daemon=True).start()
