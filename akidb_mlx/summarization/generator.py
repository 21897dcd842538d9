"""The owner thread of a language model: it alone loads it and writes answers, one after another."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal

from akidb_mlx.engine.life import load_error
from akidb_mlx.errors import AkidbMlxError, InferenceError, ServiceClosedError
from akidb_mlx.reports import ModelStatus
from akidb_mlx.runtime import cpu_runtime, process
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.runtime.owner import run_on_owner_thread
from akidb_mlx.settings import DeviceName

if TYPE_CHECKING:
    from akidb_mlx.summarization.language_model import LanguageModel

logger = logging.getLogger(__name__)

# How long `close()` waits for the step that is running.
_CLOSE_TIMEOUT_S = 4.0


class Answer:
    """An answer that is being written: iterate over it, on one thread, for its pieces of text.

    Leaving its context ends the writing.

    Attributes:
        ids: the prompt's tokens.
        max_tokens: most tokens of the answer.
        wanted: whether somebody still waits for it.
        ended_itself: whether the model ended it, once it has ended.
    """

    def __init__(self, ids: list[int], max_tokens: int) -> None:
        self.ids = ids
        self.max_tokens = max_tokens
        self.wanted = True
        self.ended_itself = False
        self._pieces: SimpleQueue[str | AkidbMlxError | None] = SimpleQueue()

    def add(self, piece: str) -> None:
        """One more piece."""
        self._pieces.put(piece)

    def end(self, error: AkidbMlxError | None = None) -> None:
        """No more pieces, or what went wrong."""
        self._pieces.put(error)

    def __iter__(self) -> Iterator[str]:
        while isinstance(piece := self._pieces.get(), str):
            yield piece
        if piece is not None:
            raise piece

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.wanted = False


class TextGenerator:
    """A language model that any thread may ask.

    Attributes:
        status: "loading", "ready", "closed" or "failed".
        facts: what the model is and how it runs.
        tokenizer: the model's.
        context_tokens: most tokens of a prompt and its answer together.
    """

    def __init__(self, directory: Path, device: DeviceName, context_tokens: int | None, stuck_after_s: float) -> None:
        """Load a model on an owner thread; returns when it is ready.

        Args:
            directory: the checkpoint.
            device: where it runs.
            context_tokens: a bound on the context, beside those of the model and the memory.
            stuck_after_s: when a step that is still running counts as hanging.

        Raises:
            AkidbMlxError: what loading raised, or this process was forked from one that had a model.
        """
        process.check_not_forked()
        self.status: ModelStatus = "loading"
        self._stuck_after_s = stuck_after_s
        self._step_began: float | None = None
        self._closed = False
        # Reentrant: the garbage collector may close this on a thread that is inside `generate`.
        self._lock = threading.RLock()
        self._waiting: SimpleQueue[Answer | None] = SimpleQueue()
        self._ended = threading.Event()
        loaded: Future[LanguageModel] = Future()
        process.stop_at_exit(self)
        run_on_owner_thread(partial(self._own, partial(_load, directory, device, context_tokens), loaded))
        model = loaded.result()
        self.facts = model.facts
        self.tokenizer = model.tokenizer
        self.context_tokens = model.facts.context_tokens

    def generate(self, ids: list[int], max_tokens: int) -> Answer:
        """Ask for the continuation of a prompt; answers are written in the order in which they were asked for.

        Raises:
            ServiceClosedError: the generator is closed, or this is a forked child.
        """
        process.check_not_forked()
        answer = Answer(ids, max_tokens)
        with self._lock:
            if self._closed:
                raise self._closed_error()
            self._waiting.put(answer)
        return answer

    def health(self) -> tuple[Literal["ok", "failed"], str]:
        """How the generator is, and why; takes no lock."""
        if process.is_forked():
            return "failed", "this process was forked from the one that has the model"
        if self.status != "ready":
            return "failed", self.status
        running = time.monotonic() - (self._step_began or time.monotonic())
        if running > self._stuck_after_s:
            return "failed", f"a step of the model has been running for {running:.0f} s"
        return "ok", "ready"

    def close(self) -> None:
        """End the answer that is being written, fail those that wait, and free the model. Idempotent."""
        if process.is_forked():
            return  # the owner thread is the parent's
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        if not self._ended.wait(_CLOSE_TIMEOUT_S):
            logger.warning("the step of the model that is running did not end within %.0f s", _CLOSE_TIMEOUT_S)

    def stop(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)

    def join(self, timeout: float | None) -> bool:
        return self._ended.wait(timeout)

    def _own(self, load: Callable[[], LanguageModel], loaded: Future[LanguageModel]) -> None:
        """What the owner thread does from the generator's start to its end."""
        outcome: ModelStatus = "failed"
        try:
            try:
                with device_lock:
                    model = load()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the model
                loaded.set_exception(load_error(error))
                return
            self.status = "ready"
            loaded.set_result(model)
            while (answer := self._waiting.get()) is not None:
                self._write(model, answer)
            model.close()
            outcome = "closed"
        finally:
            self._end(outcome)

    def _write(self, model: LanguageModel, answer: Answer) -> None:
        def emit(piece: str) -> bool:
            self._step_began = time.monotonic()
            answer.add(piece)
            return answer.wanted and not self._closed

        if not answer.wanted:
            return
        self._step_began = time.monotonic()
        try:
            if not self._closed:
                answer.ended_itself = model.generate(answer.ids, answer.max_tokens, emit)
            answer.end(self._closed_error() if self._closed else None)
        except BaseException as error:  # noqa: BLE001 - a native panic is no Exception, and the next call must succeed
            failure = InferenceError(f"writing the summary failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            answer.end(failure)
        finally:
            self._step_began = None

    def _end(self, status: ModelStatus) -> None:
        """Take no more calls and fail those that wait."""
        with self._lock:
            self.status = status
            self._closed = True
        while True:
            try:
                answer = self._waiting.get_nowait()
            except Empty:
                break
            if answer is not None:
                answer.end(self._closed_error())
        self._ended.set()

    def _closed_error(self) -> ServiceClosedError:
        if self.status == "failed":
            return ServiceClosedError("the summariser's owner thread died; create a new Summarizer")
        return ServiceClosedError("the summariser is closed; create a new Summarizer")


def _load(directory: Path, device: DeviceName, context_tokens: int | None) -> LanguageModel:
    """Runs on the owner thread, where MLX is imported for the first time."""
    cpu_runtime.prepare()
    from akidb_mlx.summarization.generation_plan import generation_plan
    from akidb_mlx.summarization.language_model import LanguageModel

    return LanguageModel(directory, generation_plan(device), context_tokens)
