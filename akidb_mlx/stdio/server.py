"""Answers the requests of a parent, in their order, while later ones are read and begun already."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from queue import SimpleQueue

from akidb_mlx.errors import AkidbMlxError, InvalidInputError, ServiceOverloadedError
from akidb_mlx.stdio.models import LoadedModels
from akidb_mlx.stdio.protocol import EmbedBatch, LoadModel, Ping, Request, encode_answer, encode_batch, parse_request
from akidb_mlx.stdio.streams import LOOK_S, MAX_LINE_BYTES, read_lines, take_standard_streams, write_all
from akidb_mlx.stdio.window import Window
from akidb_mlx.vectors import EmbeddingBatch

logger = logging.getLogger(__name__)

# Bytes that a vector takes until it is written, by estimate.
_VECTOR_BYTES = 4096

# Waits for an answer, and returns it in pieces.
_Answer = Callable[[], Iterable[bytes]]


def serve() -> None:
    """Answer what comes over standard input until it ends, or until the parent of this process has died."""
    requests, answers = take_standard_streams()
    with LoadedModels() as models:
        Server(requests, answers, models).run()


class Server:
    """Reads on the thread of `run`, loads models and tokenises on a second one, and writes on a third."""

    def __init__(self, requests: int, answers: int, models: LoadedModels) -> None:
        """Create a server.

        Args:
            requests: descriptor that requests are read from.
            answers: descriptor that answers are written to.
            models: those that were loaded.
        """
        self._requests = requests
        self._answers = answers
        self._models = models
        self._parent = os.getppid()
        self._window = Window()
        self._to_begin: SimpleQueue[tuple[Request | AkidbMlxError, int] | None] = SimpleQueue()
        self._to_write: SimpleQueue[tuple[_Answer, int] | None] = SimpleQueue()
        self._running: set[Future[EmbeddingBatch]] = set()
        self._write_error: BaseException | None = None

    def run(self) -> None:
        """Answer all requests; return early where nobody is there any more to read the answers.

        Raises:
            BaseException: answers cannot be written, for another reason than that their reader has gone.
        """
        threading.Thread(target=self._begin_all, name="akidb-mlx-stdio-begin", daemon=True).start()
        writer = threading.Thread(target=self._write_all, name="akidb-mlx-stdio-write", daemon=True)
        writer.start()
        for line in read_lines(self._requests, self._has_ended):
            if line is not None and not line.strip():
                continue
            request = _parse(line)
            texts = len(request.inputs) if isinstance(request, EmbedBatch) else 0
            size = len(line or b"") + texts * _VECTOR_BYTES
            if not self._window.enter(size, self._has_ended):
                break
            self._to_begin.put((request, size))
        self._to_begin.put(None)
        while writer.is_alive() and not self._has_ended():
            writer.join(LOOK_S)
        if self._write_error is not None and not isinstance(self._write_error, BrokenPipeError):
            raise self._write_error

    def _has_ended(self) -> bool:
        """Return whether the parent has died, or does not read any more."""
        return self._write_error is not None or os.getppid() != self._parent

    def _begin_all(self) -> None:
        while (given := self._to_begin.get()) is not None:
            request, size = given
            try:
                answer = self._begin(request)
            except BaseException as error:  # noqa: BLE001 - a panic of a library, too, is one request's failure
                answer = partial(_describe, error)
            self._to_write.put((answer, size))
        self._to_write.put(None)

    def _begin(self, request: Request | AkidbMlxError) -> _Answer:
        """Do what a request asks for as far as nothing needs to be waited for, except for a model that is loaded."""
        if isinstance(request, Ping):
            return partial(_single, encode_answer("ok", "pong"))
        if isinstance(request, LoadModel):
            model, is_new = self._models.load(request.model, request.cache_dir)
            message = "model loaded" if is_new else "model already loaded"
            return partial(_single, encode_answer("ok", message, dimension=model.dimension))
        if isinstance(request, EmbedBatch):
            return partial(_finish, self._submit(request))
        raise request

    def _submit(self, request: EmbedBatch) -> Future[EmbeddingBatch]:
        """Begin to embed; where the engine's queue is full, wait for calls that were made before."""
        model = self._models.get(request.model)
        while True:
            self._running = {future for future in self._running if not future.done()}
            try:
                future = model.submit(request.inputs, normalize=request.normalize)
            except ServiceOverloadedError:
                if not self._running:
                    raise
                wait(self._running, return_when=FIRST_COMPLETED)
            else:
                self._running.add(future)
                return future

    def _write_all(self) -> None:
        while (given := self._to_write.get()) is not None:
            answer, size = given
            try:
                for piece in answer():
                    write_all(self._answers, piece)
            except BaseException as error:  # noqa: BLE001 - raised by `run`
                self._write_error = error
                return
            self._window.leave(size)


def _parse(line: bytes | None) -> Request | AkidbMlxError:
    """Return a request, or the error that answers it; None stands for a line that was too long."""
    try:
        if line is None:
            raise InvalidInputError(f"a request must have at most {MAX_LINE_BYTES >> 20} MB: send fewer texts at once")
        return parse_request(line)
    except AkidbMlxError as error:
        return error


def _finish(future: Future[EmbeddingBatch]) -> Iterable[bytes]:
    """Wait for vectors, and return them as an answer."""
    try:
        return encode_batch(future.result())
    except BaseException as error:  # noqa: BLE001 - it answers this request, and the next ones go on
        return _describe(error)


def _describe(error: BaseException) -> Iterable[bytes]:
    """Return the answer of a request that failed."""
    if isinstance(error, AkidbMlxError):
        return _single(encode_answer("error", str(error)))
    logger.error("a request failed", exc_info=error)
    return _single(encode_answer("error", f"internal error: {type(error).__name__}: {error}"[:1000]))


def _single(line: bytes) -> Iterable[bytes]:
    return (line,)
