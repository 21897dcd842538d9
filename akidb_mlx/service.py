"""EmbeddingService, the embedder that loads a model into this process."""

from __future__ import annotations

import logging
import reprlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
from typing_extensions import Never, Unpack

from akidb_mlx.catalog import CATALOG, find_record
from akidb_mlx.checkpoint.checkpoint import Checkpoint, read_checkpoint
from akidb_mlx.checkpoint.prompts import choose_prompt, choose_prompts, choose_route, read_default_prompt_name
from akidb_mlx.checkpoint.purpose import check_is_embedder
from akidb_mlx.checkpoint.static_tokenizer import PackedTexts, StaticTokenizer
from akidb_mlx.checkpoint.tokenizer import TextTokenizer, Token, TokenizedText
from akidb_mlx.deadline import Deadline
from akidb_mlx.embedder import Embedder
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.engine.batching import MIN_PREFIX
from akidb_mlx.engine.life import EngineCall
from akidb_mlx.errors import AkidbMlxError, ConfigurationError, InvalidInputError
from akidb_mlx.fidelity.checking import check_answers
from akidb_mlx.fidelity.report import report_card
from akidb_mlx.fidelity.shipped import find_answers
from akidb_mlx.loading import RunningModel, parse_name
from akidb_mlx.options import (
    CallOptions,
    DimensionRange,
    EmbedOptions,
    parse_dimensions,
    parse_options,
    parse_timeout,
    refuse_arguments,
)
from akidb_mlx.quantized import OutputVectors, quantize
from akidb_mlx.remote.opening import is_remote, open_remote
from akidb_mlx.reports import ModelInfo
from akidb_mlx.settings import Settings
from akidb_mlx.texts import expected_tokens, list_texts, slices
from akidb_mlx.vectors import EmbeddingBatch, TokenIds, Vectors, finish_vectors

logger = logging.getLogger(__name__)

_NO_TOKENS: TokenIds = np.empty(0, np.int32)


