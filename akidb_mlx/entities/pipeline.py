"""One spaCy pipeline, of which only the components that entities depend on are loaded and run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from akidb_mlx.deadline import Deadline
from akidb_mlx.entities.entity import Span
from akidb_mlx.entities.models import CONFIG, read_meta
from akidb_mlx.errors import InferenceError, ModelLoadError
from akidb_mlx.runtime.locks import FairLock, hold_until

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

# Components that give others the vectors of tokens.
_EMBEDDERS = frozenset({"tok2vec", "transformer", "curated_transformer"})
# Components that set where sentences begin, which no entity crosses.
_SENTENCES = frozenset({"parser", "beam_parser", "senter", "sentencizer"})
# Components that entities do not depend on.
_UNRELATED = frozenset(
    {"tagger", "morphologizer", "attribute_ruler", "lemmatizer", "trainable_lemmatizer", "entity_linker"}
    | {"textcat", "textcat_multilabel", "spancat", "spancat_singlelabel", "span_finder", "experimental_coref"}
)
# Components that find entities and know their labels.
_FINDERS = frozenset({"ner", "beam_ner", "entity_ruler", "future_entity_ruler", "span_ruler"})
# spaCy's own codes for a factory and for a function that nothing registers.
_NO_CODE = re.compile(r"\[E(002|893)\]")


@dataclass(frozen=True)
class Plan:
    """The components that run, by name.

    Attributes:
        recogniser: the component that finds entities; None where all components run in their order.
        first: the recogniser and the components that it needs.
        sentences: the components before the recogniser that set sentences, without those in `first`.
        excluded: the components that are not loaded.
    """

    recogniser: str | None
    first: frozenset[str]
    sentences: frozenset[str]
    excluded: tuple[str, ...]


def make_plan(config: Mapping[str, Any]) -> Plan:
    """Choose the components to run, by a pipeline's config.cfg.

    Components are left out only where a single recogniser finds the entities and all others are spaCy's own. Rules, a
    beam search or a component of somebody else may look at anything, so such a pipeline runs whole.
    """
    components = config["components"]
    disabled = config["nlp"].get("disabled", [])
    order = [name for name in config["nlp"]["pipeline"] if name not in disabled]
    factories = {name: components[name].get("factory", "") for name in order}
    recognisers = [name for name in order if factories[name] == "ner"]
    if len(recognisers) != 1 or not set(factories.values()) <= {"ner"} | _EMBEDDERS | _SENTENCES | _UNRELATED:
        return Plan(None, frozenset(order), frozenset(), tuple(disabled))
    before = order[: order.index(recognisers[0])]

    def with_sources(names: Sequence[str]) -> frozenset[str]:
        sources = {upstream for name in names for upstream in _upstreams(components[name])}
        return frozenset(names) | {
            name for name in before if factories[name] in _EMBEDDERS and (name in sources or "*" in sources)
        }

    first = with_sources(recognisers)
    sentences = with_sources([name for name in before if factories[name] in _SENTENCES]) - first
    excluded = [name for name in components if name not in first | sentences]
    return Plan(recognisers[0], first, sentences, tuple(excluded))


def _upstreams(section: Any) -> set[str]:
    """Return the components that the listeners anywhere in a section of a config listen to."""
    if not isinstance(section, Mapping):
        return set()
    found = {section["upstream"]} if isinstance(section.get("upstream"), str) else set()
    return found.union(*map(_upstreams, section.values()))


class Pipeline:
    """A loaded pipeline; safe to call from any thread. Threads take turns batch by batch."""

    def __init__(self, directory: Path) -> None:
        """Load the pipeline in a directory.

        Raises:
            ModelLoadError: it finds no entities, is damaged, or needs code that is not installed.
        """
        self.directory = directory
        self.meta = read_meta(directory)
        self._nlp, self._plan = _load(directory, self.meta)
        self.labels = frozenset(
            label
            for name in self._nlp.pipe_names
            if self._nlp.get_pipe_meta(name).factory in _FINDERS
            for label in self._nlp.get_pipe(name).labels  # type: ignore[attr-defined]
        )
        # A pipeline has one vocabulary, to which every text adds words while it is computed.
        self._lock = FairLock()

    @property
    def components(self) -> list[str]:
        """Return the names of the components that were loaded."""
        return list(self._nlp.pipe_names)

    def find(self, texts: list[str], deadline: Deadline) -> list[list[Span]]:
        """Return the entities of each text, in order.

        Raises:
            InferenceError: a component failed.
            DeadlineExceededError: the deadline passed before the thread's turn came.
        """
        with hold_until(deadline, self._lock), self._nlp.memory_zone():
            deadline.check()
            try:
                docs = self._annotate(texts)
            except Exception as error:
                raise InferenceError(
                    f"{self.meta['full_name']} failed on a batch of {len(texts)} texts: {type(error).__name__}: {error}"
                ) from error
            return [[Span(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents] for doc in docs]

    def _annotate(self, texts: list[str]) -> list[Doc]:
        """Return the texts with their entities, which equal those that the whole pipeline finds.

        A recogniser works greedily from left to right, and sentences only forbid an entity to go on into the next one.
        Where no entity of several words does so anyway, the recogniser would have chosen the same with the sentences
        known. So sentences, which cost more than the entities, are set only for texts with entities of several words,
        and the recogniser runs again only where one of them crosses into a new sentence.
        """
        plan = self._plan
        docs = self._run(texts, plan.first)
        if plan.recogniser is None or not plan.sentences:
            return docs
        doubtful = self._run([doc for doc in docs if any(len(entity) > 1 for entity in doc.ents)], plan.sentences)
        crossing = [doc for doc in doubtful if any(token.is_sent_start for entity in doc.ents for token in entity[1:])]
        for doc in crossing:
            doc.set_ents([], default="missing")
        self._run(crossing, {plan.recogniser})
        return docs

    def _run(self, texts: Sequence[str | Doc], components: set[str] | frozenset[str]) -> list[Doc]:
        """Run some components over texts, or over documents that others have annotated."""
        others = [name for name in self._nlp.pipe_names if name not in components]
        return list(self._nlp.pipe(texts, batch_size=max(1, len(texts)), disable=others))


def _load(directory: Path, meta: dict[str, Any]) -> tuple[Language, Plan]:
    import spacy
    from spacy.util import load_config

    name = meta["full_name"]
    try:
        plan = make_plan(load_config(directory / CONFIG))
        nlp = spacy.load(directory, exclude=plan.excluded)
    except Exception as error:  # of any kind, where msgpack, JSON or arrays are damaged
        if isinstance(error, ImportError) or _NO_CODE.search(str(error)):
            fault = f"{name} needs code that is not installed: {_first_line(error)}{_needs(meta)}"
        else:
            fault = f"{directory} cannot be loaded as a spaCy pipeline: {type(error).__name__}: {_first_line(error)}"
        raise ModelLoadError(fault) from error
    if not any(nlp.get_pipe_meta(pipe).factory in _FINDERS for pipe in nlp.pipe_names):
        raise ModelLoadError(
            f"{name} finds no entities: none of its components ({', '.join(nlp.pipe_names) or 'none'}) is one of "
            f"{', '.join(sorted(_FINDERS))}; take another model"
        )
    return nlp, plan


def _needs(meta: Mapping[str, Any]) -> str:
    """Return the advice to install the packages that a pipeline requires."""
    requirements = " ".join(f"'{requirement}'" for requirement in meta.get("requirements") or ())
    return f"; run `pip install {requirements}`" if requirements else ""


def _first_line(error: BaseException) -> str:
    """Return the first line of an error that says something; spaCy's explanations have many."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no details")
