"""`akidb-mlx route`, which trains selectors and routes texts by them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from akidb_mlx.cli.inputs import open_texts
from akidb_mlx.cli.output import is_terminal, report, write_json, write_line, write_rows, write_table
from akidb_mlx.cli.slices import map_slices, progress_bar
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.settings import DeviceName, load_settings
from model_cache import ModelUnavailableError

if TYPE_CHECKING:
    from akidb_mlx.embedder import Embedder
    from akidb_mlx.selection import Evaluation, Record, Route, Selector

# Texts in one call: few enough for the progress bar to move.
_SLICE = 256
# Characters of a text that a person is shown.
_SHOWN_CHARACTERS = 50

route = typer.Typer(help="Choose a label for each text by its embedding: train selectors, and route by them.")

_SelectorFile = Annotated[Path, typer.Argument(help="Selector's file, such as knn_model.json.")]
_Records = Annotated[Path, typer.Argument(help="Records: on each line a JSON object with query, model_name and more.")]
_Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Embedding model. Default: the one that the selector was trained with."),
]
_Device = Annotated[DeviceName | None, typer.Option(envvar="AKIDB_DEVICE", help="Device to compute on.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of all that is random.")]
_Exact = Annotated[
    bool, typer.Option("--exact", help="Read an SVM by scikit-learn's own arrays, which its file must have.")
]
_OneHot = Annotated[
    bool,
    typer.Option(
        "--category-one-hot",
        help="A category follows the embedding. For files that do not say so themselves, as those of vLLM's router.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]


@route.command()
def train(
    context: typer.Context,
    records: _Records,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            envvar="AKIDB_MODEL",
            help="Embedding model, which the file names. Needed if a record has no embedding.",
        ),
    ] = None,
    algorithm: Annotated[
        Literal["knn", "kmeans", "svm", "mlp"], typer.Option("--algorithm", "-a", help="Kind of selector.")
    ] = "knn",
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help='File to write; or a folder, which is there or ends with "/", for the usual name.'
        ),
    ] = ".",
    prompt: Annotated[str | None, typer.Option(help="Prompt to put before each query, here and in routing.")] = None,
    category: Annotated[
        bool, typer.Option("--category", help="Let the record's category follow the embedding, as a one-hot.")
    ] = False,
    hold_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the queries to keep from training, and to evaluate on.")
    ] = 0.0,
    seed: _Seed = 0,
    device: _Device = None,
    as_json: _Json = False,
) -> None:
    """Train a selector on records, and write its file. Hyper-parameters are chosen by cross-validation."""
    from akidb_mlx import selection
    from akidb_mlx.selection.files import output_file

    found = selection.read_records(records)
    target = output_file(output, algorithm)
    source = context.get_parameter_source("model")
    if source is not None and source.name == "ENVIRONMENT" and _have_embeddings(found):
        model = None  # a general setting does not tell where these vectors come from
    held: list[Record] = []
    if hold_out:
        found, held = selection.split_records(found, hold_out, seed)
    with ExitStack() as resources:
        service = resources.enter_context(_open_service(model, device)) if model else None
        with progress_bar("embedding") as bar:
            selector = selection.train(
                found,
                algorithm=algorithm,
                service=service,
                seed=seed,
                prompt=prompt,
                category_one_hot=category,
                progress=bar,
            )
        evaluation = selection.evaluate(selector, held, service=service, seed=seed) if held else None
    path = selector.save(target)
    facts = {"path": str(path), **selector.describe()}
    if as_json:
        write_json({**facts, "evaluation": evaluation.plain() if evaluation else None})
        return
    write_line(f"{path}: {algorithm}, {len(selector.labels)} labels, {_flat(facts['training']['parameters'])}")
    if evaluation:
        _show_evaluation(evaluation)


@route.command("eval")
def evaluate(
    selector: _SelectorFile,
    records: _Records,
    model: _Model = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file to draw the values in.")] = None,
    exact: _Exact = False,
    category_one_hot: _OneHot = False,
    seed: _Seed = 0,
    device: _Device = None,
    as_json: _Json = False,
) -> None:
    """Evaluate a selector on records that it was not trained on, against the best single label, chance and the best."""
    from akidb_mlx import selection
    from akidb_mlx.selection.files import check_writable

    if plot is not None:
        check_writable(plot)
    found = selection.read_records(records)
    one = selection.Selector.load(selector, exact=exact)
    with ExitStack() as resources:
        service = None
        if model or not _have_embeddings(found):
            service = resources.enter_context(_open_service(_model_of(one, model), device))
        with progress_bar("embedding") as bar:
            evaluation = selection.evaluate(
                one, found, service=service, category_one_hot=category_one_hot or None, seed=seed, progress=bar
            )
    if plot is not None:
        plot.write_text(selection.plot_evaluation(evaluation), encoding="utf-8")
    if as_json:
        write_json(evaluation.plain())
    else:
        _show_evaluation(evaluation)


@route.command()
def select(
    selector: _SelectorFile,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to route; without any, each line of standard input is one.")
    ] = None,
    model: _Model = None,
    fallback: Annotated[str | None, typer.Option(help="Label for texts whose margin is below --threshold.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Margin below which the fallback is chosen.")] = None,
    category: Annotated[str | None, typer.Option(help="Category of the texts, for a selector trained with it.")] = None,
    category_one_hot: _OneHot = False,
    exact: _Exact = False,
    device: _Device = None,
    as_json: _Json = False,
) -> None:
    """Choose a label for each text.

    Shows a table with the reasons on a terminal. Into a pipe or a file, writes a line for each text as soon as it is
    routed: the label, the margin and the text, separated by tabs.
    """
    from akidb_mlx import selection

    one = selection.Selector.load(selector, exact=exact)
    source = open_texts(texts, slice_size=_SLICE)
    for_person = is_terminal() and not as_json
    kept: list[tuple[str, Route]] = []
    with _open_service(_model_of(one, model), device) as service:
        router = selection.Router(
            one, service, fallback=fallback, threshold=threshold, category_one_hot=category_one_hot or None
        )

        def work(part: list[str]) -> list[Route]:
            return router.route_batch(part, categories=[category] * len(part))

        for part, routes in map_slices(work, source, bar_label=None if for_person else "routing"):
            if as_json:
                kept += zip(part, routes, strict=True)
            elif for_person:
                _show_routes(part, routes)
            else:
                write_rows(
                    (found.label, f"{found.margin:.6g}", " ".join(text.split()))
                    for text, found in zip(part, routes, strict=True)
                )
    if as_json:
        results = [
            {
                "text": text,
                "label": found.label,
                "scores": found.scores,
                "margin": found.margin if math.isfinite(found.margin) else None,
                "fallback": found.is_fallback,
                "reasons": found.reasons,
            }
            for text, found in kept
        ]
        write_json({"selector": str(selector), "results": results})


@route.command()
def show(selector: _SelectorFile, exact: _Exact = False, as_json: _Json = False) -> None:
    """Show what a selector's file holds."""
    from akidb_mlx.selection import Selector

    facts = {"path": str(selector), **Selector.load(selector, exact=exact).describe()}
    if as_json:
        write_json(facts)
        return
    rows = ((key, "-" if value is None else _flat(value)) for key, value in facts.items())
    write_table(("", ""), rows, header=False)


