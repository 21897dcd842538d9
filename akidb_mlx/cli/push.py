"""`akidb-mlx push`, which uploads a quantised model to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from akidb_mlx.cli.output import write_json, write_line


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of the model.")],
    name: Annotated[str, typer.Argument(help="Repository on the Hub, org/repo, which is made if there is none.")],
    base_model: Annotated[
        str | None, typer.Option(help="Original's repository, org/repo. Default: what the folder says.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--licence", "--license", help="Licence by the Hub's name. Default: the original's, by its card."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Upload a quantised model, with a model card that names its original, its licence and its fidelity.

    A model without a fidelity card is refused.
    """
    from akidb_mlx.quantization.publication import push_model

    address = push_model(folder, name, base_model=base_model, licence=licence, private=private)
    if as_json:
        write_json({"name": name, "commit": address})
    else:
        write_line(address)
