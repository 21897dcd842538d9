"""The part that sparse and multi-vector models have in common: a model with an engine that reads queries and documents.

Their results have other shapes than vectors of one size, so they are no `Embedder`.
"""

from __future__ import annotations

import reprlib
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

from akidb_mlx.catalog import ALL_MODELS, Task
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.multi_vector_head import Role
from akidb_mlx.checkpoint.prompts import choose_prompt
from akidb_mlx.checkpoint.tokenizer import TokenizedText
from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.errors import AkidbMlxError, InvalidInputError
from akidb_mlx.loading import RunningModel
from akidb_mlx.options import OverflowPolicy, parse_timeout
from akidb_mlx.reports import TextModelInfo
from akidb_mlx.settings import Settings
from akidb_mlx.texts import check_string, expected_tokens, list_texts, slices
from akidb_mlx.vectors import TokenIds

_Batch = TypeVar("_Batch")


class TextModel(RunningModel, Generic[_Batch]):
    """A model of queries and documents on an engine of its own; safe to call from any thread."""

    def __init__(
        self,
        model_name: str | PathLike[str],
        task: Task,
        read: Callable[[Path], Checkpoint],
        *,
        device: str | None,
        backend: str,
        auto_download: bool,
        settings: Settings | None,
    ) -> None:
        """Find, check and load a model; returns when it is ready.

        Args:
            model_name: a catalogue name, "org/repo" or "org/repo@revision" on the Hub, or a local directory.
            task: what the model computes.
            read: reads a model's directory.
            device: "auto", "gpu" or "cpu"; the settings' if None.
            backend: the library that computes: "mlx", or "auto" to choose.
            auto_download: whether a model that is not on this machine may be downloaded.
            settings: instead of those from the environment and the TOML file.

        Raises:
            ModelNotFoundError: the model is not on this machine and was not downloaded.
            ModelLoadError: its files are damaged, not supported, or not those of such a model.
            ConfigurationError: a setting is not usable, or there is no such device or backend.
            InvalidInputError: another argument is not usable.
        """
        with self._opening(
            model_name,
            task,
            ALL_MODELS,
            device=device,
            backend=backend,
            auto_download=auto_download,
            settings=settings,
        ) as opening:
            self._directory = opening.directory
            self._start(opening, read(opening.directory))
            self._prepare()  # while the engine loads the weights
            self._facts = self._engine.wait_until_loaded()

    @property
    def dimension(self) -> int:
        """Return the size of a vector."""
        return self._facts.dimension

    def get_model_info(self) -> TextModelInfo:
        """Report the model and how it runs, as plain types; takes no lock and waits for nothing."""
        return {
            **self._describe(self._checkpoint.prompts, None),
            "dimension": self._facts.dimension,
            "path": str(self._directory),
        }

    def __repr__(self) -> str:
        try:
            info = self.get_model_info()
        except AttributeError:  # its constructor failed
            return f"<{type(self).__name__}, not loaded>"
        name = reprlib.repr(info["model_name"])
        return f"<{type(self).__name__} {name}: {info['dimension']} dimensions, {info['status']}>"

    @abstractmethod
    def _prepare(self) -> None:
        """Load the tokenizers."""

    @abstractmethod
    def _read(
        self, texts: list[str], prompt: str, role: Role, on_overflow: OverflowPolicy, first: int, deadline: Deadline
    ) -> tuple[list[TokenizedText], BatchKey]:
        """Return the tokens of texts of a call, the first of index `first`, and what they have in common."""

    def _submit(
        self,
        texts: Iterable[str],
        role: Role,
        finish: Callable[[list[Any], list[TokenizedText], int], list[Any]],
        combine: Callable[[list[Any], list[int], list[bool]], _Batch],
        options: Mapping[str, Any],
    ) -> Future[_Batch]:
        """Check and tokenise texts now, while the first of them may already run.

        Args:
            texts: the texts of the call.
            role: which of the model's prompts stands before them, unless the options have another.
            finish: makes a part of the result of the rows of some texts, the first of which has the given index.
            combine: makes the result of its parts, the token counts, and whether each text was cut.
            options: `prompt`, `on_overflow` and `timeout`, the first two checked.
        """
        deadline = Deadline(parse_timeout(options.get("timeout")))
        self._engine.check_open()
        given = list_texts(texts)
        prompt = choose_prompt(self._checkpoint.prompts, role, options.get("prompt"))
        read: list[TokenizedText] = []

        def combine_all(parts: list[Any]) -> _Batch:
            return combine(parts, [text.token_count for text in read], [text.truncated for text in read])

        opened = self._engine.open_call(combine_all, expected_tokens(given, prompt), deadline)
        try:
            for part in slices(given):
                if opened.future.done():
                    break
                first, began = len(read), time.monotonic()
                on_overflow = options.get("on_overflow", "truncate")
                tokenized, key = self._read(part, prompt, role, on_overflow, first, deadline)
                self._engine.metrics.observe("tokenize", time.monotonic() - began)
                truncated = sum(text.truncated for text in tokenized)
                self._engine.metrics.count({"texts": len(part), "truncated_texts": truncated})
                read += tokenized
                sequences: list[TokenIds] = [window for text in tokenized for window in text.windows]
                owners = [index for index, text in enumerate(tokenized, first) for _ in text.windows]
                finish_part = partial(_finish, finish, tokenized, first)
                opened.add(sequences, owners, key, finish_part, expected_tokens(part, prompt))
            opened.end()
        except AkidbMlxError as error:
            opened.fail(error)
            raise
        except BaseException:
            opened.cancel()
            raise
        return opened.future


def _finish(
    finish: Callable[[list[Any], list[TokenizedText], int], list[Any]],
    read: list[TokenizedText],
    first: int,
    rows: list[Any],
) -> list[Any]:
    """Make the part of a result of its rows, which come last."""
    return finish(rows, read, first)


def check_text_options(options: Mapping[str, Any], known: Iterable[str], policies: Iterable[str]) -> None:
    """Check the options that sparse and multi-vector calls have in common.

    Args:
        options: of one call.
        known: their names.
        policies: the values of `on_overflow` that the model takes.

    Raises:
        InvalidInputError: a value is not usable; the message names the option.
        TypeError: there is no such option.
    """
    if unknown := set(options) - set(known):
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    prompt, on_overflow = options.get("prompt"), options.get("on_overflow", "truncate")
    if prompt is not None:
        if not isinstance(prompt, str):
            raise InvalidInputError(f"prompt must be a string, found {type(prompt).__name__}")
        check_string("prompt", prompt)
    if on_overflow not in policies:
        raise InvalidInputError(f"on_overflow must be one of {', '.join(policies)}, found {reprlib.repr(on_overflow)}")
