"""The records that a selector is trained and evaluated on: which model answered which query, how well and how fast."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.options import is_number, shown
from akidb_mlx.selection.json_fields import Floats

_NS = 1_000_000_000
_LONGEST_LINE = 64 << 20


@dataclass(frozen=True, eq=False)
class Record:
    """A query, and a model (or another label) that answered it.

    Attributes:
        query: the text.
        model_name: the label.
        performance: how good the answer was, from 0 to 1; None where the record only says that the label is right.
        response_time: in seconds, None if it was not measured.
        category: the subject of the query, None if it is not known.
        embedding: the query's vector, None to have it computed.
    """

    query: str
    model_name: str
    performance: float | None = None
    response_time: float | None = None
    category: str | None = None
    embedding: Floats | None = None

    @classmethod
    def parse(cls, fields: Mapping[str, Any], name: str) -> Record:
        """Return the record in an object, whose other fields are ignored.

        Args:
            fields: the object.
            name: the place of the record, for messages.

        Raises:
            InvalidInputError: a field is missing or wrong; the message names it.
        """
        return cls(
            query=_text(fields, "query", name, needed=True) or "",
            model_name=_text(fields, "model_name", name, needed=True) or "",
            performance=_number(fields, "performance", name, most=1),
            response_time=_number(fields, "response_time", name, most=(1 << 62) / _NS),
            category=_text(fields, "category", name),
            embedding=_vector(fields, name),
        )

    @property
    def latency(self) -> int | None:
        """Return the response time in nanoseconds."""
        return None if self.response_time is None else round(self.response_time * _NS)


def read_records(path: str | PathLike[str]) -> list[Record]:
    """Return the records of a file with a JSON object on each line; blank lines are skipped.

    Raises:
        InvalidInputError: the file cannot be read, or a line is not a record; its number is in the message.
    """
    found = []
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    found.append(_parse_line(line, f"{path}, line {number}"))
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not found:
        raise InvalidInputError(f"{path} holds no records: expected a JSON object on each line")
    return found


def list_records(records: Iterable[Record | Mapping[str, Any]]) -> list[Record]:
    """Return the records of a call, each checked.

    Raises:
        InvalidInputError: there are none, or one is not a record; `index` holds which.
    """
    if isinstance(records, (str, bytes, Mapping)) or not isinstance(records, Iterable):
        raise InvalidInputError(f"records must be a list of records, found {type(records).__name__}")
    found = []
    for index, one in enumerate(records):
        if not isinstance(one, (Record, Mapping)):
            found_type = type(one).__name__
            raise InvalidInputError(f"record {index} must be a Record or a dictionary, found {found_type}", index)
        found.append(Record.parse(vars(one) if isinstance(one, Record) else one, f"record {index}"))
    if not found:
        raise InvalidInputError("there are no records: give one at least")
    return found


def check_seed(seed: int) -> int:
    """Return a seed of all that is random.

    Raises:
        InvalidInputError: it is not an integer of 32 bits without a sign.
    """
    if not is_number(seed, Integral) or not 0 <= seed < 1 << 32:
        raise InvalidInputError(f"seed must be an integer from 0 to {(1 << 32) - 1}, found {shown(seed)}")
    return int(seed)


def split_records(
    records: Iterable[Record | Mapping[str, Any]], share: float, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Return the records without a share of the queries, and those of that share, which the seed chooses.

    All records of a query are on one side.

    Raises:
        InvalidInputError: the share is not between 0 and 1, or leaves one side without a query; or a record or the
            seed is not usable.
    """
    records, seed = list_records(records), check_seed(seed)
    queries = list(dict.fromkeys(record.query for record in records))
    if not is_number(share, Real) or not 0 < share < 1:
        raise InvalidInputError(f"the share to hold out must be a number between 0 and 1, found {shown(share)}")
    count = round(share * len(queries))
    if not 0 < count < len(queries):
        raise InvalidInputError(f"a share of {share} of {len(queries)} queries leaves one side empty")
    chosen = np.random.default_rng(seed).permutation(len(queries))[:count]
    held = {queries[index] for index in chosen.tolist()}
    return [one for one in records if one.query not in held], [one for one in records if one.query in held]


def _parse_line(line: bytes, name: str) -> Record:
    if len(line) > _LONGEST_LINE:
        raise InvalidInputError(f"{name}: it is longer than {_LONGEST_LINE >> 20} MB")
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name}: it is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"{name}: it must be a JSON object, found {type(found).__name__}")
    return Record.parse(found, name)


def _text(fields: Mapping[str, Any], key: str, name: str, *, needed: bool = False) -> str | None:
    value = fields.get(key)
    if value is None and not needed:
        return None
    if value is None:
        raise InvalidInputError(f"{name}: it has no {key}")
    if not isinstance(value, str):
        raise InvalidInputError(f"{name}: {key} must be a string, found {type(value).__name__}")
    if needed and not value.strip():
        raise InvalidInputError(f"{name}: {key} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{name}: {key} holds a lone surrogate, which is not text") from error
    return value


def _number(fields: Mapping[str, Any], key: str, name: str, most: float) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if not is_number(value, Real) or not 0 <= value <= most:
        raise InvalidInputError(f"{name}: {key} must be a number from 0 to {most:.10g}, found {shown(value)}")
    return float(value)


def _vector(fields: Mapping[str, Any], name: str) -> Floats | None:
    value = fields.get("embedding")
    if value is None:
        return None
    try:
        found = np.asarray(value)
        if found.dtype.kind not in "fiu" or found.ndim != 1 or not len(found):
            raise TypeError(f"found {type(value).__name__}")
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name}: embedding must be a list of numbers: {error}") from error
    found = found.astype(np.float64)
    if not all(map(math.isfinite, found.tolist())):
        raise InvalidInputError(f"{name}: embedding holds a number that is not finite")
    return found