class EmbeddingService(RunningModel, Embedder):
    """Turns texts into vectors with one model; safe to call from any thread.

        with EmbeddingService("minilm-l6-v2") as service:
            vectors = service.embed(["Hello, world!"])

    The model's weights live on a thread of their own, which also runs every forward pass, in batches that the calls of
    all threads share. A service that is closed, or that was created before this process was forked, raises
    `ServiceClosedError`.
    """

    def __new__(cls, model_name: object = None, *arguments: object, **options: Any) -> Any:
        """Create a service, or for "openai:NAME" an `OpenAIEmbedder`, which has the same calls."""
        return open_remote(model_name, *arguments, **options) if is_remote(model_name) else super().__new__(cls)

    def __init__(
        self,
        model_name: str | PathLike[str],
        *,
        dimensions: int | None = None,
        device: str | None = None,
        backend: str | None = None,
        onnx_file: str | None = None,
        auto_download: bool = True,
        base_url: str | None = None,
        settings: Settings | None = None,
        **unknown: Never,
    ) -> None:
        """Find, check and load a model; returns when it is ready. A bad argument is refused before any file is read.

        Args:
            model_name: a catalogue name, "org/repo" or "org/repo@revision" on the Hub, or a local directory; a GGUF
                file, or "org/repo:file.gguf"; "openai:NAME" for a model of an OpenAI-compatible API, which makes an
                `OpenAIEmbedder`.
            dimensions: how many values a vector has unless a call says otherwise; the settings' if None, else the
                catalogue's default.
            device: "auto", "gpu" or "cpu"; the settings' if None.
            backend: the library that computes, "mlx", "onnx" or "llama.cpp", or "auto" to choose; the settings' if
                None.
            onnx_file: the name of the model's ONNX file, as in "model_fp16.onnx", which asks for ONNX Runtime; the
                settings' if None, else the exported one, else "model.onnx".
            auto_download: whether a model that is not on this machine may be downloaded.
            base_url: the API's address, for a model "openai:NAME" only; the settings' if None, else `OPENAI_BASE_URL`.
            settings: instead of those from the environment and the TOML file.
            **unknown: refused by name.

        Raises:
            ModelNotFoundError: the model is not on this machine and was not downloaded.
            ModelLoadError: its files are damaged or not supported, or it does not compute its known answers.
            ConfigurationError: a setting is not usable, or there is no such device or backend.
            InvalidInputError: another argument is not usable, or `dimensions` not with this model.
            TypeError: there is no such argument; the message names what took the place of the first package's.
        """
        refuse_arguments(unknown)
        name = parse_name(model_name)
        if base_url is not None:
            raise InvalidInputError(f"base_url goes with a model 'openai:NAME', found {reprlib.repr(name)}")
        parse_dimensions(dimensions, DimensionRange(default=1, native=None, cuttable=True, model=name))
        self._record = CATALOG.get(name)
        with self._opening(
            name,
            "embedding",
            CATALOG,
            device=device,
            backend=backend,
            onnx_file=onnx_file,
            auto_download=auto_download,
            settings=settings,
        ) as opening:
            directory, settings = opening.directory, opening.settings
            self.allow_untrained_dimensions = settings.allow_untrained_dimensions
            if opening.gguf_file is not None:
                from akidb_mlx.checkpoint.gguf_model import read_gguf

                checkpoint = read_gguf(opening.gguf_file)
            else:
                checkpoint = read_checkpoint(directory, weights=opening.onnx_file is None)
            # A directory may have the name of a repository; only one of the cache is called after its commit.
            card = self._record or (find_record(name) if self._revision is not None else None)
            if card is None and not settings.allow_unstated_pooling:
                check_is_embedder(checkpoint)
            self._prompts = choose_prompts(checkpoint.prompts, card.prompts if card else {})
            self._default_prompt = None
            if opening.gguf_file is None:
                self._default_prompt = read_default_prompt_name(directory, self._prompts)
            self._start(opening, checkpoint)
            self._tokenizers = _load_tokenizers(checkpoint)  # while the engine loads the weights
            self._facts = self._engine.wait_until_loaded()
            sizes = DimensionRange(self._facts.dimension, self._facts.dimension, self._cuttable, name)
            self._dimension = self._choose_dimension(dimensions, settings, sizes)
            self._fidelity = report_card(directory)
            if answers := find_answers(directory, card) if settings.known_answers else None:
                check_answers(self, answers)
        if self._default_prompt is not None:
            logger.warning(
                "%s: its files ask for the prompt %r by default, which is applied only where input_type names it",
                name,
                self._default_prompt,
            )

    def submit(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Future[EmbeddingBatch]:
        """Check and tokenise texts now, while the first of them may already run; see `embed_detailed`.

        Returns:
            A future. Cancelling it drops what has not run; it can be cancelled until it is done. Callbacks added to it
            run on the thread that owns the model: they must be short, and a call that waits is refused there.
        """
        return self._submit(texts, options, isolated=False)

    def submit_isolated(self, texts: Iterable[str], **options: Unpack[EmbedOptions]) -> Future[EmbeddingBatch]:
        """Begin to embed texts in batches that hold no text of another call; see `submit`.

        The last bits of a vector depend on the texts of its batch. Here they depend on the texts of this call only, so
        the same call gives the same bits again, whatever runs beside it. Isolated calls run one after another, each
        once all of it is tokenised: keep two or three under way.
        """
        return self._submit(texts, options, isolated=True)

    def _submit(self, texts: Iterable[str], options: EmbedOptions, isolated: bool) -> Future[EmbeddingBatch]:
        deadline = Deadline(parse_timeout(options.get("timeout")))
        self._engine.check_open()
        given = list_texts(texts)
        call = self.parse_options(options)
        prompt = choose_prompt(self._prompts, call.input_type, call.prompt)
        route = choose_route(self._checkpoint.routes, call.input_type)
        token_counts: list[int] = []
        truncated: list[bool] = []

        def combine(parts: list[Vectors]) -> EmbeddingBatch:
            return EmbeddingBatch(
                vectors=parts[0] if len(parts) == 1 else np.concatenate([_no_vectors(call), *parts]),
                token_counts=token_counts,
                truncated=truncated,
                model=self._model_name,
                dimension=call.dimensions,
            )

        opened = self._engine.open_call(combine, expected_tokens(given, prompt), deadline, isolated)
        try:
            for part in slices(given):
                if opened.future.done():
                    break
                counts, cut = self._add(opened, part, len(token_counts), call, prompt, route, deadline)
                token_counts += counts
                truncated += cut
            opened.end()
        except AkidbMlxError as error:
            opened.fail(error)
            raise
        except BaseException:
            opened.cancel()
            raise
        return opened.future

    def tokenize(
        self,
        texts: Iterable[str],
        *,
        input_type: str | None = None,
        add_special_tokens: bool = True,
        timeout: float | None = None,
    ) -> list[list[Token]]:
        """Return the tokens of each text, in order and not cut.

        Args:
            texts: strings.
            input_type: the prompt that goes before each, as in `EmbedOptions`.
            add_special_tokens: whether the special tokens around a text are returned, too.
            timeout: seconds that the call may take; None waits.

        Raises:
            InvalidInputError: a text or an option is not usable.
            DeadlineExceededError: `timeout` passed.
            ServiceClosedError: the service takes no more calls.
        """
        deadline = Deadline(parse_timeout(timeout))
        self._engine.check_open()
        prompt = choose_prompt(self._prompts, input_type, None)
        tokenizer = self._tokenizers[choose_route(self._checkpoint.routes, input_type)]
        return tokenizer.tokens([prompt + text for text in list_texts(texts)], add_special_tokens, deadline)

    def _add(
        self,
        opened: EngineCall,
        texts: list[str],
        first: int,
        call: CallOptions,
        prompt: str,
        route: str,
        deadline: Deadline,
    ) -> tuple[list[int], list[bool]]:
        """Tokenise some texts of a call, the first of index `first`, and queue them.

        Returns:
            For each text, how many tokens the model reads, and whether it was cut.
        """
        began = time.monotonic()
        tokenizer = self._tokenizers[route]
        read: PackedTexts | list[TokenizedText]
        if isinstance(tokenizer, StaticTokenizer):
            read = tokenizer.pack(texts, prompt, call.on_overflow, first, deadline)
            windows, token_counts, truncated = read.windows, read.token_counts, read.truncated
        else:
            read = tokenizer(texts, prompt, call.on_overflow, first, deadline)
            windows = [[len(window) for window in text.windows] for text in read]
            token_counts, truncated = [text.token_count for text in read], [text.truncated for text in read]
        self._engine.metrics.observe("tokenize", time.monotonic() - began)
        self._engine.metrics.count({"texts": len(texts), "truncated_texts": sum(truncated)})
        finish = partial(_finish, windows=windows, call=call, first=first)
        owners = [first + index for index, counts in enumerate(windows) for _ in counts]
        expected = expected_tokens(texts, prompt)
        if isinstance(read, PackedTexts):
            opened.add_packed(read.ids, read.lengths, owners, finish, expected)
            return token_counts, truncated
        sequences = [window for text in read for window in text.windows]
        unpooled = 0
        if not self._checkpoint.heads[route].pooling.include_prompt:
            unpooled = tokenizer.prompt_length(prompt, deadline)
            _check_pooled(sequences, owners, unpooled)
        prefix = self._shared_prefix(tokenizer, sequences, prompt, deadline)
        opened.add(
            [ids[len(prefix) :] for ids in sequences],
            owners,
            BatchKey(prefix.tobytes(), unpooled, route),
            finish,
            expected,
        )
        return token_counts, truncated

    def _shared_prefix(
        self, tokenizer: TextTokenizer, sequences: list[TokenIds], prompt: str, deadline: Deadline
    ) -> TokenIds:
        """Return the tokens of the prompt that the model should compute once for all sequences, or none."""
        if self._facts.shares_prefixes and prompt:
            prefix = tokenizer.prefix(prompt, deadline)
            size = len(prefix)
            if size >= MIN_PREFIX and all(len(ids) > size and np.array_equal(ids[:size], prefix) for ids in sequences):
                return prefix
        return _NO_TOKENS

    def parse_options(self, options: EmbedOptions) -> CallOptions:
        """Check the options of one call against the model, and fill in the defaults; see `Embedder`."""
        sizes = DimensionRange(self._dimension, self._facts.dimension, self._cuttable, self._model_name)
        return parse_options(options, sizes)

    def get_model_info(self) -> ModelInfo:
        """Report the model and how it runs, as plain types; takes no lock and waits for nothing."""
        return {
            **self._describe(self._prompts, self._default_prompt),
            "dimension": self._dimension,
            "native_dimension": self._facts.dimension,
            "pooling": self._checkpoint.pooling,
            "pooling_source": self._checkpoint.pooling_source,
            "matryoshka": self._matryoshka,
            "fidelity": self._fidelity,
        }

    def _choose_dimension(self, dimensions: int | None, settings: Settings, sizes: DimensionRange) -> int:
        """Return how many values a vector has unless a call says otherwise."""
        if dimensions is None and settings.dimensions is not None:
            try:
                return parse_dimensions(settings.dimensions, sizes)
            except InvalidInputError as error:
                raise ConfigurationError(
                    f"the setting dimensions (AKIDB_DIMENSIONS) does not fit {sizes.model}: {error}"
                ) from error
        if dimensions is None and self._record is not None:
            dimensions = self._record.dimensions
        if dimensions is None and self._checkpoint.truncate_dim is not None:
            dimensions = min(self._checkpoint.truncate_dim, self._facts.dimension)
        return parse_dimensions(dimensions, sizes)

    @property
    def _matryoshka(self) -> bool:
        if self._record is not None:
            return self._record.matryoshka
        return self._checkpoint.architecture.matryoshka or self._checkpoint.truncate_dim is not None

    @property
    def _cuttable(self) -> bool:
        return self._matryoshka or self.allow_untrained_dimensions


def _load_tokenizers(checkpoint: Checkpoint) -> dict[str, TextTokenizer | StaticTokenizer]:
    """Return the tokenizer of each route; the routes of one encoder have the same."""
    tokenizers: dict[str, TextTokenizer | StaticTokenizer] = {}
    for encoder in checkpoint.encoders:
        tokenizer: TextTokenizer | StaticTokenizer
        if encoder.gguf is not None:
            from akidb_mlx.backends.llama_cpp.tokenizer import GgufTokenizer

            tokenizer = GgufTokenizer(encoder)
        else:
            tokenizer = TextTokenizer(encoder) if encoder.static is None else StaticTokenizer(encoder)
        tokenizers |= dict.fromkeys(encoder.heads, tokenizer)
    return tokenizers


def _check_pooled(sequences: list[TokenIds], owners: list[int], unpooled: int) -> None:
    """Refuse a text of which the pooling would take no token."""
    for ids, index in zip(sequences, owners, strict=True):
        if len(ids) <= unpooled:
            raise InvalidInputError(
                f"text {index} has no token left beside its prompt of {unpooled}, which this model does not pool: use "
                "another prompt, or none",
                index,
            )


def _finish(pooled: Vectors, windows: Sequence[Sequence[int]], call: CallOptions, first: int) -> OutputVectors:
    """Make vectors of the caller's size, length and type of those that the model computed."""
    vectors = finish_vectors(pooled, windows, call.dimensions, call.normalize, first)
    return quantize(vectors, call.output_dtype, call.ranges)


def _no_vectors(call: CallOptions) -> OutputVectors:
    return quantize(np.empty((0, call.dimensions), np.float32), call.output_dtype, call.ranges)
