"""The models of a pool and the requests for them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from typing_extensions import TypedDict

from akidb_mlx.errors import ServiceOverloadedError
from akidb_mlx.runtime.locks import Latch

if TYPE_CHECKING:
    from akidb_mlx.deadline import Deadline


class Poolable(Protocol):
    """An object with a model in memory: an `Embedder` or a `Reranker`."""

    def get_model_info(self) -> Any:
        """Report at least `weight_bytes` and `status`, as `ModelInfo` has them."""

    def close(self, drain: bool = False) -> None:
        """Free the model; with `drain`, first finish every call that was made."""


class LoadedModel(TypedDict):
    """A model in memory.

    Attributes:
        weight_bytes: memory that its weights take.
        uses: how many callers are inside `use` with it.
        pinned: whether it stays until `unpin`.
        idle_s: seconds since it was last in use; 0 while it is.
    """

    weight_bytes: int
    uses: int
    pinned: bool
    idle_s: float


@dataclass(eq=False)
class PooledModel:
    """A model that takes memory.

    Attributes:
        name: the name that it was asked for by.
        weight_bytes: memory that its weights take; 0 while it is loaded for the first time.
        embedder: None while it is loaded.
        status: "closing" lasts until its memory is free.
        uses: how many callers hold it.
        pinned: whether it stays, whatever memory others need.
        last_used: when it was last taken or released, by `time.monotonic`.
        freed: set once its memory is free.
    """

    name: str
    weight_bytes: int
    embedder: Poolable | None = None
    status: Literal["loading", "ready", "closing"] = "loading"
    uses: int = 0
    pinned: bool = False
    last_used: float = field(default_factory=time.monotonic)
    freed: Latch = field(default_factory=Latch)

    @property
    def is_idle(self) -> bool:
        """Return whether it may be closed for another model."""
        return self.status == "ready" and not self.uses and not self.pinned


class ModelRequest:
    """A caller's request for a model.

    Attributes:
        name: the model's name.
        refusal: the error where models in use leave too little memory; None where it only takes time.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.refusal: ServiceOverloadedError | None = None
        self._model: PooledModel | None = None
        self._error: BaseException | None = None
        self._answered = Latch()

    def wait(self, deadline: Deadline) -> Poolable:
        """Wait for the answer: return the embedder, or raise the error."""
        if not self._answered.wait(deadline.left()):
            raise self.refusal or deadline.error()
        if self._error is not None:
            raise self._error
        assert self._model is not None
        assert self._model.embedder is not None
        return self._model.embedder

    def grant(self, model: PooledModel) -> None:
        """Answer with a model, which is in use until the request is released."""
        model.uses += 1
        model.last_used = time.monotonic()
        self._model = model
        self._answered.set()

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        self._error = error
        self._answered.set()

    def release(self) -> None:
        """End the use of the model, if there is one. Idempotent."""
        if self._model is not None:
            self._model.uses -= 1
            self._model.last_used = time.monotonic()
            self._model = None
