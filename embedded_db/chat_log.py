"""Chat logs: files of messages, as JSONL or CSV, and their way into a database."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from embedded_db.checks import MAX_BYTES, parse_name, parse_node, parse_number
from embedded_db.database import EmbeddedDB
from embedded_db.errors import InvalidRecordError, NodeNotFoundError, excerpt
from embedded_db.records import CHAT, MESSAGE

# Messages that are written in one transaction.
_TOGETHER = 256
# A line holds a content of the most bytes, escaped, and the rest of its message.
_MAX_LINE = 4 * MAX_BYTES
_TOO_LONG = f"the line is longer than {_MAX_LINE >> 20} MiB"

Progress = Callable[[int], object]


@dataclass(frozen=True)
class BadLine:
    """A line that is no message of a database.

    Attributes:
        file: the name of its file.
        line: its number, from 1; that of its first line where a cell of CSV has several.
        error: the reason.
    """

    file: str
    line: int
    error: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.error}"


@dataclass(frozen=True)
class _Entry:
    """A message of a log, and the chat that it belongs to, as `create_node` takes them."""

    line: int
    chat: dict[str, Any]
    message: dict[str, Any]


class ChatLogs:
    """Adds the messages of chat logs to a database.

    Attributes:
        messages: how many were added.
        chats: how many chats were created for them.
    """

    def __init__(self, db: EmbeddedDB) -> None:
        """Begin with none; the messages' enrichment is queued."""
        self._db = db
        self._known: set[str] = set()
        self.messages = self.chats = 0

    def add(self, file: Path, progress: Progress | None = None) -> Iterator[BadLine]:
        """Add the messages of a file, and yield the lines that were left out.

        Each line of JSONL, or row of CSV below a header, is a message: its `content`, and perhaps `sender`, `role`,
        `chat` (the id of its chat, which is created if there is none; else the name of the file without its ending),
        `chat_title`, `time` (ISO 8601, in UTC where it names no zone, or seconds since 1970), `id` and `metadata` (an
        object). Anything else becomes a property of the message.

        Args:
            file: CSV if its name ends in ".csv", and JSONL otherwise.
            progress: called with the number of bytes that were read.

        Raises:
            OSError: the file cannot be read.
        """
        name = str(file)
        with file.open("rb") as opened:
            records = _read_csv(opened) if file.suffix.lower() == ".csv" else _read_jsonl(opened)
            entries: list[_Entry] = []
            for line, record in records:
                try:
                    if isinstance(record, str):
                        raise InvalidRecordError(record)
                    entries.append(_parse(line, record, file.stem))
                except InvalidRecordError as error:
                    yield BadLine(name, line, str(error))
                if len(entries) == _TOGETHER:
                    yield from self._insert(entries, name)
                    entries = []
                    if progress is not None:
                        progress(opened.tell())
            yield from self._insert(entries, name)

    def _insert(self, entries: list[_Entry], name: str) -> Iterator[BadLine]:
        """Insert messages in one transaction, or one at a time where one of them is refused."""
        new = {entry.chat["id"]: entry.chat for entry in entries if entry.chat["id"] not in self._known}
        new = {chat_id: chat for chat_id, chat in new.items() if self._db.get_node(chat_id) is None}
        try:
            self._db.insert_nodes([*new.values(), *(entry.message for entry in entries)])
        except (InvalidRecordError, NodeNotFoundError) as error:
            if len(entries) == 1:
                yield BadLine(name, entries[0].line, str(error))
                return
            for entry in entries:
                yield from self._insert([entry], name)
            return
        self._known.update(entry.chat["id"] for entry in entries)
        self.messages += len(entries)
        self.chats += len(new)


def parse_time(value: object) -> float:
    """Return a time as seconds since 1970: a number, also as a string, or ISO 8601, in UTC where it names no zone.

    Raises:
        InvalidRecordError: it is none.
    """
    if not isinstance(value, str):
        return _parse_seconds(value)
    text = value.strip()
    try:
        return _parse_seconds(float(text))
    except ValueError as error:
        if isinstance(error, InvalidRecordError):
            raise
    try:
        # Python 3.10 knows no Z.
        found = datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text)
        return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidRecordError(
            f"time must be as in 2026-01-31T12:00:00Z, or seconds since 1970, found {excerpt(value)}"
        ) from error


