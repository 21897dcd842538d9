"""The models that may be asked for: loaded on first use through a ModelPool, and unloaded when their time is over."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any, Literal, TypeVar

from akidb_mlx.embedder import wait_async
from akidb_mlx.errors import AkidbMlxError, ServiceClosedError, ServiceOverloadedError
from akidb_mlx.pool import ModelPool
from akidb_mlx.pool_models import LoadedModel
from akidb_mlx.server.config import ServerConfig
from akidb_mlx.server.leases import Leases
from akidb_mlx.server.problems import RequestError

logger = logging.getLogger(__name__)

Kind = Literal["embedder", "reranker"]
_Result = TypeVar("_Result")

# Seconds for which a success shows that a model works, and seconds that a probe may take.
_FRESH_S, _PROBE_S = 10.0, 5.0
# Seconds between two looks for models whose time is over.
_SWEEP_S = 0.5
# Most characters of a call that is tokenised on the event loop.
_SHORT = 2000
# A model whose thread died this often is not loaded again.
_MOST_DEATHS = 2


def load_model(kind: Kind, name: str) -> Any:
    """Load an embedder or a reranker as the settings (`AKIDB_*`) say."""
    if kind == "reranker":
        from akidb_mlx.reranking import Reranker

        return Reranker(name)
    from akidb_mlx.service import EmbeddingService

    return EmbeddingService(name)


class Models:
    """The models of a server; used on its event loop only."""

    def __init__(self, config: ServerConfig, load: Callable[[Kind, str], Any] = load_model) -> None:
        """Note the models, without loading any."""
        self.kinds: dict[str, Kind] = {
            **dict.fromkeys(config.embedders, "embedder"),
            **dict.fromkeys(config.all_rerankers, "reranker"),
        }
        self._config = config
        self._pool: ModelPool[Any] = ModelPool(config.max_model_bytes, load=lambda name: load(self.kinds[name], name))
        # A thread for each model that may be waited for, and one beside them.
        self._waiters = ThreadPoolExecutor(len(self.kinds) + 1, "akidb-mlx-model")
        self._leases = Leases(self._pool, self._waiters, config.load_timeout_s)
        self._latest: dict[str, Any] = {}
        self._succeeded: dict[str, float] = {}
        self._silent: set[str] = set()  # the models whose latest probe failed
        self._expires: dict[str, float] = {}
        self._starting: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to watch the models' time and, if it is so configured, to load them."""
        self._spawn(self._sweep())
        if self._config.preload:
            for name in self.kinds:
                self._spawn(self._warm(name))

    async def close(self) -> None:
        """Unload all models; what waits for them fails."""
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._pool.close)
        self._waiters.shutdown(wait=False)

    def choose(self, name: str | None, kind: Kind) -> str:
        """Return the name of the model that a request means; the first of its kind if it names none.

        Raises:
            RequestError: there is no such model.
        """
        names = [known for known, its in self.kinds.items() if its == kind]
        noun = "embedding model" if kind == "embedder" else "reranker"
        if name is None:
            if names:
                return names[0]
            raise RequestError(404, "model_not_found", f"no {noun} is served here: start the server with one")
        if name in names:
            return name
        listed = ", ".join(names) or "none"
        wrong = "is not" if name in self.kinds else f"{name[:100]!r} is not served here; it is not"
        raise RequestError(
            404,
            "model_not_found",
            f"the model {wrong} {'an' if kind == 'embedder' else 'a'} {noun} of this server; those are: {listed}",
            "model",
        )

    @asynccontextmanager
    async def use(self, name: str, keep_alive_s: float | None = None) -> AsyncIterator[Any]:
        """Yield a model, which is loaded if need be.

        Args:
            name: one of `kinds`.
            keep_alive_s: seconds after which it may be unloaded; what the configuration says if None.

        Raises:
            RequestError: it is being loaded, which takes too long, or again after its thread died.
            ServiceClosedError: its thread died too often.
            AkidbMlxError: it cannot be loaded.
        """
        self._refuse_dead(name)
        async with self._share(name) as model:
            self._refuse_dead(name)  # it may have died while others used it
            yield model
        wanted = self._config.keep_alive_s if keep_alive_s is None else keep_alive_s
        self._expires[name] = asyncio.get_running_loop().time() + (inf if wanted is None else wanted)

    async def call(
        self, name: str, submit: Callable[[Any], Future[_Result]], characters: int, keep_alive_s: float | None = None
    ) -> _Result:
        """Return the result of a call of a model's `submit`; cancelling the task drops what has not run.

        Args:
            name: one of `kinds`.
            submit: begins the call.
            characters: how many characters it tokenises.
            keep_alive_s: see `use`.
        """
        async with self.use(name, keep_alive_s) as model:
            # Tokenising a short text takes less time than handing it to another thread.
            is_short = characters <= _SHORT
            result = await (asyncio.wrap_future(submit(model)) if is_short else wait_async(partial(submit, model)))
            self._succeeded[name] = asyncio.get_running_loop().time()
            self._silent.discard(name)
            return result

    async def loaded(self) -> dict[str, LoadedModel]:
        """Report the models in memory."""
        return await asyncio.get_running_loop().run_in_executor(self._waiters, self._pool.loaded)

    def latest(self) -> dict[str, Any]:
        """Return the models by name that were used and not unloaded by their time, as far as is known."""
        return dict(self._latest)

    def expires_in(self, name: str) -> float:
        """Return the seconds until a model may be unloaded; infinity for never."""
        return self._expires.get(name, inf) - asyncio.get_running_loop().time()

    async def readiness(self) -> tuple[bool, str]:
        """Return whether requests can be answered, and the reason.

        A model that computed something in the last seconds works; any other that is loaded is tried.
        """
        if obstacle := self._obstacle():
            return False, obstacle
        for name in await self.loaded():
            if name in self._latest and not await self._works(name, self._latest[name]):
                self._silent.add(name)
                return False, _no_answer(name)
        return True, "ready"

    def last_readiness(self) -> tuple[bool, str]:
        """Return what is known of readiness without a computation: no model is tried."""
        silent = [_no_answer(name) for name in self._silent if name in self._latest]
        obstacle = self._obstacle() or next(iter(silent), None)
        return obstacle is None, obstacle or "ready"

    def _obstacle(self) -> str | None:
        """Return why requests cannot be answered, as far as no computation is needed to know it."""
        for name in list(self._latest):
            self._bury(name)
        if self._starting:
            return f"loading {', '.join(sorted(self._starting))}"
        dead = (f"{name} died {deaths} times" for name, deaths in self._deaths.items() if deaths >= _MOST_DEATHS)
        return next(dead, None)

    async def _works(self, name: str, model: Any) -> bool:
        loop = asyncio.get_running_loop()
        if loop.time() - self._succeeded.get(name, -inf) < _FRESH_S:
            return True
        probe = ["ready"] if self.kinds[name] == "embedder" else [("ready", "ready")]
        expires = self._expires.get(name)
        try:
            await self.call(name, lambda model: model.submit(probe, timeout=_PROBE_S), 0, inf)
        except ServiceOverloadedError:  # the queue is full, and something computes or hangs
            return bool(model.health_check()["status"] != "failed")
        except AkidbMlxError as error:
            logger.warning("%s does not answer: %s", name, type(error).__name__)
            return False
        finally:
            if expires is not None:  # a probe is no use
                self._expires[name] = expires
        return True

    @asynccontextmanager
    async def _share(self, name: str) -> AsyncIterator[Any]:
        """Yield a model, and note that it is loaded; see `Leases.share`."""
        async with self._leases.share(name) as model:
            self._latest[name] = model
            yield model

    def _refuse_dead(self, name: str) -> None:
        """Refuse a model whose thread died: for now after the first time, while it is loaded again; then for good.

        Raises:
            RequestError: it is being loaded again.
            ServiceClosedError: its thread died too often.
        """
        self._bury(name)
        if self._deaths[name] >= _MOST_DEATHS:
            raise ServiceClosedError(f"{name} died {self._deaths[name]} times: restart the server")
        if self._deaths[name] and name in self._starting:
            raise RequestError(503, "loading", f"{name} is being loaded again; retry")

    def _bury(self, name: str) -> None:
        """Count the death of a model's thread, if it died, and begin to load the model again after the first."""
        model = self._latest.get(name)
        # The second costs more, and the first is also "failed" while a forward pass hangs.
        if model is None or model.health_check()["status"] != "failed" or model.get_model_info()["status"] != "failed":
            return
        self._deaths[name] += 1
        del self._latest[name]
        self._succeeded.pop(name, None)
        self._silent.discard(name)
        self._leases.give_back(name)
        if self._deaths[name] < _MOST_DEATHS:
            self._starting.add(name)
            self._spawn(self._warm(name))

    async def _warm(self, name: str) -> None:
        """Load a model before it is asked for; why it failed is said to whoever asks for it."""
        self._starting.add(name)
        try:
            while not await self._load_within_timeout(name):
                logger.info("%s is still being loaded", name)
        except (AkidbMlxError, OSError) as error:
            logger.error("%s could not be loaded: %s", name, error)
        finally:
            self._starting.discard(name)

    async def _load_within_timeout(self, name: str) -> bool:
        """Load a model, and return whether it is loaded; the load goes on after the time that a request waits."""
        try:
            async with self._share(name):
                return True
        except (RequestError, ServiceOverloadedError):
            return False

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            for name in list(self._latest):
                self._bury(name)
            now = asyncio.get_running_loop().time()
            for name in [name for name, at in self._expires.items() if at <= now]:
                await self._unload(name)

    async def _unload(self, name: str) -> None:
        """Unload a model that nobody uses."""
        if self._leases.is_used(name):
            return
        self._leases.give_back(name)
        self._expires.pop(name, None)
        self._latest.pop(name, None)
        self._silent.discard(name)
        await asyncio.get_running_loop().run_in_executor(self._waiters, self._pool.unload, name)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _no_answer(name: str) -> str:
    return f"{name} does not answer"
