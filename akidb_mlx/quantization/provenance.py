"""The origin of a quantised model, as a file beside it, for its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from akidb_mlx.catalog import find_record
from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.errors import ModelLoadError
from model_cache.names import is_commit

PROVENANCE = "akidb_quantization.json"


class Provenance(BaseModel):
    """The origin of a quantised model.

    Attributes:
        version: of the format.
        base_model: the original's repository on the Hub; None for a folder of nobody knows which.
        revision: its commit, or None.
        licence: the licence that the catalogue states; None where the original is not in it.
        software: the program that quantised it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    version: Literal[1] = 1
    base_model: str | None = Field(max_length=200)
    revision: str | None = Field(max_length=200)
    licence: str | None = Field(max_length=200)
    software: str = Field(max_length=200)

    @classmethod
    def of(cls, name: str, directory: Path, program_version: str) -> Self:
        """Return the origin of a model that was asked for by a name and found in a directory."""
        record = find_record(name)
        asked = None if Path(name).is_dir() else name.partition("@")[0]
        return cls(
            base_model=record.repo_id if record else asked,
            revision=directory.name if is_commit(directory.name) else None,
            licence=record.licence if record else None,
            software=f"akidb-mlx {program_version}",
        )


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write the file into a model's folder."""
    (folder / PROVENANCE).write_text(provenance.model_dump_json(indent=1) + "\n", "utf-8")


def read_provenance(folder: Path) -> Provenance | None:
    """Read the file beside a model; return None where there is none.

    Raises:
        ModelLoadError: it is none that this version writes.
    """
    path = folder / PROVENANCE
    if not is_file(path):
        return None
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelLoadError(f"{path} is not usable: {str(error)[:200]}; quantise the model again") from error
