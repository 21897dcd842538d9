"""`akidb-mlx quantize`, which writes a model in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from akidb_mlx.cli.output import report, write_json, write_line, write_table
from akidb_mlx.cli.slices import progress_bar

if TYPE_CHECKING:
    from akidb_mlx.quantization import QuantizationReport

# Layers that stay as they are which a person is shown; the rest are counted.
_SHOWN_LAYERS = 5


def quantize(
    source: Annotated[str, typer.Argument(help="Catalogue name, org/repo, org/repo@revision or directory of a model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, which must not be there.")],
    bits: Annotated[int | None, typer.Option(help="Bits of a number: 2, 3, 4, 5, 6 or 8. Default: 4.")] = None,
    group_size: Annotated[
        int | None, typer.Option(help="Numbers that share a scale: 32, 64 or 128. Default: 64.")
    ] = None,
    mode: Annotated[
        Literal["affine", "mxfp4", "mxfp8", "nvfp4"],
        typer.Option(help="Form of the numbers. All but affine have bits and groups of their own."),
    ] = "affine",
    recipe: Annotated[
        str | None, typer.Option(help="More bits for some layers: mixed-2-6, mixed-3-4, mixed-3-6 or mixed-4-6.")
    ] = None,
    target_size: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Search the bits of each layer: weights of at most so many bytes."),
    ] = None,
    target_cosine: Annotated[
        float | None,
        typer.Option(metavar="C", help="Search the bits of each layer: mean cosine to the original's vectors."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Texts to calibrate on: lines, or a JSON array. Targets take the package's own without it.",
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option(help="Compare the vectors, and write the fidelity card and known answers.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Write a quantised copy of an encoder or a reranker, with all its other files."""
    from akidb_mlx.fidelity.texts import read_texts
    from akidb_mlx.quantization import quantize_model

    texts = None if calibrate is None else read_texts(calibrate).texts
    with _stages() as tell:
        done = quantize_model(
            source,
            output,
            bits=bits,
            group_size=group_size,
            mode=mode,
            recipe=recipe,
            target_size=target_size,
            target_cosine=target_cosine,
            texts=texts,
            card=card,
            progress=tell,
        )
    if as_json:
        write_json(done.plain())
    else:
        _show(done)


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int | None], None]]:
    """Lend a function that shows how far each stage is, with a progress bar of its own."""
    with ExitStack() as shown:
        current: str | None = None
        bar: Callable[[int, int | None], None] | None = None

        def tell(stage: str, done: int, total: int | None) -> None:
            nonlocal current, bar
            if stage != current:
                shown.close()
                current, bar = stage, shown.enter_context(progress_bar(stage))
            if bar is not None:
                bar(done, total)

        yield tell


def _show(done: QuantizationReport) -> None:
    write_line(str(done.directory))
    rows = [
        (
            "weights",
            f"{_megabytes(done.weight_bytes)}, {done.weight_bytes / done.original_bytes:.0%} of the original's",
        ),
        ("bits per weight", f"{done.bits_per_weight:.2f} where packed"),
        *(("packing", f"{packing}: {count} matrices") for packing, count in done.packings.items()),
    ]
    if done.calibration_cosine is not None:
        texts = f"{done.calibration_texts} calibration texts"
        rows.append(("search", f"mean cosine {done.calibration_cosine:.5f} on {texts}, before errors are made up for"))
    if done.card is not None:
        rows.append(("fidelity", done.card.summary))
    write_table(("", ""), rows, header=False)
    kept = [f"{layer} {reason}" for layer, reason in done.kept.items()]
    if kept:
        more = f"; and {len(kept) - _SHOWN_LAYERS} more" if len(kept) > _SHOWN_LAYERS else ""
        report(f"kept as they are, beside norms and biases: {'; '.join(kept[:_SHOWN_LAYERS])}{more}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
