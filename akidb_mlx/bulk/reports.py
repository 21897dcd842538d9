"""Reports of a job, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

# Told of each step of a job, a dictionary of plain types whose "event" names it; see docs/bulk.md.
Event = dict[str, Any]
Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Rejected:
    """A row that was refused.

    Attributes:
        shard: the shard that it would be in.
        file: its file.
        row: its number in the file, from 1.
        reason: the fault.
    """

    shard: int
    file: str
    row: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return it as a line of `rejected.jsonl`."""
        return asdict(self)


@dataclass(frozen=True)
class BulkSummary:
    """The outcome of a job.

    Attributes:
        output: the folder of the shards.
        shards: how many shards there are.
        rows: rows of the input.
        embedded: rows with a vector.
        skipped: rows without a text, which were left out.
        rejected: rows that were refused.
        truncated: texts that were cut.
        tokens: tokens that the model read.
        bytes: size of the shards.
        seconds: how long this run took; an earlier one that it went on from is not counted.
        computed: rows that this run computed.
        dry: whether nothing was computed or written; then `embedded` is what is expected, `bytes` and `seconds` are
            estimates, and the counts of single rows are 0.
    """

    output: str
    shards: int
    rows: int
    embedded: int
    skipped: int
    rejected: int
    truncated: int
    tokens: int
    bytes: int
    seconds: float
    computed: int
    dry: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as plain types."""
        return asdict(self)
