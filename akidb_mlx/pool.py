"""Several models in one process, within a budget of memory.

They are loaded when they are first used, and unloaded when others need the room or nobody needs them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from akidb_mlx.closeable import Closeable
from akidb_mlx.errors import ConfigurationError, ServiceClosedError, ServiceOverloadedError
from akidb_mlx.service import EmbeddingService

logger = logging.getLogger(__name__)

# The hint of a refusal: how long a model in use is worth waiting for before asking again.
_RETRY_S = 1.0


@dataclass
class _Loaded:
    """A model in memory.

    Attributes:
        service: the model.
        weight_bytes: memory that its weights take.
        uses: how many are inside `use` with it.
        pinned: whether it stays, whatever happens.
        last_used: when it was last taken or given back, by `time.monotonic`.
    """

    service: EmbeddingService
    weight_bytes: int
    uses: int = 0
    pinned: bool = False
    last_used: float = 0.0

    @property
    def idle(self) -> bool:
        return not self.uses and not self.pinned


class ModelPool(Closeable):
    """Services by model name, safe to use from any thread.

        with ModelPool(max_bytes=4 << 30, keep_alive_s=300) as pool, pool.use("minilm-l6-v2") as service:
            vectors = service.embed(["Hello, world!"])

    The least recently used models that are neither in use nor pinned are unloaded when another needs their room. How
    much a model takes is known once it has been loaded; its first load may exceed the budget until it is done.
    """

    def __init__(
        self,
        max_bytes: int | None = None,
        *,
        keep_alive_s: float | None = None,
        load: Callable[[str], EmbeddingService] = EmbeddingService,
    ) -> None:
        """An empty pool.

        Args:
            max_bytes: most bytes of weights in memory; None for no bound.
            keep_alive_s: seconds after which a model that nobody used is unloaded; None for never.
            load: makes a service of a model's name, as in `partial(EmbeddingService, device="cpu")`.
        """
        self._max_bytes = max_bytes
        self._keep_alive_s = keep_alive_s
        self._load = load
        self._loaded: dict[str, _Loaded] = {}
        self._loading: dict[str, int] = {}  # and the bytes that are kept free for them
        self._known_bytes: dict[str, int] = {}
        self._timer: threading.Timer | None = None
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def use(self, model: str, timeout: float | None = None) -> Iterator[EmbeddingService]:
        """The service of a model, which is not unloaded inside.

        Args:
            model: as `EmbeddingService` takes it.
            timeout: seconds to wait while the models in use leave no room; None waits until they do.

        Raises:
            ServiceOverloadedError: `timeout` passed.
            ConfigurationError: the model alone takes more than `max_bytes`.
            ServiceClosedError: the pool is closed.
            AkidbMlxError: what loading raised.
        """
        loaded = self._take(model, timeout)
        try:
            yield loaded.service
        finally:
            self._give_back(loaded)

    def pin(self, model: str, timeout: float | None = None) -> None:
        """Load a model, if it is not loaded, and keep it until `unpin`; raises what `use` does."""
        loaded = self._take(model, timeout)
        loaded.pinned = True
        self._give_back(loaded)

    def unpin(self, model: str) -> None:
        """Let a model be unloaded again; one that is not loaded stays so."""
        with self._changed:
            if loaded := self._loaded.get(model):
                loaded.pinned = False
                self._may_go()

    def unload(self, model: str) -> bool:
        """Unload a model now, pinned or not; False where it is in use or not loaded."""
        with self._changed:
            loaded = self._loaded.get(model)
            if loaded is None or loaded.uses:
                return False
            del self._loaded[model]
        self._close_all({model: loaded}, "as asked")
        return True

    def loaded(self) -> dict[str, dict[str, Any]]:
        """What is in memory, the least recently used first: `weight_bytes`, `uses`, `pinned` and `idle_s` by name."""
        now = time.monotonic()
        with self._changed:
            return {
                name: {
                    "weight_bytes": loaded.weight_bytes,
                    "uses": loaded.uses,
                    "pinned": loaded.pinned,
                    "idle_s": 0.0 if loaded.uses else now - loaded.last_used,
                }
                for name, loaded in self._by_age()
            }

    def close(self) -> None:
        """Unload all models, those in use too; what their callers wait for fails. Idempotent."""
        with self._changed:
            self._closed = True
            everything, self._loaded = self._loaded, {}
            if self._timer is not None:
                self._timer.cancel()
            self._changed.notify_all()
        for loaded in everything.values():
            loaded.service.close()

    def _take(self, model: str, timeout: float | None) -> _Loaded:
        """A loaded model, one more use of it counted."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                victims: dict[str, _Loaded] | None = None
                while victims is None:
                    if self._closed:
                        raise ServiceClosedError("the pool is closed; create a new ModelPool")
                    if loaded := self._working(model):
                        return self._taken(loaded)
                    size = self._known_bytes.get(model, 0)
                    if model not in self._loading:
                        victims = self._room_for(model, size)
                    if victims is None:
                        self._wait(model, deadline)
                self._loading[model] = size
            self._close_all(victims, f"to make room for {model}")
            if loaded := self._load_one(model):
                return loaded

    def _load_one(self, model: str) -> _Loaded | None:
        """Load a model that has been entered as loading; None where, now that its size is known, there is no room."""
        try:
            service = self._load(model)
        except BaseException:
            with self._changed:
                del self._loading[model]
                self._changed.notify_all()
            raise
        size = service.get_model_info()["weight_bytes"]
        loaded: _Loaded | None = None
        victims: dict[str, _Loaded] | None = None
        try:
            with self._changed:
                del self._loading[model]
                self._known_bytes[model] = size
                self._changed.notify_all()
                if not self._closed:
                    victims = self._room_for(model, size)
                if victims is not None:
                    loaded = self._loaded[model] = self._taken(_Loaded(service, size))
        finally:
            if loaded is None:
                service.close()
        self._close_all(victims or {}, f"to make room for {model}")
        return loaded

    def _working(self, model: str) -> _Loaded | None:
        """The model if it is loaded and takes calls; one that was closed or has failed is forgotten."""
        loaded = self._loaded.get(model)
        if loaded is not None and loaded.service.get_model_info()["status"] in ("closed", "failed"):
            del self._loaded[model]
            return None
        return loaded

    def _taken(self, loaded: _Loaded) -> _Loaded:
        loaded.uses += 1
        loaded.last_used = time.monotonic()
        return loaded

    def _give_back(self, loaded: _Loaded) -> None:
        with self._changed:
            loaded.uses -= 1
            loaded.last_used = time.monotonic()
            self._may_go()

    def _wait(self, model: str, deadline: float | None) -> None:
        """Wait until a model is loaded or given back."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise ServiceOverloadedError(
                f"no room for {model}: the models in use and loading take all of the pool's {self._max_bytes} bytes",
                retry_after_s=_RETRY_S,
            )
        self._changed.wait(left)

    def _room_for(self, model: str, size: int) -> dict[str, _Loaded] | None:
        """Take out the models that must go for `size` more bytes; None, and none, where that is not enough."""
        if self._max_bytes is None:
            return {}
        if size > self._max_bytes:
            raise ConfigurationError(f"{model} takes {size} bytes; the pool's max_bytes is {self._max_bytes}")
        held = sum(loaded.weight_bytes for loaded in self._loaded.values()) + sum(self._loading.values())
        excess = held + size - self._max_bytes
        victims: dict[str, _Loaded] = {}
        for name, loaded in self._by_age():
            if excess > 0 and loaded.idle:
                victims[name] = loaded
                excess -= loaded.weight_bytes
        if excess > 0:
            return None
        for name in victims:
            del self._loaded[name]
        return victims

    def _by_age(self) -> list[tuple[str, _Loaded]]:
        return sorted(self._loaded.items(), key=lambda entry: entry[1].last_used)

    def _may_go(self) -> None:
        """A model was given back or unpinned."""
        self._changed.notify_all()
        if self._keep_alive_s is not None and self._timer is None and not self._closed:
            self._set_timer(self._keep_alive_s)

    def _set_timer(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._unload_unused)
        self._timer.daemon = True
        self._timer.start()

    def _unload_unused(self) -> None:
        """Unload what nobody used for `keep_alive_s`, and come back for the next."""
        assert self._keep_alive_s is not None
        with self._changed:
            self._timer = None
            now = time.monotonic()
            idle = {name: loaded for name, loaded in self._by_age() if loaded.idle}
            unused = {name: one for name, one in idle.items() if now - one.last_used >= self._keep_alive_s}
            for name in unused:
                del self._loaded[name]
            later = [loaded.last_used + self._keep_alive_s - now for name, loaded in idle.items() if name not in unused]
            if later and not self._closed:
                self._set_timer(min(later))
        self._close_all(unused, f"unused for {self._keep_alive_s:g} s")

    def _close_all(self, models: dict[str, _Loaded], reason: str) -> None:
        for name, loaded in models.items():
            logger.info("unloading %s, %s", name, reason)
            loaded.service.close(drain=True)  # a future may outlive the `use` in which it was submitted
        with self._changed:
            self._changed.notify_all()
