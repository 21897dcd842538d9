"""`akidb-mlx rerank`, which orders documents by how well they answer a query."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from akidb_mlx.cli.inputs import open_texts
from akidb_mlx.cli.output import is_terminal, report, write_json, write_rows, write_table
from akidb_mlx.cli.slices import map_slices
from akidb_mlx.errors import AkidbMlxError
from akidb_mlx.options import OverflowPolicy
from akidb_mlx.settings import DeviceName

if TYPE_CHECKING:
    from akidb_mlx.reranking import Reranker, ScoreBatch
    from akidb_mlx.reranking.options import RerankOptions

# Documents in one call: enough to sort by length with profit, few enough for the progress bar to move.
_SLICE = 256
# Characters of a document that a person is shown.
_SHOWN_CHARACTERS = 60


def rerank(
    query: Annotated[str, typer.Argument(help="Query that the documents are to answer.")],
    documents: Annotated[
        list[str] | None, typer.Argument(help="Documents to order; without any, each line of standard input is one.")
    ] = None,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Catalogue name, org/repo, org/repo@revision or directory of the reranker."),
    ] = "ms-marco-minilm-l6-v2",
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", help="File to read as one document; - is standard input. May be repeated."),
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", help="Number of documents to show.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Prompt before the query, or instruction to a language model.")
    ] = None,
    on_overflow: Annotated[
        OverflowPolicy, typer.Option(help="Treatment of a query and document that are too long for the model.")
    ] = "truncate",
    device: Annotated[DeviceName | None, typer.Option(envvar="AKIDB_DEVICE", help="Device to compute on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Order documents by how well they answer a query.

    Shows a table on a terminal, the best document first. Into a pipe or a file, writes a line for each: its number,
    from 0 on, its score and its text, separated by tabs.
    """
    from akidb_mlx.reranking import Reranker  # other commands need not wait for it
    from akidb_mlx.reranking.options import parse_top_k

    most = parse_top_k(top_k)
    options: RerankOptions = {"prompt": prompt, "on_overflow": on_overflow}
    source = open_texts(documents, files, slice_size=_SLICE)
    texts: list[str] = []
    scores: list[float] = []
    cut = 0
    with Reranker(model, device=device) as reranker:
        work = partial(_score, reranker, query, options)
        for part, batch in map_slices(work, source, bar_label="reranking"):
            texts += part
            scores += batch.scores.tolist()
            cut += sum(batch.truncated)
    order = sorted(range(len(texts)), key=lambda index: scores[index], reverse=True)[:most]
    if as_json:
        results = [{"index": index, "score": scores[index], "document": texts[index]} for index in order]
        write_json({"model": model, "query": query, "results": results})
    elif is_terminal():
        _show(order, scores, texts)
    else:
        write_rows((str(index), f"{scores[index]:.6g}", " ".join(texts[index].split())) for index in order)
    if cut:
        report(f"{cut} of {len(texts)} documents were cut to the model's limit (see --on-overflow)")


def _score(reranker: Reranker, query: str, options: RerankOptions, documents: list[str]) -> ScoreBatch:
    """Score some documents; an error names a document as the other commands name a text."""
    reranker.check_orders()
    try:
        return reranker.score_detailed([(query, document) for document in documents], **options)
    except AkidbMlxError as error:
        if error.index is None:
            raise
        message = str(error).replace(f"pair {error.index}", f"text {error.index}", 1)
        raise type(error)(message, error.index) from error


def _show(order: list[int], scores: list[float], texts: list[str]) -> None:
    from rich.table import Column

    columns = (
        Column("score", justify="right"),
        Column("number", justify="right"),
        Column("document", no_wrap=True),
    )
    rows = ((f"{scores[index]:.4f}", str(index), texts[index][:_SHOWN_CHARACTERS]) for index in order)
    write_table(columns, rows)
