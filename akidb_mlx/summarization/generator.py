"""The owner thread of a language model, which alone loads it and writes answers, one after another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal

from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.errors import AkidbMlxError, InferenceError, ServiceClosedError, load_error
from akidb_mlx.reports import ModelStatus
from akidb_mlx.runtime import mlx_import, process
from akidb_mlx.runtime.locks import Latch
from akidb_mlx.runtime.owner import check_may_wait, run_on_owner_thread
from akidb_mlx.settings import DeviceName
from akidb_mlx.summarization.prompts import Prompt
from akidb_mlx.summarization.reports import BackendInfo

if TYPE_CHECKING:
    from akidb_mlx.summarization.writing import WritingModel

logger = logging.getLogger(__name__)

# Seconds without an answer to write before memory that is kept for reuse is given back; as long as an embedder waits.
_IDLE_S = 10.0


class Answer:
    """An answer that is being written: iterate over it, on one thread, for its pieces of text.

    Leaving its `with` block ends the writing.

    Attributes:
        ids: the prompt's tokens; none where an API has them.
        max_tokens: most tokens of the answer.
        wanted: whether somebody still waits for it.
        ended_itself: whether the model ended it, once it has ended.
    """

    def __init__(self, ids: list[int], max_tokens: int, deadline: Deadline = NEVER) -> None:
        self.ids = ids
        self.max_tokens = max_tokens
        self.wanted = True
        self.ended_itself = False
        self._deadline = deadline
        self._pieces: SimpleQueue[str | AkidbMlxError | None] = SimpleQueue()

    def add(self, piece: str) -> None:
        """Add a piece of text."""
        self._pieces.put(piece)

    def end(self, error: AkidbMlxError | None = None) -> None:
        """Note that no more pieces come, or the error that ended them."""
        self._pieces.put(error)

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces as they come.

        Raises:
            AkidbMlxError: the error that ended the answer.
            DeadlineExceededError: the deadline passed, whatever the model's thread does.
        """
        while isinstance(piece := self._next(), str):
            yield piece
        if piece is not None:
            raise piece

    def _next(self) -> str | AkidbMlxError | None:
        self._deadline.check()
        try:
            return self._pieces.get(timeout=self._deadline.left())
        except Empty:
            raise self._deadline.error() from None

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.wanted = False