def _parse_seconds(value: object) -> float:
    seconds = parse_number("time", value)
    try:
        datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidRecordError(
            f"time must be in the years 1 to 9999, in seconds since 1970, found {excerpt(value)}: perhaps it is in "
            "milliseconds"
        ) from error
    return seconds


def _parse(line: int, record: dict[str, Any], default_chat: str) -> _Entry:
    """Return the message of a record, once it is known to be usable."""
    given = {name: value for name, value in record.items() if value is not None}
    if not isinstance(given.get("content"), str):
        raise InvalidRecordError(f"content must be a string, found {excerpt(given.get('content'))}")
    if "type" in given:
        raise InvalidRecordError("every line is a message: leave type out, or call it something else")
    if not isinstance(given.get("metadata", {}), dict):
        raise InvalidRecordError(f"metadata must be an object, found {excerpt(given['metadata'])}")
    chat_id = parse_name("chat", given.pop("chat", default_chat))
    title = given.pop("chat_title", chat_id)
    if "time" in given:
        given["created_at"] = parse_time(given.pop("time"))
    chat = {"type": CHAT, "id": chat_id, "title": title, "created_at": given.get("created_at")}
    message = {**given, "type": MESSAGE, "chat_id": chat_id}
    for node in (chat, message):
        parse_node(node)
    return _Entry(line, chat, message)


def _read_jsonl(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the number of each line that is not blank with its object, or with the reason why there is none."""
    for number, line, is_long in _lines(file):
        if is_long:
            yield number, _TOO_LONG
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield number, f"the line is not UTF-8: {error}"
        except (ValueError, RecursionError) as error:
            yield number, f"the line is no JSON: {error}"
        else:
            yield number, record if isinstance(record, dict) else f"the line must be an object, found {excerpt(record)}"


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield the number of each line, the line, and whether it was too long to hold.

    Such a line is replaced by one that opens or closes a quoted cell of CSV as it did.
    """
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        if len(line) < _MAX_LINE or line.endswith(b"\n"):
            yield number, line, False
            continue
        quotes = line.count(b'"')
        while not line.endswith(b"\n") and (line := file.readline(_MAX_LINE)):
            quotes += line.count(b'"')
        yield number, b'"' * (quotes % 2) + b"\n", True


def _read_csv(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the number of each row's first line with its cells by column, or with the reason why there are none."""
    # That of the whole process, which is too small for a long message; other users may need a larger one.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_BYTES))
    too_long = list[int]()

    def decoded() -> Iterator[str]:
        for number, line, is_long in _lines(file):
            if is_long:
                too_long.append(number)
            yield line.decode("utf-8-sig" if number == 1 else "utf-8", errors="surrogateescape")

    reader = csv.reader(decoded(), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield line, _TOO_LONG if too_long else f"the row is no CSV: {error}"
            too_long.clear()
            continue
        if too_long:
            yield line, _TOO_LONG
            too_long.clear()
            if header is None:
                return
            continue
        if row is None:
            return
        if not row:
            continue
        if header is None:
            header = [cell.strip() for cell in row]
            if "content" not in header or len(set(header)) < len(header):
                found = excerpt(",".join(row))
                yield line, f"the first line must name the columns, content among them, each once, found {found}"
                return
            continue
        yield line, _record(header, row)


def _record(header: list[str], row: list[str]) -> dict[str, Any] | str:
    if len(row) != len(header):
        return f"the row has {len(row)} cells, and the header {len(header)}"
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return "the row is not UTF-8"
    # An empty cell is none, except where the message itself is empty.
    record: dict[str, Any] = {name: cell for name, cell in zip(header, row, strict=True) if cell or name == "content"}
    if "metadata" in record:
        try:
            record["metadata"] = json.loads(record["metadata"])
        except (ValueError, RecursionError) as error:
            return f"metadata is no JSON: {error}"
    return record
