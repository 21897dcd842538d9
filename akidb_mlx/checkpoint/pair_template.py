"""Templates that make one text of a query and a document, for rerankers that are language models."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from akidb_mlx.checkpoint.files import is_file, read_optional_json
from akidb_mlx.checkpoint.jinja import template_environment
from akidb_mlx.errors import ModelLoadError

# The pairs that a template is tried with; each half differs from the first pair's in one of them.
_TRIALS = (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))


class PairTemplate(Protocol):
    """Makes the text that a language model reads."""

    def render(self, prompt: str, query: str, document: str) -> str:
        """Return one text; an empty prompt is none.

        Raises:
            Exception: a template that a checkpoint holds refused the pair.
        """
        ...


@dataclass(frozen=True)
class QwenTemplate:
    """The format that the model card of Qwen/Qwen3-Reranker-0.6B shows; the prompt is its instruction."""

    def render(self, prompt: str, query: str, document: str) -> str:
        """Return one text."""
        instruction = prompt or "Given a web search query, retrieve relevant passages that answer the query"
        return (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
            f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )


class ChatTemplate:
    """A chat template, rendered as transformers does, with messages of the roles that CrossEncoder gives a pair."""

    def __init__(self, path: Path, source: str, form: str, arguments: Mapping[str, Any]) -> None:
        """Compile a template, and try it.

        Args:
            path: its file, for errors.
            source: the template, in Jinja.
            form: "structured" for messages whose content is a list of parts, "flat" for strings.
            arguments: what the template is given beside the messages.

        Raises:
            ModelLoadError: Jinja is not installed, or the template is malformed or ignores a half of the pair.
        """
        try:
            environment = template_environment()
        except ImportError as error:
            raise ModelLoadError(
                f"{path}: the model frames pairs by a template of its own, which needs Jinja: pip install "
                "'akidb-mlx[rerank]'"
            ) from error
        self._structured = form == "structured"
        self._arguments = {"tools": None, "documents": None, "add_generation_prompt": False, **arguments}
        try:
            self._template = environment.from_string(source)
            first, *others = [self.render("", query, document) for query, document in _TRIALS]
        except Exception as error:
            raise ModelLoadError(
                f"{path}: the chat template cannot be used for pairs: {type(error).__name__}: {str(error)[:200]}"
            ) from error
        for role, other in zip(("query", "document"), others, strict=True):
            if other == first:
                raise ModelLoadError(f"{path}: the chat template ignores messages of the role {role!r}, as of a pair")

    def render(self, prompt: str, query: str, document: str) -> str:
        """Return one text; the prompt is a message of the system."""
        contents = {"query": query, "document": document}
        if prompt:
            contents = {"system": prompt, **contents}
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if self._structured else text}
            for role, text in contents.items()
        ]
        return self._template.render(messages=messages, **self._arguments)


def find_template(directory: Path) -> tuple[Path, str] | None:
    """Return the chat template of a tokenizer and its file; None where it has none.

    Raises:
        ModelLoadError: it cannot be read, or there are several and none is the default.
    """
    path = directory / "chat_template.jinja"
    if is_file(path):
        try:
            return path, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelLoadError(f"{path} cannot be read: {error}") from error
    path = directory / "tokenizer_config.json"
    template = read_optional_json(path).get("chat_template")
    if isinstance(template, list):
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise ModelLoadError(f"{path}: chat_template must be a string, found {reprlib.repr(template)}")
    return None if template is None else (path, template)


def message_format(template: str) -> str:
    """Return the form of messages that a template takes, by the words that sentence-transformers looks for in it."""
    structured = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
    return "structured" if any(part in template for part in structured) else "flat"
