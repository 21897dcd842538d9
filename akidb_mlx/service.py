"""EmbeddingService, the facade that every caller holds."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from numbers import Real
from os import PathLike, fspath
from typing import Any

import numpy as np
from typing_extensions import TypedDict, Unpack

from akidb_mlx.catalog import CATALOG
from akidb_mlx.checkpoint.checkpoint import Checkpoint, read_checkpoint
from akidb_mlx.checkpoint.prompts import choose_prompt
from akidb_mlx.checkpoint.tokenizer import OVERFLOW_POLICIES, OverflowPolicy, TextTokenizer, TokenizedText
from akidb_mlx.closeable import Closeable
from akidb_mlx.engine.batching import TokenIds
from akidb_mlx.engine.engine import Engine, EngineLimits, Model
from akidb_mlx.engine.requests import Request
from akidb_mlx.errors import DeadlineExceededError, InvalidInputError
from akidb_mlx.resolve import acquire, device_name
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.settings import DeviceName, Settings, load_settings
from akidb_mlx.texts import check_string, list_texts
from akidb_mlx.vectors import EmbeddingBatch, Vectors, finish_vectors
from model_cache.names import is_commit

# What is tokenised at once: enough to sort by length with profit, little enough for the first batches to run soon.
_SLICE_TEXTS, _SLICE_CHARACTERS = 1024, 1 << 18
# By which the tokens of a text are estimated for the queue's bound.
_CHARACTERS_PER_TOKEN = 4
# Tokens that a prompt must have for a batch of its own to pay.
_MIN_PREFIX = 8
_NO_TOKENS: TokenIds = np.empty(0, np.int32)


class EmbedOptions(TypedDict, total=False):
    """The keyword options that every embedding call takes.

    Attributes:
        input_type: None (default) adds nothing; "query", "document" or a prompt name of the model puts that prompt
            before each text.
        prompt: a string to put before each text, in place of a named prompt.
        dimensions: keep this many of the first values, then normalise again (Matryoshka); the service's if not given.
        normalize: whether vectors are divided by their length; True if not given.
        on_overflow: what happens to a text that is longer than the model takes. "truncate" (default) cuts it and says
            so in `truncated`; "error" refuses it; "chunk" embeds all of it in overlapping windows and averages their
            vectors by token count.
        timeout: seconds after which the call fails with `DeadlineExceededError` and what has not run is dropped; None
            (default) waits. A future of `submit` fails when its turn would come, its own `result(timeout=…)` at once.
    """

    input_type: str | None
    prompt: str | None
    dimensions: int | None
    normalize: bool
    on_overflow: OverflowPolicy
    timeout: float | None


@dataclass(frozen=True)
class _CallOptions:
    """`EmbedOptions`, checked and complete."""

    dimensions: int
    normalize: bool
    prompt: str
    on_overflow: OverflowPolicy
    timeout: float | None

    def expected_tokens(self, text: str) -> int:
        """What a text will have, by estimate, before it is tokenised."""
        return (len(self.prompt) + len(text)) // _CHARACTERS_PER_TOKEN + 2


class EmbeddingService(Closeable):
    """Turns texts into vectors with one model; safe to call from any thread.

        with EmbeddingService("minilm-l6-v2") as service:
            vectors = service.embed(["Hello, world!"])

    The model's weights live on a thread of their own, which also runs every forward pass, in batches that the calls of
    all threads share. A service that is closed, or that was created before this process was forked, raises
    `ServiceClosedError`.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        *,
        dimensions: int | None = None,
        device: str | None = None,
        auto_download: bool = True,
        settings: Settings | None = None,
    ) -> None:
        """Find, check and load a model; returns when it is ready.

        Args:
            model: a catalogue name, "org/repo" or "org/repo@revision" on the Hub, or a local directory.
            dimensions: how many values a vector has unless a call says otherwise; the catalogue's default if None.
            device: "auto", "gpu" or "cpu"; the settings' if None.
            auto_download: whether a model that is not on this machine may be downloaded.
            settings: instead of those from the environment and the TOML file.

        Raises:
            ModelNotFoundError: the model is not on this machine and was not downloaded.
            ModelLoadError: its files are damaged or not supported.
            ConfigurationError: a setting is not usable, or there is no such device.
            InvalidInputError: `dimensions` is not usable with this model.
        """
        settings = settings or load_settings()
        self._model = fspath(model)
        self._record = CATALOG.get(self._model)
        self._may_cut_untrained = settings.allow_untrained_dimensions
        # The model's files and its engine, given up in reverse; also when the service is collected.
        held = ExitStack()
        self._release = weakref.finalize(self, held.close)
        try:
            directory = acquire(held, self._model, CATALOG, settings, auto_download)
            self._revision = directory.name if is_commit(directory.name) else None
            self._checkpoint = read_checkpoint(directory)
            self._engine = Engine(
                partial(_load_model, self._checkpoint, device_name(device, settings), settings),
                EngineLimits(
                    max_queued_requests=settings.max_queued_requests,
                    max_queued_tokens=settings.max_queued_tokens,
                    coalesce_delay_s=settings.coalesce_delay_ms / 1000,
                    stuck_after_s=settings.stuck_after_s,
                ),
            )
            held.callback(self._engine.close)
            self._tokenizer = TextTokenizer(self._checkpoint)  # while the engine loads the weights
            self._facts = self._engine.wait_until_loaded()
            if dimensions is None and self._record is not None:
                dimensions = self._record.dimensions
            self._dimension = self._check_dimensions(self._facts.dimension if dimensions is None else dimensions)
        except BaseException:
            self._release()
            raise

    def embed(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> list[list[float]]:
        """One vector for each text, in order; see `embed_detailed`."""
        vectors: list[list[float]] = self.embed_array(texts, **options).tolist()
        return vectors

    def embed_array(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Vectors:
        """The vectors as float32, shape (texts, dimension), C-contiguous; see `embed_detailed`."""
        return self.embed_detailed(texts, **options).vectors

    def embed_bytes(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> bytes:
        """The vectors as little-endian float32, row by row; see `embed_detailed`."""
        return self.embed_array(texts, **options).astype("<f4", copy=False).tobytes()

    def embed_detailed(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> EmbeddingBatch:
        """Embed texts and say what was read of each.

        Args:
            texts: strings; an empty collection gives an empty result.
            options: see `EmbedOptions`.

        Raises:
            InvalidInputError: a text or an option is not usable; `index` holds which text.
            InferenceError: the model computed something that is not a vector.
            DeadlineExceededError: `timeout` passed.
            ServiceOverloadedError: the queue is full; `retry_after_s` says when to try again.
            ServiceClosedError: the service takes no more calls.
        """
        began = time.monotonic()
        future = self.submit(texts, **options)
        timeout = options.get("timeout")
        try:
            return future.result(None if timeout is None else max(0.0, began + timeout - time.monotonic()))
        except DeadlineExceededError:
            raise
        except FutureTimeoutError:
            raise DeadlineExceededError.after(time.monotonic() - began) from None
        finally:
            future.cancel()  # a wait that was interrupted drops the call; one that is done is not touched

    def submit(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Future[EmbeddingBatch]:
        """Check and tokenise texts now, while the first of them may already run; see `embed_detailed`.

        Returns:
            A future. Cancelling it drops what has not run; it can be cancelled until it is done. Callbacks added to it
            run on the thread that owns the model and must be short.
        """
        self._engine.check_open()
        checked = list_texts(texts)
        call = self._checked_options(options)
        tokenized: list[TokenizedText] = []

        def combine(parts: list[Vectors]) -> EmbeddingBatch:
            return EmbeddingBatch(
                vectors=parts[0] if len(parts) == 1 else np.concatenate([_no_vectors(call.dimensions), *parts]),
                token_counts=[text.token_count for text in tokenized],
                truncated=[text.truncated for text in tokenized],
                model=self._model,
                dimension=call.dimensions,
            )

        expected = sum(map(call.expected_tokens, checked))
        request = self._engine.open_request(combine, expected, call.timeout)
        future: Future[EmbeddingBatch] = request.future
        try:
            for part in _slices(checked):
                if future.done():
                    break
                tokenized += self._add(request, part, len(tokenized), call)
            request.end()
        except BaseException:
            future.cancel()
            raise
        return future

    def _add(self, request: Request, texts: list[str], first: int, call: _CallOptions) -> list[TokenizedText]:
        """Tokenise some texts of a call, the first of index `first`, and queue them."""
        began = time.monotonic()
        tokenized = self._tokenizer(texts, call.prompt, call.on_overflow, first)
        self._engine.metrics.observe("tokenize", time.monotonic() - began)
        self._engine.metrics.count(texts=len(texts), truncated_texts=sum(text.truncated for text in tokenized))
        windows = [[len(window) for window in text.windows] for text in tokenized]
        sequences = [window for text in tokenized for window in text.windows]
        owners = [first + index for index, counts in enumerate(windows) for _ in counts]
        prefix = self._shared_prefix(sequences, call.prompt)
        self._engine.add(
            request,
            [ids[len(prefix) :] for ids in sequences],
            owners,
            prefix.tobytes(),
            partial(finish_vectors, windows=windows, dimensions=call.dimensions, normalize=call.normalize, first=first),
            sum(map(call.expected_tokens, texts)),
        )
        return tokenized

    def _shared_prefix(self, sequences: list[TokenIds], prompt: str) -> TokenIds:
        """The tokens of the prompt that the model should run once for all sequences; none where that gains nothing."""
        if self._facts.shares_prefixes and prompt:
            prefix = self._tokenizer.prefix(prompt)
            size = len(prefix)
            if size >= _MIN_PREFIX and all(len(ids) > size and np.array_equal(ids[:size], prefix) for ids in sequences):
                return prefix
        return _NO_TOKENS

    def get_model_info(self) -> dict[str, Any]:
        """What the model is and how it runs, as plain types; takes no lock and waits for nothing.

        Returns:
            `model_name`, `dimension` (what `embed` returns), `native_dimension`, `max_tokens`, `backend`, `device`,
            `precision`, `quantization` (None where no layer is), `pooling` and `pooling_source` (what said so),
            `prompts` (names), `matryoshka` (whether shorter vectors were trained), `architecture`, `revision`, `path`
            `weight_bytes`, `memory` (bytes that MLX's allocator holds in this process: `active`, `cached` for reuse and
            their `peak`) and `status` ("ready", "loading" again after the owner thread died, "closed" or "failed").
        """
        checkpoint = self._checkpoint
        return {
            "model_name": self._model,
            "dimension": self._dimension,
            "native_dimension": self._facts.dimension,
            "max_tokens": checkpoint.max_tokens,
            "backend": "mlx",
            "device": self._facts.device,
            "precision": self._facts.precision,
            "quantization": checkpoint.quantization_summary,
            "pooling": checkpoint.pooling,
            "pooling_source": checkpoint.pooling_source,
            "prompts": sorted(checkpoint.prompts),
            "matryoshka": self._matryoshka,
            "architecture": checkpoint.model_type,
            "revision": self._revision,
            "path": str(checkpoint.directory),
            "weight_bytes": self._facts.weight_bytes,
            "memory": dict(self._engine.memory),
            "status": self._engine.status,
        }

    def get_metrics(self) -> dict[str, Any]:
        """What the service did since it was created, as plain types; takes no time worth mentioning.

        Returns:
            `calls` by outcome ("completed", "failed", "cancelled", "timed_out", "refused"); `texts`, `truncated_texts`;
            `sequences` computed and `shared_sequences` that were equal to one of them; `batches`, `tokens`;
            `padding_ratio` (share of the computed tokens that was padding) and `batch_fill` (computed tokens by what
            the token budget allows); `queue` with `requests` and `tokens` now; `memory` as in `get_model_info`; and
            `latency_s`, a histogram of each phase: "tokenize", "wait" in the queue, "compute" and "finish" of a step,
            and the whole "call".
        """
        return {
            **self._engine.metrics.snapshot(),
            "queue": self._engine.queue_depth(),
            "memory": dict(self._engine.memory),
        }

    def health_check(self) -> dict[str, Any]:
        """Whether the service can take a call; never raises or waits, even while a forward pass hangs.

        Returns:
            `status`: "ok"; "degraded" while the model loads, the queue is full, or after the owner thread had to be
            replaced; "failed" when it is closed, the owner thread died, or a forward pass hangs. `reason` in words, and
            `engine`, the status in `get_model_info`.
        """
        status, reason = self._engine.health()
        return {"status": status, "reason": reason, "engine": self._engine.status}

    def close(self, drain: bool = False) -> None:
        """Finish the batches that are running, fail the calls that wait, and free the model. Idempotent.

        Args:
            drain: first finish every call that was made, however long that takes; new calls are refused meanwhile.
        """
        self._engine.close(drain)
        self._release()

    @property
    def _matryoshka(self) -> bool:
        return self._record.matryoshka if self._record else self._checkpoint.architecture.matryoshka

    def _checked_options(self, options: EmbedOptions) -> _CallOptions:
        """The options of one call, with their defaults."""
        unknown = set(options) - EmbedOptions.__optional_keys__
        if unknown:
            raise TypeError(
                f"unknown option {', '.join(sorted(unknown))}; known: {', '.join(EmbedOptions.__annotations__)}"
            )
        dimensions = options.get("dimensions")
        normalize = options.get("normalize", True)
        if not isinstance(normalize, bool):
            raise InvalidInputError(f"normalize must be True or False, found {normalize!r}")
        on_overflow = options.get("on_overflow", "truncate")
        if on_overflow not in OVERFLOW_POLICIES:
            raise InvalidInputError(f"on_overflow must be one of {', '.join(OVERFLOW_POLICIES)}, found {on_overflow!r}")
        timeout = options.get("timeout")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, Real) or not timeout > 0):
            raise InvalidInputError(f"timeout must be a number of seconds above 0, or None, found {timeout!r}")
        prompt = choose_prompt(self._checkpoint.prompts, options.get("input_type"), options.get("prompt"))
        check_string("prompt", prompt)
        return _CallOptions(
            dimensions=self._dimension if dimensions is None else self._check_dimensions(dimensions),
            normalize=normalize,
            prompt=prompt,
            on_overflow=on_overflow,
            timeout=timeout,
        )

    def _check_dimensions(self, dimensions: int) -> int:
        native = self._facts.dimension
        if not isinstance(dimensions, int) or isinstance(dimensions, bool) or not 1 <= dimensions <= native:
            raise InvalidInputError(f"dimensions must be an integer from 1 to {native}, found {dimensions!r}")
        if dimensions != native and not self._matryoshka and not self._may_cut_untrained:
            raise InvalidInputError(
                f"dimensions={dimensions}: {self._model} was not trained for vectors shorter than {native} and cutting "
                "them loses quality; insist with Settings(allow_untrained_dimensions=True) or, in the environment, "
                "AKIDB_ALLOW_UNTRAINED_DIMENSIONS=1"
            )
        return dimensions


def _load_model(checkpoint: Checkpoint, device: DeviceName, settings: Settings) -> Model:
    """Runs on the owner thread, where MLX is imported for the first time."""
    cpu_runtime.prepare()
    from akidb_mlx.backends.mlx.device import execution_plan
    from akidb_mlx.backends.mlx.model import EmbeddingModel

    plan = execution_plan(
        device,
        settings.precision,
        settings.token_budget,
        stored_dtype=checkpoint.dtype,
        float16_overflows=checkpoint.architecture.float16_overflows,
        hidden_size=checkpoint.hidden_size,
    )
    return EmbeddingModel(checkpoint, plan)


def _no_vectors(dimensions: int) -> Vectors:
    return np.empty((0, dimensions), dtype=np.float32)


def _slices(texts: list[str]) -> Iterator[list[str]]:
    """The texts in pieces that are tokenised at once."""
    start = characters = 0
    for end, text in enumerate(texts):
        characters += len(text)
        if end - start >= _SLICE_TEXTS or (characters > _SLICE_CHARACTERS and end > start):
            yield texts[start:end]
            start, characters = end, len(text)
    if start < len(texts):
        yield texts[start:]
