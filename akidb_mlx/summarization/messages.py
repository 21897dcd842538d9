"""Messages as callers pass them: strings, or records of a speaker and a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.texts import check_string

# Called with how many steps are done, and how many there are.
Progress = Callable[[int, int], None]

# The keys of a record that may hold the speaker, the most specific first.
_SPEAKER_KEYS = ("name", "speaker", "role")
# Most characters of a speaker's name, which stands before every piece of a message.
_LONGEST_SPEAKER = 100


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        text: its text, without the white space around it; never empty.
        speaker: the speaker's name, or None.
    """

    text: str
    speaker: str | None = None

    @property
    def label(self) -> str:
        """Return the words before the text that name the speaker."""
        return f"{self.speaker}: " if self.speaker else ""


def parse_messages(messages: object) -> list[Message]:
    """Return messages as records, without those that hold only white space.

    Args:
        messages: one string, or an iterable of strings and records. A record is a mapping with the string "content",
            and the speaker in "name", "speaker" or "role"; other keys are ignored.

    Raises:
        InvalidInputError: a message is something else or not valid Unicode; `index` holds which.
    """
    if isinstance(messages, str):
        messages = [messages]
    if isinstance(messages, (bytes, Mapping)) or not isinstance(messages, Iterable):
        raise InvalidInputError(
            f"messages must be a string or a list of strings or records, found {type(messages).__name__}"
        )
    checked = (_parse_message(index, message) for index, message in enumerate(messages))
    return [message for message in checked if message.text]


def _parse_message(index: int, message: object) -> Message:
    if isinstance(message, str):
        check_string(f"message {index}", message, index)
        return Message(message.strip())
    if not isinstance(message, Mapping):
        raise InvalidInputError(
            f"message {index} must be a string or a record like {{'role': 'user', 'content': 'text'}}, "
            f"found {type(message).__name__}",
            index,
        )
    content = message.get("content")
    if not isinstance(content, str):
        raise InvalidInputError(
            f"message {index} must hold a string under 'content', found {type(content).__name__}", index
        )
    check_string(f"message {index}", content, index)
    return Message(content.strip(), _parse_speaker(index, message))


def _parse_speaker(index: int, message: Mapping[Any, Any]) -> str | None:
    key = next((key for key in _SPEAKER_KEYS if message.get(key) is not None), None)
    if key is None:
        return None
    speaker = message[key]
    if not isinstance(speaker, str) or len(speaker) > _LONGEST_SPEAKER:
        found = f"{len(speaker)} characters" if isinstance(speaker, str) else type(speaker).__name__
        raise InvalidInputError(
            f"message {index} must hold a string of at most {_LONGEST_SPEAKER} characters under {key!r}, found {found}",
            index,
        )
    check_string(f"{key!r} of message {index}", speaker, index)
    return " ".join(speaker.split()) or None
