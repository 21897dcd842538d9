"""Summarizer, the facade that every caller holds."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from os import PathLike, fspath
from typing import Any, get_args

from akidb_mlx.catalog import SUMMARY_CATALOG
from akidb_mlx.closeable import Closeable
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ServiceClosedError
from akidb_mlx.resolve import acquire_directory, resolve_device
from akidb_mlx.service import EmbeddingService
from akidb_mlx.settings import Settings, SummaryMode, load_settings
from akidb_mlx.summarization.abstractive import AbstractiveSummarizer
from akidb_mlx.summarization.extractive import ExtractiveSummarizer
from akidb_mlx.summarization.generator import TextGenerator
from akidb_mlx.summarization.messages import Message, Progress, read_messages
from akidb_mlx.summarization.sentences import SentenceSplitter
from akidb_mlx.summarization.words import DEFAULT_MAX_WORDS
from model_cache.names import is_commit

# What is loaded where abstractive summaries are asked for and no model is named.
_DEFAULT_MODEL = "qwen3-0.6b-chat-4bit"
_DEFAULT_EMBEDDER = "minilm-l6-v2"


class Summarizer(Closeable):
    """Summarises messages; safe to call from any thread.

        with Summarizer() as summarizer:
            print(summarizer.summarize([{"role": "Ada", "content": "…"}, {"role": "Ben", "content": "…"}]))

    Extractive summaries are sentences of the messages, verbatim and in their order. Abstractive ones are written by a
    language model. Messages are strings or records with the string "content" and who said it in "name", "speaker" or
    "role"; a single string is one message.
    """

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        mode: str | None = None,
        *,
        embedder: EmbeddingService | None = None,
        language: str = "en",
        context_tokens: int | None = None,
        device: str | None = None,
        auto_download: bool = True,
        settings: Settings | None = None,
    ) -> None:
        """Find, check and load what the mode needs; returns when it is ready.

        Args:
            model: the generative model: a name of `akidb_mlx.catalog.SUMMARY_CATALOG`, "org/repo", "org/repo@revision"
                or a local directory; the settings' if None.
            mode: "abstractive", "extractive", or "auto": abstractive where `model` or the settings name a model, else
                extractive. If None, abstractive where `model` is given, else the settings'. Abstractive without a
                model takes "qwen3-0.6b-chat-4bit".
            embedder: the service whose vectors choose sentences for extractive summaries, which is not closed here;
                one of all-MiniLM-L6-v2 if None.
            language: code of the messages' language, whose abbreviations end no sentence; sentences of every language
                are found with any.
            context_tokens: a bound on how many tokens the model is given at once, beside its own and the memory's.
            device: "auto", "gpu" or "cpu"; the settings' if None.
            auto_download: whether a model that is not on this machine may be downloaded.
            settings: instead of those from the environment and the TOML file.

        Raises:
            ModelNotFoundError: the model is not on this machine and was not downloaded.
            ModelLoadError: its files are damaged or not supported.
            ConfigurationError: a setting is not usable, there is no such device, or a package is not installed.
        """
        settings = settings or load_settings()
        self._mode, name = choose_mode(model, mode, settings)
        split = SentenceSplitter(language)
        self._closed = False
        self._model: dict[str, Any] = {}
        # What is given up in reverse; also when the summariser is collected.
        held = ExitStack()
        self._release = weakref.finalize(self, held.close)
        try:
            self._backend: AbstractiveSummarizer | ExtractiveSummarizer
            if self._mode == "extractive":
                service = embedder or held.enter_context(
                    EmbeddingService(_DEFAULT_EMBEDDER, device=device, auto_download=auto_download, settings=settings)
                )
                self._backend = ExtractiveSummarizer(service, split)
            else:
                directory = acquire_directory(held, name, SUMMARY_CATALOG, settings, auto_download)
                revision = directory.name if is_commit(directory.name) else None
                self._model = {"model_name": name, "revision": revision, "path": str(directory)}
                generator = TextGenerator(
                    directory, resolve_device(device, settings), context_tokens, settings.stuck_after_s
                )
                held.callback(generator.close)
                self._backend = AbstractiveSummarizer(generator, split)
        except BaseException:
            self._release()
            raise

    @property
    def mode(self) -> str:
        """How summaries are made: "abstractive" or "extractive"."""
        return self._mode

    def summarize(
        self, messages: Iterable[Any], *, max_words: int = DEFAULT_MAX_WORDS, progress: Progress | None = None
    ) -> str:
        """The summary of messages; "" where they hold nothing.

        Args:
            messages: a string, or strings and records in their order; see the class.
            max_words: most words of the summary, speakers' names included (`akidb_mlx.summarization.words` says what
                a word is). An extractive summary is everything where that is short enough, and the beginning of one
                sentence where no sentence is.
            progress: told how many steps of how many are done: embedded sentences, or answers of the language model,
                of which more may become known.

        Raises:
            InvalidInputError: a message or `max_words` is not usable; `index` holds which message.
            InferenceError: the model wrote nothing, or failed.
            ServiceClosedError: the summariser is closed.
        """
        return "".join(self.stream(messages, max_words=max_words, progress=progress))

    def stream(
        self, messages: Iterable[Any], *, max_words: int = DEFAULT_MAX_WORDS, progress: Progress | None = None
    ) -> Iterator[str]:
        """The summary piece by piece, which together are what `summarize` returns; arguments and errors likewise.

        Abstractive summaries come sentence by sentence as they are written, since a sentence that would exceed
        `max_words` or repeats is left out; extractive ones come at once.
        """
        return self._backend.stream(self._check(messages, max_words), max_words, progress)

    def summarize_batch(
        self,
        conversations: Iterable[Iterable[Any]],
        *,
        max_words: int = DEFAULT_MAX_WORDS,
        progress: Progress | None = None,
    ) -> list[str]:
        """A summary of each conversation, in order; arguments and errors as those of `summarize`.

        The sentences of all conversations share the embedder's batches; a language model takes one after another.
        """
        checked = [self._check(messages, max_words) for messages in conversations]
        return self._backend.summarize_batch(checked, max_words, progress)

    def get_model_info(self) -> dict[str, Any]:
        """What makes the summaries, as plain types; waits for nothing.

        Returns:
            `mode`, `model_name`, `backend`, `device`, `precision`, `quantization`, `revision`, `path`, `weight_bytes`
            and `status`, as those of `EmbeddingService`; of a language model also `context_tokens`, the most tokens of
            a prompt and its answer, and `kv_bytes_per_token`.
        """
        info = {"mode": self._mode, **self._model, **self._backend.info()}
        return {**info, "status": "closed"} if self._closed else info

    def health_check(self) -> dict[str, Any]:
        """Whether the summariser can take a call; never raises.

        Returns:
            `status`, "ok", "degraded" or "failed", and `reason` in words.
        """
        return {"status": "failed", "reason": "closed"} if self._closed else self._backend.health()

    def close(self) -> None:
        """End what is being written and free the models; an embedder that was passed in stays open. Idempotent."""
        self._closed = True
        self._release()

    def _check(self, messages: Iterable[Any], max_words: int) -> list[Message]:
        if self._closed:
            raise ServiceClosedError("the summariser is closed; create a new Summarizer")
        if not isinstance(max_words, int) or isinstance(max_words, bool) or max_words < 1:
            raise InvalidInputError(f"max_words must be an integer of 1 or more, found {max_words!r}")
        return read_messages(messages)


def choose_mode(model: str | PathLike[str] | None, mode: str | None, settings: Settings) -> tuple[str, str]:
    """Return the mode, "abstractive" or "extractive", and the generative model's name, "" where none is needed.

    Raises:
        ConfigurationError: there is no such mode, or it does not go with a generative model.
    """
    if mode is None:
        wanted: str = settings.summary_mode if model is None else "abstractive"
    else:
        wanted = mode
    if wanted not in get_args(SummaryMode):
        raise ConfigurationError(f"mode must be one of {', '.join(get_args(SummaryMode))}, found {wanted!r}")
    if mode == "extractive" and model is not None:
        raise ConfigurationError(
            f"mode 'extractive' takes no generative model, found {fspath(model)!r}: pass an EmbeddingService as "
            "`embedder`, or another mode"
        )
    name = settings.summary_model if model is None else fspath(model)
    if wanted == "extractive" or (wanted == "auto" and name is None):
        return "extractive", ""
    return "abstractive", name or _DEFAULT_MODEL
