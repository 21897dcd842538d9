"""The options of a job, and their check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import OVERFLOW_POLICIES, OverflowPolicy, is_number, shown

BulkFormat = Literal["parquet", "npy"]
BulkDtype = Literal["float32", "float16", "int8", "binary"]
NullPolicy = Literal["skip", "error"]
BulkEngine = Literal["local", "ray"]

DEFAULT_SHARD_ROWS = 16384
DEFAULT_MAX_REJECTED = 1000
# The column of row numbers, where no column of the input is named.
ROW_ID = "id"
# The columns that a shard adds.
ADDED_COLUMNS = ("embedding", "token_count", "truncated")


@dataclass(frozen=True)
class BulkOptions:
    """All that decides what a job writes, and how it treats bad rows; see `embed_files`."""

    column: str
    id_column: str | None
    keep: tuple[str, ...]
    format: BulkFormat
    dtype: BulkDtype
    dimensions: int | None
    input_type: str | None
    on_overflow: OverflowPolicy
    shard_rows: int
    on_null: NullPolicy
    max_rejected: int

    @property
    def columns(self) -> list[str]:
        """Return the columns of the input that a shard holds."""
        return [name for name in (self.id_column, *self.keep) if name is not None]

    @property
    def recorded(self) -> dict[str, Any]:
        """Return those that decide the bytes of the shards, as the manifest holds them."""
        return {
            "column": self.column,
            "id_column": self.id_column,
            "keep": list(self.keep),
            "format": self.format,
            "dtype": self.dtype,
            "dimensions": self.dimensions,
            "input_type": self.input_type,
            "on_overflow": self.on_overflow,
            "shard_rows": self.shard_rows,
        }


def parse_bulk_options(
    *,
    column: str,
    id_column: str | None,
    keep: Sequence[str],
    format: str,  # noqa: A002 - the option's name
    dtype: str,
    dimensions: int | None,
    input_type: str | None,
    on_overflow: str,
    shard_rows: int,
    on_null: str,
    max_rejected: int,
) -> BulkOptions:
    """Check options; `dimensions` and `input_type` are checked against the model later.

    Raises:
        InvalidInputError: one is not usable; the message names it.
    """
    if isinstance(keep, str):
        raise InvalidInputError(f"keep must be a list of columns, found {shown(keep)}")
    for name, value in (("column", column), ("id_column", id_column), *(("keep", one) for one in keep)):
        if not (isinstance(value, str) and value) and not (name == "id_column" and value is None):
            raise InvalidInputError(f"{name} must be the name of a column, found {shown(value)}")
    named = [*keep, ROW_ID if id_column is None else id_column]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise InvalidInputError(
            f"two columns of the output would be called {shown(twice[0])}: name it once, in keep or as id_column"
        )
    if taken := sorted(set(named) & set(ADDED_COLUMNS)):
        raise InvalidInputError(f"the output has a column {shown(taken[0])} of its own: rename that of the input")
    choices: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("format", format, get_args(BulkFormat)),
        ("dtype", dtype, get_args(BulkDtype)),
        ("on_overflow", on_overflow, OVERFLOW_POLICIES),
        ("on_null", on_null, get_args(NullPolicy)),
    )
    for name, value, allowed in choices:
        if value not in allowed:
            raise InvalidInputError(f"{name} must be one of {', '.join(allowed)}, found {shown(value)}")
    for name, number, least in (("shard_rows", shard_rows, 1), ("max_rejected", max_rejected, 0)):
        if not is_number(number, int) or number < least:
            raise InvalidInputError(f"{name} must be an integer of {least} or more, found {shown(number)}")
    return BulkOptions(
        column,
        id_column,
        tuple(keep),
        format,  # type: ignore[arg-type]  # each was looked for in its choices
        dtype,  # type: ignore[arg-type]
        dimensions,
        input_type,
        on_overflow,  # type: ignore[arg-type]
        shard_rows,
        on_null,  # type: ignore[arg-type]
        max_rejected,
    )
