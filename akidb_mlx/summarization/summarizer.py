"""Summarizer, the facade of everything about summaries."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from os import PathLike, fspath
from typing import Any, get_args

from akidb_mlx.closeable import Closeable
from akidb_mlx.deadline import Deadline
from akidb_mlx.embedder import Embedder
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ServiceClosedError
from akidb_mlx.options import is_number, parse_timeout
from akidb_mlx.runtime.finalizers import clean_up_after
from akidb_mlx.service import EmbeddingService
from akidb_mlx.settings import Settings, SummaryMode, load_settings
from akidb_mlx.summarization.abstractive import AbstractiveSummarizer
from akidb_mlx.summarization.extractive import ExtractiveSummarizer
from akidb_mlx.summarization.messages import Message, Progress, parse_messages
from akidb_mlx.summarization.opening import ModelSource, open_chat_model
from akidb_mlx.summarization.reports import SummarizerHealth, SummarizerInfo
from akidb_mlx.summarization.sentences import SentenceSplitter
from akidb_mlx.summarization.words import DEFAULT_MAX_WORDS

# The model of abstractive summaries where none is named.
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
        embedder: Embedder | None = None,
        language: str = "en",
        context_tokens: int | None = None,
        base_url: str | None = None,
        device: str | None = None,
        auto_download: bool = True,
        settings: Settings | None = None,
    ) -> None:
        """Find, check and load what the mode needs; returns when it is ready.

        Args:
            model: the generative model: a name of `akidb_mlx.catalog.SUMMARY_CATALOG`, "org/repo", "org/repo@revision",
                a local directory, a GGUF file or "org/repo:file.gguf", or "openai:NAME" for a model of an
                OpenAI-compatible API; the settings' if None.
            mode: "abstractive", "extractive", or "auto": abstractive where `model` or the settings name a model, else
                extractive. If None, abstractive where `model` is given, else the settings'. Abstractive without a
                model takes "qwen3-0.6b-chat-4bit".
            embedder: its vectors choose the sentences of extractive summaries; it is not closed with the summariser. If
                None, an EmbeddingService of all-MiniLM-L6-v2.
            language: code of the messages' language, whose abbreviations end no sentence; sentences are found in every
                language whatever it is.
            context_tokens: a bound on how many tokens the model is given at once, beside those of the model and the
                memory. That of an API is not known here: 4 096 if None.
            base_url: the API's address, for a model "openai:NAME" only; the settings' if None, else `OPENAI_BASE_URL`.
            device: "auto", "gpu" or "cpu"; the settings' if None.
            auto_download: whether a model that is not on this machine may be downloaded.
            settings: instead of those from the environment and the TOML file.

        Raises:
            ModelNotFoundError: the model is not on this machine and was not downloaded.
            ModelLoadError: its files are damaged or not supported.
            ConfigurationError: a setting is not usable, there is no such device, or a package is not installed.
        """
        settings = settings or load_settings()
        if context_tokens is not None and (not is_number(context_tokens, int) or context_tokens < 1):
            raise InvalidInputError(f"context_tokens must be an integer of 1 or more, found {context_tokens!r}")
        self._mode, name = choose_mode(model, mode, settings)
        split = SentenceSplitter(language)
        self._closed = False
        self._source: ModelSource | None = None
        # The model and its files, released in reverse; also when the summariser is collected.
        resources = ExitStack()
        self._release = resources.close
        try:
            self._backend: AbstractiveSummarizer | ExtractiveSummarizer
            if self._mode == "extractive":
                if base_url is not None:
                    raise ConfigurationError("base_url goes with a model 'openai:NAME', and none is named")
                chosen = embedder or resources.enter_context(
                    EmbeddingService(
                        _DEFAULT_EMBEDDER,
                        device=device,
                        auto_download=auto_download,
                        settings=settings.without_dimensions(),
                    )
                )
                self._backend = ExtractiveSummarizer(chosen, split)
            else:
                chat_model, self._source = open_chat_model(
                    resources,
                    name,
                    base_url=base_url,
                    context_tokens=context_tokens,
                    device=device,
                    auto_download=auto_download,
                    settings=settings,
                )
                self._backend = AbstractiveSummarizer(chat_model, split)
        except BaseException:
            resources.close()
            raise
        clean_up_after(self, resources.close)

    @property
    def mode(self) -> str:
        """Return how summaries are made: "abstractive" or "extractive"."""
        return self._mode

    def summarize(
        self,
        messages: Iterable[Any],
        *,
        max_words: int = DEFAULT_MAX_WORDS,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Summarise messages; the summary is "" where they hold nothing.

        Args:
            messages: a string, or strings and records in their order; see the class.
            max_words: most words of the summary, speakers' names included (`akidb_mlx.summarization.words` defines
                a word). An extractive summary is all of the messages where they are short enough, and the beginning of
                one sentence where no sentence is.
            timeout: seconds that the call may take, counted from the call; None (default) waits. It is looked at while
                sentences are found and messages tokenised, and bounds embedding, waiting for the language model and
                each of its tokens, so that the caller leaves in time also where a forward pass hangs. What has not run
                is dropped.
            progress: called with how many steps are done and how many there are: embedded sentences, or answers of the
                language model, of which more may become known.

        Raises:
            InvalidInputError: a message, `max_words` or `timeout` is not usable; `index` holds which message.
            InferenceError: the model wrote nothing, or failed.
            DeadlineExceededError: `timeout` passed.
            ServiceClosedError: the summariser is closed.
            ReentrantCallError: the call would wait for the thread that it was made on.
        """
        return "".join(self.stream(messages, max_words=max_words, timeout=timeout, progress=progress))

    def stream(
        self,
        messages: Iterable[Any],
        *,
        max_words: int = DEFAULT_MAX_WORDS,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Iterator[str]:
        """Yield the summary piece by piece; arguments, errors and the whole text are those of `summarize`.

        Abstractive summaries come sentence by sentence as they are written, since a sentence that would exceed
        `max_words` or repeats is left out; extractive ones come as one piece. The time that the caller takes between
        pieces counts, too.
        """
        deadline = Deadline(parse_timeout(timeout))
        return self._backend.stream(self._parse(messages, max_words), max_words, progress, deadline)

    def summarize_batch(
        self,
        conversations: Iterable[Iterable[Any]],
        *,
        max_words: int = DEFAULT_MAX_WORDS,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        """Return a summary of each conversation, in order; arguments and errors are those of `summarize`.

        The sentences of all conversations share the embedder's batches; a language model takes one after another.
        `timeout` is one for all conversations.
        """
        deadline = Deadline(parse_timeout(timeout))
        given = [self._parse(messages, max_words) for messages in conversations]
        return self._backend.summarize_batch(given, max_words, progress, deadline)

    def get_model_info(self) -> SummarizerInfo:
        """Report the model that makes the summaries, as plain types; waits for nothing."""
        info: SummarizerInfo = {"mode": self._mode, **self._backend.info()}
        if self._source is not None:
            info = {**info, **self._source}
        return {**info, "status": "closed"} if self._closed else info

    def health_check(self) -> SummarizerHealth:
        """Report whether a call can be taken; never raises or waits."""
        return {"status": "failed", "reason": "closed"} if self._closed else self._backend.health()

    def close(self) -> None:
        """End what is being written and free the models; an embedder that was passed in stays open. Idempotent."""
        self._closed = True
        self._release()

    def __repr__(self) -> str:
        info = self.get_model_info()
        model = reprlib.repr(info.get("model_name"))
        return f"<{type(self).__name__} {model}: {self._mode}, {info['status']}>"

    def _parse(self, messages: Iterable[Any], max_words: int) -> list[Message]:
        if self._closed:
            raise ServiceClosedError("the summariser is closed; create a new Summarizer")
        if not isinstance(max_words, int) or isinstance(max_words, bool) or max_words < 1:
            raise InvalidInputError(f"max_words must be an integer of 1 or more, found {reprlib.repr(max_words)}")
        return parse_messages(messages)


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
            f"mode 'extractive' takes no generative model, found {fspath(model)!r}: leave it out, or take another mode"
        )
    name = settings.summary_model if model is None else fspath(model)
    if wanted == "extractive" or (wanted == "auto" and name is None):
        return "extractive", ""
    return "abstractive", name or _DEFAULT_MODEL
