"""The dictionaries in which an EntityExtractor reports its models and its health."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class PipelineInfo(TypedDict):
    """A loaded spaCy pipeline.

    Attributes:
        name: its language and name, as in "en_core_web_sm".
        version: its own version.
        language: code of its language.
        labels: the labels that it finds.
        components: names of the components that are loaded of it.
        licence: the licence that it names, or None.
        path: directory of its files.
    """

    name: str
    version: str
    language: str
    labels: list[str]
    components: list[str]
    licence: str | None
    path: str


class ExtractorInfo(TypedDict):
    """The models of an extractor.

    Attributes:
        model_name: the name that it was asked for by; "auto" where the language of each text chooses.
        language: code of the model's language; "auto" where it is told of each text.
        backend: "spacy".
        backend_version: spaCy's version.
        labels: the labels that the loaded models find.
        models: the loaded models.
        status: "ready" or "closed".
    """

    model_name: str
    language: str | None
    backend: str
    backend_version: str
    labels: list[str]
    models: list[PipelineInfo]
    status: Literal["ready", "closed"]


class ExtractorHealth(TypedDict):
    """The health of an extractor, with the reason where it takes no calls."""

    status: Literal["ok", "failed"]
    reason: str