@route.command()
def pull(
    name: Annotated[str, typer.Argument(help="Repository on the Hub: org/repo or org/repo@revision.")],
    as_json: _Json = False,
) -> None:
    """Download the selectors of a repository into the model cache, and print their files."""
    from akidb_mlx.selection import FILE_NAMES

    cache = load_settings().open_cache()
    try:
        folder = cache.ensure(name, download=False)
    except ModelUnavailableError:
        _check_holds_selector(name, cache.remote_files(name))  # before a model of gigabytes is downloaded
        folder = cache.ensure(name)
    files = [file for file in FILE_NAMES.values() if (folder / file).is_file()]
    _check_holds_selector(name, files)
    files = [str(folder / file) for file in files]
    if as_json:
        write_json({"name": name, "files": files})
    else:
        write_rows((file,) for file in files)


@route.command()
def push(
    selector: _SelectorFile,
    name: Annotated[str, typer.Argument(help="Repository on the Hub, org/repo, which is made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    as_json: _Json = False,
) -> None:
    """Upload a selector to the Hub, under the name that the format gives it."""
    from akidb_mlx.selection import FILE_NAMES, Selector
    from model_cache.upload import push_file

    with Selector.load(selector) as one:  # what cannot be read is not published
        file = FILE_NAMES[one.algorithm]
    address = push_file(selector, name, file, private=private)
    if as_json:
        write_json({"name": name, "file": file, "commit": address})
    else:
        write_line(address)


@contextmanager
def _open_service(model: str, device: DeviceName | None) -> Iterator[Embedder]:
    from akidb_mlx.service import EmbeddingService  # other commands need not wait for it

    with EmbeddingService(model, device=device) as service:
        yield service


def _have_embeddings(records: list[Record]) -> bool:
    return all(record.embedding is not None for record in records)


def _check_holds_selector(name: str, files: Sequence[str]) -> None:
    from akidb_mlx.selection import FILE_NAMES

    if not set(files) & set(FILE_NAMES.values()):
        raise InvalidInputError(f"{name} holds no selector: expected one of {', '.join(FILE_NAMES.values())}")


def _model_of(selector: Selector, model: str | None) -> str:
    if model is not None:
        return model
    if selector.embedding_model is None:
        raise InvalidInputError("the selector's file does not name its embedding model: name it with --model")
    return selector.embedding_model.name


def _show_evaluation(evaluation: Evaluation) -> None:
    from rich.table import Column

    columns: list[str | Column] = ["", Column("value [95 %]", no_wrap=True), Column("performance [95 %]", no_wrap=True)]
    rows: list[tuple[str, ...]] = list(evaluation.rows())
    if is_terminal():
        columns.append("")
        bars = ("█" * round(20 * one.value.mean) for one in evaluation.strategies)
        rows = [(*row, bar) for row, bar in zip(rows, bars, strict=True)]
    write_table(columns, rows)
    report(
        f"{evaluation.queries} queries; the best single label is {evaluation.best_single}; the selector gains "
        f"{evaluation.gain} over it"
    )


def _show_routes(texts: list[str], routes: list[Route]) -> None:
    columns = ("label", "margin", "text", "reasons")
    rows = (
        (found.label, f"{found.margin:.4g}", text[:_SHOWN_CHARACTERS], "; ".join(found.reasons[:3]))
        for text, found in zip(texts, routes, strict=True)
    )
    write_table(columns, rows)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
