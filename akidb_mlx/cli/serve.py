"""`akidb-mlx serve`, which answers requests over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from akidb_mlx.cli.output import report
from akidb_mlx.errors import ConfigurationError
from akidb_mlx.runtime.garbage import no_collection


def serve(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            envvar="AKIDB_SERVE_MODELS",
            help="Model that may be asked for: a catalogue name, org/repo, org/repo@revision, a directory, or "
            "openai:NAME for one of an OpenAI-compatible API. May be repeated.",
        ),
    ] = None,
    rerankers: Annotated[
        list[str] | None,
        typer.Option(
            "--reranker",
            envvar="AKIDB_SERVE_RERANKERS",
            help="Reranker that may be asked for, where its name is none of the catalogue. May be repeated.",
        ),
    ] = None,
    entities: Annotated[
        str | None,
        typer.Option(envvar="AKIDB_SERVE_ENTITIES", help="Model for entities; auto detects the language of each text."),
    ] = None,
    summaries: Annotated[
        str | None,
        typer.Option(
            envvar="AKIDB_SERVE_SUMMARIES",
            help="Generative model for summaries, also openai:NAME, or extractive.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(envvar="AKIDB_SERVE_HOST", help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(envvar="AKIDB_SERVE_PORT", help="Port to listen on; 0 takes a free one.", show_default="8000"),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(envvar="AKIDB_SERVE_API_KEY_FILE", help="File of keys, one a line; it is read again when edited."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="AKIDB_SERVE_CONFIG", help="TOML file with these options and others.")
    ] = None,
    preload: Annotated[
        bool, typer.Option("--preload", envvar="AKIDB_SERVE_PRELOAD", help="Load all models at the start.")
    ] = False,
    allow_no_key: Annotated[
        bool,
        typer.Option("--allow-no-key", envvar="AKIDB_SERVE_ALLOW_NO_KEY", help="Serve other machines without a key."),
    ] = False,
) -> None:
    """Answer requests of OpenAI, Ollama, TEI, Cohere and Jina clients over HTTP."""
    try:
        with no_collection():
            from akidb_mlx.server.app import create_app
            from akidb_mlx.server.config import load_config
            from akidb_mlx.server.serving import allow_many_connections, create_server, listen
    except ImportError as error:
        raise missing_extra(error) from error

    flags = {
        "models": models or None,
        "rerankers": rerankers or None,
        "entities": entities,
        "summaries": summaries,
        "host": host,
        "port": port,
        "api_key_file": api_key_file,
        "preload": preload or None,
        "allow_no_key": allow_no_key or None,
    }
    loaded = load_config(config, flags)
    server = create_server(loaded, create_app(loaded), started=lambda address: report(f"serving at {address}"))
    allow_many_connections()
    with listen(loaded.host, loaded.port) as socket:
        server.run(sockets=[socket])


def missing_extra(error: ImportError) -> ConfigurationError:
    """Return the error for a module of the extra `server` that is not installed."""
    return ConfigurationError(
        f"serving needs {error.name}, which is not installed: run `pip install 'akidb-mlx[server]'`"
    )
