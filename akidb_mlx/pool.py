"""Several models in one process, within a budget of memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any, Generic, cast

from typing_extensions import TypeVar

from akidb_mlx.closeable import Closeable
from akidb_mlx.deadline import Deadline
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import is_number, parse_timeout
from akidb_mlx.pool_manager import PoolManager
from akidb_mlx.pool_models import LoadedModel, ModelRequest, Poolable
from akidb_mlx.runtime import process
from akidb_mlx.runtime.owner import check_may_wait, on_owner_thread

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder

_Model = TypeVar("_Model", bound=Poolable, default="Embedder")


def load_service(model: str) -> Embedder:
    """Load a model as the settings (`AKIDB_*`) say."""
    from akidb_mlx.service import EmbeddingService

    return EmbeddingService(model)


class ModelPool(Closeable, Generic[_Model]):
    """Embedders by model name, or other models that `load` makes, safe to use from any thread.

        with ModelPool(max_bytes=4 << 30, keep_alive_s=300) as pool, pool.use("minilm-l6-v2") as embedder:
            vectors = embedder.embed(["Hello, world!"])

    A model is loaded when it is first used. The least recently used models that are neither in use nor pinned are
    unloaded when another needs their memory. They finish their calls first, and count until their memory is free; a
    caller who asks for one of them meanwhile waits, and it is loaded again. The size of a model is known once it has
    been loaded, so its first load may exceed the budget until it is done.

    Models are loaded and closed on threads of the pool's own. A caller that leaves, by its timeout or by Ctrl-C,
    interrupts neither: a model that nobody waits for any more is kept for the next caller.
    """

    def __init__(
        self,
        max_bytes: int | None = None,
        *,
        keep_alive_s: float | None = None,
        load: Callable[[str], _Model] = load_service,  # type: ignore[assignment]  # as the type's default says
    ) -> None:
        """Create an empty pool.

        Args:
            max_bytes: most bytes of weights in memory; None for no bound.
            keep_alive_s: seconds after which a model that nobody used is unloaded; None for never.
            load: makes an embedder of a model's name, as in `partial(EmbeddingService, device="cpu")`, or something
                else that has a model, as in `Reranker`.

        Raises:
            InvalidInputError: a limit is no number of 0 or more.
        """
        self._manager = PoolManager(
            max_bytes=_parse_limit("max_bytes", max_bytes),
            keep_alive_s=_parse_limit("keep_alive_s", keep_alive_s),
            load=load,
        )
        weakref.finalize(self, self._manager.stop).atexit = False

    @contextmanager
    def use(self, model: str, timeout: float | None = None) -> Iterator[_Model]:
        """Yield the embedder of a model, which is not unloaded inside the `with` block.

        Args:
            model: as `EmbeddingService` takes it.
            timeout: seconds to wait at most, for memory, for other models to finish their calls and for loading; None
                waits for as long as it takes. A load cannot be interrupted: it goes on after the timeout, and the model
                is kept for the next caller.

        Raises:
            ServiceOverloadedError: `timeout` passed while models that are in use or pinned left too little memory.
            DeadlineExceededError: `timeout` passed otherwise.
            ConfigurationError: the model alone takes more than `max_bytes`.
            ServiceClosedError: the pool is closed, or this process was forked from one that used it.
            InvalidInputError: `timeout` is no number above 0.
            ReentrantCallError: the call would wait for the thread that it was made on.
            AkidbMlxError: loading failed.
        """
        check_may_wait()
        deadline = Deadline(parse_timeout(timeout))
        lease = _Lease(self._manager, model)
        try:
            yield cast("_Model", lease.wait(deadline))  # made by `load`
        finally:
            lease.release()

    def pin(self, model: str, timeout: float | None = None) -> None:
        """Load a model, if it is not loaded, and keep it until `unpin`; see `use`."""
        with self.use(model, timeout):
            self._manager.send(partial(self._manager.set_pinned, model, True))

    def unpin(self, model: str) -> None:
        """Let a model be unloaded again; one that is not loaded is left as it is."""
        self._manager.send(partial(self._manager.set_pinned, model, False))

    def unload(self, model: str) -> bool:
        """Unload a model, pinned or not, and wait until it has finished its calls and its memory is free.

        Returns:
            False, at once, where it is in use or not loaded.
        """
        check_may_wait()
        unloaded = self._manager.call(partial(self._manager.unload, model))
        return unloaded is not None and unloaded.wait()

    def loaded(self) -> dict[str, LoadedModel]:
        """Report the models that can be used at once, by name, the least recently used first."""
        return self._manager.call(self._manager.loaded)

    def close(self) -> None:
        """Unload all models, those in use too; what their callers wait for fails. Idempotent.

        A load that is running is not waited for: its model is closed as soon as it is there.
        """
        if process.is_forked():
            return  # the models are the parent's
        self._manager.send(self._manager.close)
        if not on_owner_thread():  # a done-callback must not wait for its own model
            self._manager.closed.wait()

    def __repr__(self) -> str:
        return f"<ModelPool: {self._manager.describe()}>"


class _Lease:
    """A caller's claim to a model. It ends when it is released, or collected if Ctrl-C prevented that."""

    _release: Callable[[], None] | None = None

    def __init__(self, manager: PoolManager, model: str) -> None:
        self._manager = manager
        self._request = ModelRequest(model)
        self._release = partial(manager.post, partial(manager.release, self._request))

    def wait(self, deadline: Deadline) -> Poolable:
        """Ask for the model and wait for it."""
        self._manager.send(partial(self._manager.admit, self._request))
        return self._request.wait(deadline)

    def release(self) -> None:
        """Give the model back, or stop waiting for it. Idempotent; waits for nothing."""
        if self._release is not None:
            self._release()

    def __del__(self) -> None:
        self.release()


def _parse_limit(name: str, limit: Any) -> float:
    """Return a limit of the pool; infinity for None.

    Raises:
        InvalidInputError: it is no number of 0 or more.
    """
    if limit is None:
        return inf
    if not is_number(limit, Real) or not limit >= 0:
        raise InvalidInputError(f"{name} must be a number of 0 or more, or None, found {limit!r}")
    number: float = limit
    return number
