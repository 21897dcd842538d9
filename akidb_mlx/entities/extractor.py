"""EntityExtractor, the facade of everything about entities."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import count
from os import PathLike, fspath

from akidb_mlx.closeable import Closeable
from akidb_mlx.deadline import NEVER, Deadline
from akidb_mlx.entities.entity import Entity, Span, make_entities
from akidb_mlx.entities.languages import DEFAULT_MODEL, MULTILINGUAL, LanguageDetector, model_for
from akidb_mlx.entities.models import acquire_pipeline
from akidb_mlx.entities.pipeline import Pipeline
from akidb_mlx.entities.reports import ExtractorHealth, ExtractorInfo, PipelineInfo
from akidb_mlx.entities.windows import batches, windows
from akidb_mlx.errors import (
    ConfigurationError,
    InvalidInputError,
    ModelLoadError,
    ModelNotFoundError,
    ServiceClosedError,
)
from akidb_mlx.options import parse_timeout
from akidb_mlx.runtime.abandonment import run_until
from akidb_mlx.runtime.locks import ExclusiveLock, hold_until
from akidb_mlx.settings import Settings, load_settings
from akidb_mlx.texts import list_texts

AUTO = "auto"
# Pipelines that are kept loaded where texts come in many languages; a small one takes some 50 MB.
_MOST_LOADED = 8


class EntityExtractor(Closeable):
    """Finds named entities with a spaCy model; safe to call from any thread.

        with EntityExtractor("en_core_web_sm") as extractor:
            entities = extractor.extract("Alice met Bob in Paris")

    Threads take turns batch by batch, so a short call does not wait for the end of a long one.
    """

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        language: str | None = None,
        *,
        labels: Iterable[str] | None = None,
        auto_download: bool = True,
        settings: Settings | None = None,
    ) -> None:
        """Find and load a model; returns when it is ready.

        Args:
            model: the name of a model ("en_core_web_sm"), "org/repo" on the Hub, or a local directory. If None, the
                language's, else the settings', else `en_core_web_sm`.
            language: a code ("cs", "pt-BR") that the model is chosen for, or "auto" to detect the language of each
                text and load its model when it is needed. With a `model`, the language that it must be for.
            labels: entities with other labels are left out; None keeps all.
            auto_download: whether a model that is not on this machine may be downloaded.
            settings: instead of those from the environment and the TOML file.

        Raises:
            ModelNotFoundError: the model is not on this machine and was not downloaded; the message says how to get it.
            ModelLoadError: it is damaged, finds no entities, or needs code that is not installed.
            ConfigurationError: the extra `ner` is not installed, or model and language do not go together.
            InvalidInputError: the model has no such label.
        """
        settings = settings or load_settings()
        if model is None and language is None:
            model, language = settings.ner_model, settings.ner_language
        self._model = _choose_model(model, language)
        self._language = language
        self._labels = None if labels is None else parse_labels(labels)
        self._cache = settings.open_cache()
        self._download = auto_download
        self._process = os.getpid()
        self._closed = False
        self._loading = ExclusiveLock()
        self._loaded: dict[str, Pipeline] = {}
        # For each loaded pipeline, the number of its latest use.
        self._uses = count()
        self._last_use: dict[str, int] = {}
        self._detect: LanguageDetector | None = None
        _check_importable("spacy")
        if language == AUTO:
            _check_importable("py3langid")
            self._detect = LanguageDetector()
            return
        found = self._pipeline(self._model, NEVER).meta["lang"]
        if language is not None and found not in (model_for(language).language, MULTILINGUAL.language):
            raise ConfigurationError(
                f"{self._model} is a model for {found!r}, found language={language!r}: leave out one of them"
            )

    def extract(self, text: str, *, timeout: float | None = None) -> list[Entity]:
        """Return the entities of a text, in order; none of a blank one. See `extract_batch`."""
        return self.extract_batch([text], timeout=timeout)[0]

    def extract_batch(self, texts: Iterable[str], *, timeout: float | None = None) -> list[list[Entity]]:
        """Return the entities of each text, in order; they do not overlap.

        A text of any length is read in windows of 12 000 characters, cut between sentences or words where it has any,
        that share some context; an entity at a cut is found whole.

        Args:
            texts: strings; an empty collection gives an empty result.
            timeout: seconds that the call may take, counted from the call; None (default) waits. It bounds loading a
                model, which then goes on for later calls, and waiting for the batches of other callers, and is checked
                before each batch. A batch that runs, of at most 12 000 characters, is not interrupted.

        Raises:
            InvalidInputError: a text is not usable, and so the call (`index` holds which), or `timeout` is not.
            ModelNotFoundError: `language` is "auto" and there is no model for a text's (`index` holds which); likewise
                ModelLoadError if it cannot be used.
            InferenceError: a component of the model failed.
            DeadlineExceededError: `timeout` passed.
            ServiceClosedError: the extractor was closed, or created before this process was forked.
            ReentrantCallError: a signal handler called it while the same thread was inside it.
        """
        deadline = Deadline(parse_timeout(timeout))
        self._check_open()
        given = list_texts(texts)
        spans: list[list[Span]] = [[] for _ in given]
        for model, indices in self._group_by_model(given, deadline).items():
            pipeline = self._pipeline(model, deadline, indices[0])
            for batch in batches(windows((index, given[index]) for index in indices)):
                found = pipeline.find([given[part.index][part.start : part.stop] for part in batch], deadline)
                for part, inside in zip(batch, found, strict=True):
                    part.take(inside, spans[part.index])
        return [
            make_entities(text, [span for span in found if self._labels is None or span.label in self._labels])
            for text, found in zip(given, spans, strict=True)
        ]

    def get_model_info(self) -> ExtractorInfo:
        """Report the model, as plain types; takes no lock and waits for nothing."""
        models: list[PipelineInfo] = [
            {
                "name": pipeline.meta["full_name"],
                "version": pipeline.meta["version"],
                "language": pipeline.meta["lang"],
                "labels": sorted(pipeline.labels),
                "components": pipeline.components,
                "licence": pipeline.meta.get("license"),
                "path": str(pipeline.directory),
            }
            for pipeline in list(self._loaded.values())
        ]
        return {
            "model_name": self._model,
            "language": models[0]["language"] if self._detect is None and models else self._language,
            "backend": "spacy",
            "backend_version": version("spacy"),
            "labels": sorted({label for model in models for label in model["labels"]}),
            "models": models,
            "status": "closed" if self._closed else "ready",
        }

    def health_check(self) -> ExtractorHealth:
        """Report whether a call can be taken; never raises or waits."""
        try:
            self._check_open()
        except ServiceClosedError as error:
            return {"status": "failed", "reason": str(error)}
        return {"status": "ok", "reason": ""}

    def close(self) -> None:
        """Free the models; calls that run are finished. Idempotent."""
        self._closed = True
        self._loaded.clear()

    def __repr__(self) -> str:
        status = "closed" if self._closed else "ready"
        return f"<{type(self).__name__} {reprlib.repr(self._model)}: {len(self._loaded)} loaded, {status}>"

    def _group_by_model(self, texts: list[str], deadline: Deadline) -> dict[str, list[int]]:
        """Return the indices of the texts that each model reads."""
        if self._detect is None:
            return {self._model: list(range(len(texts)))} if texts else {}
        groups: dict[str, list[int]] = {}
        for index, text in enumerate(texts):
            if text and not text.isspace():
                deadline.check()
                groups.setdefault(self._detect(text).model, []).append(index)
        return groups

    def _pipeline(self, model: str, deadline: Deadline, index: int | None = None) -> Pipeline:
        """Return a pipeline, which is loaded if need be; `index` is that of the first text that needs it."""
        pipeline = self._loaded.get(model) or run_until(deadline, partial(self._load, model, deadline, index))
        self._last_use[model] = next(self._uses)
        return pipeline

    def _load(self, model: str, deadline: Deadline, index: int | None) -> Pipeline:
        with hold_until(deadline, self._loading):
            if pipeline := self._loaded.get(model):
                return pipeline
            try:
                with acquire_pipeline(model, self._cache, download=self._download) as directory:
                    pipeline = Pipeline(directory)
                self._check_labels(pipeline)
            except (ModelNotFoundError, ModelLoadError, InvalidInputError) as error:
                if self._detect is None:
                    raise
                raise type(error)(f"text {index} needs {model}: {error}", index) from error
            latest_first = sorted(self._loaded.copy(), key=lambda name: self._last_use[name], reverse=True)
            for name in latest_first[_MOST_LOADED - 1 :]:
                self._loaded.pop(name, None)
            self._last_use[model] = next(self._uses)
            self._loaded[model] = pipeline
            if self._closed:  # meanwhile; the call that waits for the pipeline is finished with it
                self._loaded.clear()
            return pipeline

    def _check_labels(self, pipeline: Pipeline) -> None:
        """Refuse a model without the wanted labels; one of several languages' must have one of them."""
        unknown = (self._labels or frozenset()) - pipeline.labels
        if unknown and (self._detect is None or unknown == self._labels):
            raise InvalidInputError(
                f"{pipeline.meta['full_name']} has no label {', '.join(map(repr, sorted(unknown)))}; it has "
                f"{', '.join(sorted(pipeline.labels))}"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ServiceClosedError("the EntityExtractor is closed: create another")
        if os.getpid() != self._process:
            # Another thread may have held the pipeline, half-way through a batch, when the process was forked.
            raise ServiceClosedError(
                "the EntityExtractor was created before this process was forked: create one in each process"
            )


def parse_labels(labels: Iterable[str]) -> frozenset[str]:
    """Return labels as a set; a single string is one label.

    Raises:
        InvalidInputError: they are no strings, or none.
    """
    if isinstance(labels, str):
        return frozenset([labels])
    given = list(labels) if isinstance(labels, Iterable) else []
    if not given or not all(isinstance(label, str) for label in given):
        raise InvalidInputError(f"labels must be a list of strings, or None for all, found {reprlib.repr(labels)}")
    return frozenset(given)


def _choose_model(model: str | PathLike[str] | None, language: str | None) -> str:
    if model is None:
        if language is None:
            return DEFAULT_MODEL
        return AUTO if language == AUTO else model_for(language).model
    if language == AUTO:
        raise ConfigurationError(f"language='auto' chooses a model for each text: leave out model={fspath(model)!r}")
    return fspath(model)


def _check_importable(package: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        raise ConfigurationError(
            f"entities need {package}, which cannot be imported ({error}): run `pip install 'akidb-mlx[ner]'`"
        ) from error
