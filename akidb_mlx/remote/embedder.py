"""OpenAIEmbedder, the embedder whose model another server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Future

from typing_extensions import Unpack

from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.embedder import Embedder, wait_for
from akidb_mlx.engine.metrics import Metrics
from akidb_mlx.errors import (
    ConfigurationError,
    InvalidInputError,
)
from akidb_mlx.options import (
    CallOptions,
    DimensionRange,
    EmbedOptions,
    parse_dimensions,
    parse_options,
    parse_timeout,
)
from akidb_mlx.quantized import quantize
from akidb_mlx.remote.access import PREFIX, Access, parse_model_name
from akidb_mlx.remote.api import Api
from akidb_mlx.remote.batches import Limits, check_lengths, estimate_tokens
from akidb_mlx.remote.calls import PROBE, RemoteCall
from akidb_mlx.remote.embeddings import EmbeddingsApi
from akidb_mlx.remote.loop_thread import LoopThread
from akidb_mlx.remote.prompts import parse_prompts, translate
from akidb_mlx.remote.waiting import WaitingCalls
from akidb_mlx.reports import Health, ModelInfo, ServiceMetrics
from akidb_mlx.runtime.finalizers import clean_up_after
from akidb_mlx.runtime.process import CLOSE_TIMEOUT_S
from akidb_mlx.settings import Settings, load_settings
from akidb_mlx.texts import list_texts
from akidb_mlx.vectors import EmbeddingBatch

logger = logging.getLogger(__name__)


class OpenAIEmbedder(Embedder):
    """Turns texts into vectors with a model behind an OpenAI-compatible API; safe to call from any thread.

        with OpenAIEmbedder("openai:nomic-embed-text", base_url="http://localhost:11434/v1", prompts={}) as embedder:
            vectors = embedder.embed(["Hello, world!"])

    Calls and options are those of `EmbeddingService`; an option that the API cannot honour is refused by name. Each
    call sends requests of its own, so that a text that the API refuses fails no other call.
    """

    def __init__(
        self,
        model_name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        prompts: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        max_concurrent: int = 4,
        max_retries: int = 4,
        request_timeout_s: float = 60.0,
        settings: Settings | None = None,
    ) -> None:
        """Ask the API for one vector, which tells the model's dimension and that address, name and key are right.

        Args:
            model_name: the API's name of the model, with or without "openai:" before it.
            base_url: the API's address before "/embeddings"; the settings' if None, else `OPENAI_BASE_URL`, else
                OpenAI's.
            api_key: the key; `OPENAI_API_KEY` if None. An API other than OpenAI's may need none.
            dimensions: how many values a vector has unless a call says otherwise; the settings' if None, else as many
                as the API gives by itself.
            prompts: the texts that the model wants before others, by name, as in {"query": "query: "}; {} for a model
                without any. If None, `input_type` is refused, unless the model is one of OpenAI's or the API is
                akidb-mlx's server, which knows its models' prompts.
            limits: of the API; OpenAI's if None.
            max_concurrent: most requests that run at once, of all calls.
            max_retries: how often a request is sent again after it failed.
            request_timeout_s: seconds after which an attempt without an answer has failed.
            settings: instead of those from the environment and the TOML file. Its bounds on waiting calls and tokens
                hold here, too.

        Raises:
            ConfigurationError: the extra `openai` is not installed, the address or the key is not usable, or the API
                refuses the key.
            ModelNotFoundError: the API has no such model.
            InvalidInputError: another argument is not usable, or `dimensions` not with this model.
            RemoteServiceError: the API cannot be reached, or fails.
            ServiceOverloadedError: the API takes no requests now.
            InferenceError: the API answered with something that is not a vector.
        """
        self._name = parse_model_name(model_name)
        parse_dimensions(dimensions, DimensionRange(default=1, native=None, cuttable=True, model=self._name))
        self._prompts = parse_prompts(prompts, self._name)
        self._limits = limits or Limits()
        self._settings = settings or load_settings()
        self._metrics = Metrics()
        self._api = Api(
            Access(base_url or self._settings.openai_base_url, api_key),
            self._name,
            self._metrics,
            max_concurrent=max_concurrent,
            max_retries=max_retries,
            request_timeout_s=request_timeout_s,
        )
        self._embeddings = EmbeddingsApi(self._api, self._name)
        self._loop = LoopThread(self._api.close)
        self._waiting = WaitingCalls(self._loop, self._metrics, self._settings, self._api.address)
        try:
            self._native, self._is_akidb = self._probe()
            self._dimension = self._choose_dimension(dimensions)
        except BaseException:
            self.close()
            raise
        clean_up_after(self, self._loop.stop)
        if self._embeddings.answered_by not in (None, self._name):
            logger.info("%s%s is answered by the model %s", PREFIX, self._name, self._embeddings.answered_by)

    def submit(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Future[EmbeddingBatch]:
        """Check texts and options now, and send requests on a thread of the embedder's; see `embed_detailed`.

        Returns:
            A future. Cancelling it ends its requests. Callbacks added to it run on the embedder's thread: they must be
            short, and a call that waits is refused there.

        Raises:
            InvalidInputError: a text or an option is not usable, or cannot be honoured by this API.
            ServiceOverloadedError: too many calls or tokens wait.
            ServiceClosedError: the embedder is closed, or this process was forked from the one that created it.
        """
        deadline = Deadline(parse_timeout(options.get("timeout")))
        self._loop.check_open()
        given = list_texts(texts)
        call = self.parse_options(options)
        prompt, fields = translate(call, self._prompts, self._name, self._native, self._is_akidb)
        if prompt:
            given = [prompt + text for text in given]
        sizes = [estimate_tokens(text) for text in given]
        if not self._is_akidb:
            check_lengths(sizes, self._limits, self._name)
        tokens = sum(sizes)
        self._waiting.admit(tokens)
        work = RemoteCall(self._embeddings, self._limits, given, sizes, fields, call.dimensions, deadline)
        return self._waiting.start(self._embed(work, call, deadline), tokens, deadline)

    def parse_options(self, options: EmbedOptions) -> CallOptions:
        """Check the options of one call, and fill in the defaults; see `Embedder`.

        The API itself decides about `dimensions` that are smaller than the model's own.

        Raises:
            InvalidInputError: a value is not usable, or an option cannot be honoured over an API.
            TypeError: there is no such option.
        """
        call = parse_options(options, DimensionRange(self._dimension, self._native, True, self._name))
        if not call.normalize:
            raise InvalidInputError(
                "normalize=False cannot be honoured over an API, which may have normalised its vectors already: leave "
                "it out"
            )
        if call.on_overflow != "truncate" and not self._is_akidb:
            raise InvalidInputError(
                f"on_overflow={call.on_overflow!r} cannot be honoured by this API, which alone decides about texts "
                "that are too long: leave it out, and set limits=Limits(max_text_tokens=…)"
            )
        return call

    def get_model_info(self) -> ModelInfo:
        """Report the model, as plain types; what only the API knows is "unknown". Waits for nothing."""
        return {
            "model_name": PREFIX + self._name,
            "dimension": self._dimension,
            "native_dimension": self._native,
            "max_tokens": self._limits.max_text_tokens,
            "backend": "openai",
            "device": "remote",
            "precision": "unknown",
            "allow_tf32": False,
            "quantization": None,
            "pooling": "unknown",
            "pooling_source": "the API",
            "matryoshka": self._name.startswith("text-embedding-3-"),
            "fidelity": None,
            "prompts": list(self._prompts or ()),
            "default_prompt": None,
            "architecture": "unknown",
            "revision": None,
            "path": self._api.address,
            "weight_bytes": 0,
            "memory": {"active": 0, "cached": 0, "peak": 0},
            "status": "ready" if self._loop.is_open else "closed",
        }

    def get_metrics(self) -> ServiceMetrics:
        """Report the work that was done since the embedder was created: batches are requests, also repeated ones."""
        return {
            **self._metrics.report(),
            "queue": {"requests": self._loop.running, "tokens": self._waiting.tokens},
            "memory": {"active": 0, "cached": 0, "peak": 0},
        }

    def health_check(self) -> Health:
        """Report the outcome of the latest request; sends none, never raises and waits for nothing."""
        if not self._loop.is_open:
            reason = "this process was forked from the one that has it" if self._loop.is_forked else "closed"
            return {"status": "failed", "reason": reason, "engine": "closed"}
        if self._api.last_failure is not None:
            return {"status": "degraded", "reason": self._api.last_failure, "engine": "ready"}
        if self._loop.running >= self._settings.max_queued_requests:
            return {"status": "degraded", "reason": "the queue is full", "engine": "ready"}
        return {"status": "ok", "reason": "ready", "engine": "ready"}

    def close(self, drain: bool = False) -> None:
        """End the requests that run, and close the connections. Idempotent.

        Args:
            drain: first finish every call that was made, however long that takes; new calls are refused meanwhile.
        """
        if drain:
            self._loop.drain()
        self._loop.stop()
        if not self._loop.join(CLOSE_TIMEOUT_S):
            logger.warning("the requests that run did not end within %.0f s", CLOSE_TIMEOUT_S)

    async def _embed(self, work: RemoteCall, call: CallOptions, deadline: Deadline) -> EmbeddingBatch:
        try:
            vectors, counts, truncated = await asyncio.wait_for(work.run(), deadline.left())
        except asyncio.TimeoutError:
            raise deadline.error() from None
        self._metrics.count(
            {
                "texts": len(counts),
                "truncated_texts": sum(truncated),
                "sequences": len(counts),
                "tokens": sum(counts),
                "padded_tokens": sum(counts),
                "capacity": sum(counts),
            }
        )
        return EmbeddingBatch(
            vectors=quantize(vectors, call.output_dtype, call.ranges),
            token_counts=counts,
            truncated=truncated,
            model=PREFIX + self._name,
            dimension=call.dimensions,
        )

    def _probe(self) -> tuple[int, bool]:
        """Return the model's own dimension, and whether the API is akidb-mlx's server."""
        answer = wait_for(lambda: self._loop.start(self._embeddings.ask([PROBE], {}, None, NEVER)), None)
        return answer.vectors.shape[1], answer.token_counts is not None

    def _choose_dimension(self, dimensions: int | None) -> int:
        """Return how many values a vector has unless a call says otherwise, once the API has given one."""
        chosen = self._settings.dimensions if dimensions is None else dimensions
        try:
            size = parse_dimensions(chosen, DimensionRange(self._native, self._native, True, self._name))
            if size != self._native:
                fields = {"dimensions": size}
                wait_for(lambda: self._loop.start(self._embeddings.ask([PROBE], fields, size, NEVER)), None)
        except InvalidInputError as error:
            if dimensions is None:
                raise ConfigurationError(
                    f"the setting dimensions (AKIDB_DIMENSIONS) does not fit {self._name}: {error}"
                ) from error
            raise
        return size