class TextGenerator(process.ModelOwner):
    """A language model that any thread may ask.

    Attributes:
        status: "loading", "ready", "closed" or "failed".
        facts: the model's properties and how it runs.
        tokenizer: the model's.
        context_tokens: most tokens of a prompt and its answer together.
    """

    def __init__(
        self,
        directory: Path,
        device: DeviceName,
        context_tokens: int | None,
        stuck_after_s: float,
        allow_tf32: bool = False,
        *,
        gguf: bool = False,
    ) -> None:
        """Load a model on an owner thread; returns when it is ready.

        Args:
            directory: the checkpoint, or a GGUF file.
            device: the device that it runs on.
            context_tokens: a bound on the context, beside those of the model and the memory.
            stuck_after_s: seconds after which a step that is still running counts as hanging.
            allow_tf32: whether a GPU may round the factors of float32 products.
            gguf: whether llama.cpp is to run a GGUF file.

        Raises:
            AkidbMlxError: the error of loading, or this process was forked from one that had a model.
        """
        process.check_not_forked()
        check_may_wait()
        self.status: ModelStatus = "loading"
        self._stuck_after_s = stuck_after_s
        self._stopped = False
        # Its methods are atomic: a signal handler or the garbage collector may use it at any moment.
        self._waiting: SimpleQueue[Answer | None] = SimpleQueue()
        self._ended = Latch()
        loaded: Future[WritingModel] = Future()
        process.stop_at_exit(self)
        load = partial(_load, directory, device, context_tokens, allow_tf32)
        if gguf:
            load = partial(_load_gguf, directory, device, context_tokens)
        run_on_owner_thread(partial(self._own, load, loaded))
        self._model = loaded.result()
        self.facts = self._model.facts
        self.tokenizer = self._model.tokenizer
        self.context_tokens = self.facts.context_tokens

    def answer(self, prompt: Prompt, max_tokens: int, deadline: Deadline) -> Answer:
        """Ask for the answer to a prompt; see `ChatModel` and `generate`."""
        encode = self.tokenizer.encode_from_start if prompt.is_bare else self.tokenizer.encode
        return self.generate(encode(prompt.text), max_tokens, deadline)

    def generate(self, ids: list[int], max_tokens: int, deadline: Deadline = NEVER) -> Answer:
        """Ask for the continuation of a prompt; answers are written in the order in which they were asked for.

        Args:
            ids: the prompt's tokens.
            max_tokens: most tokens of the answer.
            deadline: when whoever iterates over the answer leaves; it ends the writing after the step that runs.

        Raises:
            ServiceClosedError: the generator is closed, or this is a forked child.
            ReentrantCallError: this is an owner thread, which may not wait.
        """
        process.check_not_forked()
        check_may_wait()
        if self._stopped or self.status != "ready":
            raise self._closed_error()
        answer = Answer(ids, max_tokens, deadline)
        self._waiting.put(answer)
        if self.status != "ready":  # the owner thread may have failed those that wait before this one was there
            self._fail_waiting()
        return answer

    def info(self) -> BackendInfo:
        """Report the model and how it runs, as plain types; see `ChatModel`."""
        facts = self.facts
        return {
            "backend": facts.backend,
            "context_tokens": facts.context_tokens,
            "device": facts.device,
            "precision": facts.precision,
            "quantization": facts.quantization,
            "weight_bytes": facts.weight_bytes,
            "kv_bytes_per_token": facts.kv_bytes_per_token,
            "status": self.status,
        }

    def health(self) -> tuple[Literal["ok", "failed"], str]:
        """Report the state and its reason; takes no lock, so that it also answers while a step hangs."""
        if process.is_forked():
            return "failed", "this process was forked from the one that has the model"
        if self.status != "ready":
            return "failed", self.status
        if self._stopped:
            return "failed", "closing"
        began = self._model.computing_since
        running = 0.0 if began is None else time.monotonic() - began
        if running > self._stuck_after_s:
            return "failed", f"a step of the model has been running for {running:.0f} s"
        return "ok", "ready"

    def stop(self) -> None:
        """End the answer that is being written and fail those that wait; see `ModelOwner`."""
        self._stopped = True
        self._waiting.put(None)

    def join(self, timeout: float | None) -> bool:
        """Wait for the end, and return whether it has come; see `ModelOwner`."""
        return self._ended.wait(timeout)

    def _own(self, load: Callable[[], WritingModel], loaded: Future[WritingModel]) -> None:
        """Load the model, write answers until the generator is stopped, and free the model; the owner thread's work."""
        outcome: ModelStatus = "failed"
        try:
            try:
                model = load()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the model
                loaded.set_exception(load_error(error))
                return
            try:
                self.status = "ready"
                loaded.set_result(model)
                while (answer := self._next_answer(model)) is not None:
                    self._write(model, answer)
            finally:
                model.close()
            outcome = "closed"
        finally:
            self.status = outcome
            self._fail_waiting()
            self._ended.set()

    def _next_answer(self, model: WritingModel) -> Answer | None:
        """Wait for an answer to write; what MLX keeps for reuse, by all models, is given back when none comes."""
        try:
            return self._waiting.get(timeout=_IDLE_S)
        except Empty:
            model.release_memory()
            return self._waiting.get()

    def _write(self, model: WritingModel, answer: Answer) -> None:
        def emit(piece: str) -> bool:
            answer.add(piece)
            return answer.wanted and not self._stopped

        if not answer.wanted:
            return
        try:
            if not self._stopped:
                answer.ended_itself = model.generate(answer.ids, answer.max_tokens, emit)
            answer.end(self._closed_error() if self._stopped else None)
        except BaseException as error:  # noqa: BLE001 - a native panic is no Exception, and the next call must succeed
            failure = InferenceError(f"writing the summary failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            answer.end(failure)

    def _fail_waiting(self) -> None:
        while True:
            try:
                answer = self._waiting.get_nowait()
            except Empty:
                return
            if answer is not None:
                answer.end(self._closed_error())

    def _closed_error(self) -> ServiceClosedError:
        if self.status == "failed":
            return ServiceClosedError("the summariser's owner thread died; create a new Summarizer")
        return ServiceClosedError("the summariser is closed; create a new Summarizer")


def _load(directory: Path, device: DeviceName, context_tokens: int | None, allow_tf32: bool) -> WritingModel:
    """Load the model on the owner thread, where MLX is imported for the first time."""
    mlx_import.prepare(allow_tf32)
    from akidb_mlx.summarization.generation_plan import generation_plan
    from akidb_mlx.summarization.language_model import LanguageModel

    return LanguageModel(directory, generation_plan(device), context_tokens)


def _load_gguf(file: Path, device: DeviceName, context_tokens: int | None) -> WritingModel:
    """Load a GGUF file on the owner thread, where llama.cpp is imported for the first time."""
    from akidb_mlx.summarization.gguf_model import GgufLanguageModel

    return GgufLanguageModel(file, device, context_tokens)
