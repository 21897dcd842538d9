"""`akidb-mlx summarize`, which summarises messages."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from akidb_mlx.cli.inputs import read_content
from akidb_mlx.cli.output import write_json, write_text
from akidb_mlx.cli.slices import progress_bar
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.settings import DeviceName, SummaryMode
from akidb_mlx.summarization.words import DEFAULT_MAX_WORDS, count_words


def summarize(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Messages; without any and without files, standard input is one message.")
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", help="File to read as one message; - is standard input. May be repeated."),
    ] = None,
    messages: Annotated[
        bool,
        typer.Option(
            "--messages",
            help="Read files and standard input as JSON: an array of messages, or one message on each line.",
        ),
    ] = False,
    mode: Annotated[
        SummaryMode | None,
        typer.Option(
            help="Kind of summary; auto is abstractive if a model is named.", show_default="AKIDB_SUMMARY_MODE"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Name, org/repo or directory of the language model, or openai:NAME for one of an OpenAI-compatible "
            "API.",
            show_default="AKIDB_SUMMARY_MODEL",
        ),
    ] = None,
    max_words: Annotated[
        int, typer.Option("--max-words", "-w", min=1, help="Maximum number of words.")
    ] = DEFAULT_MAX_WORDS,
    language: Annotated[str, typer.Option("--language", "-l", help="Language code of the messages.")] = "en",
    base_url: Annotated[
        str | None,
        typer.Option(help="Address of the API, for a model openai:NAME.", show_default="AKIDB_OPENAI_BASE_URL"),
    ] = None,
    device: Annotated[DeviceName | None, typer.Option(envvar="AKIDB_DEVICE", help="Device to compute on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Summarise messages.

    Extractive summaries are sentences of the messages; abstractive ones are written by a language model and shown as
    they are written. A message in JSON is a string or {"role": …, "content": …}.
    """
    from akidb_mlx.summarization import Summarizer  # other commands need not wait for it

    read = _read_messages(texts or [], files or [], messages)
    with (
        Summarizer(model, mode, language=language, base_url=base_url, device=device) as summarizer,
        ExitStack() as waiting,
    ):
        info = summarizer.get_model_info()
        progress = waiting.enter_context(progress_bar("summarising"))
        pieces: list[str] = []
        for piece in summarizer.stream(read, max_words=max_words, progress=progress):
            waiting.close()  # the bar, which the summary replaces
            pieces.append(piece)
            if not as_json:
                write_text(piece)
    summary = "".join(pieces)
    if as_json:
        result = {"mode": info["mode"], "model": info["model_name"], "messages": len(read)}
        write_json({**result, "words": count_words(summary), "summary": summary})
    else:
        write_text("\n")


def _read_messages(texts: list[str], files: list[Path], as_json: bool) -> list[Any]:
    contents = [read_content(file) for file in files] if files or texts else [read_content()]
    if as_json:
        return [*texts, *(message for content in contents for message in _parse(content))]
    return [*texts, *contents]


def _parse(content: str) -> list[Any]:
    """Return the messages of a JSON array, or of JSON lines."""
    try:
        if content.lstrip().startswith("["):
            parsed: list[Any] = json.loads(content)
            return parsed
        return [json.loads(line) for line in content.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"--messages expects a JSON array, or JSON on each line: {error}") from error
