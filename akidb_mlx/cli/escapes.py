"""Escaping of characters that would act on a terminal, or pass for lines of this program, instead of being shown."""

from __future__ import annotations

import re

_ACTIVE = (
    *range(0x20),  # C0 controls
    *range(0x7F, 0xA0),  # delete and C1 controls
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x2070)),  # direction of writing
    *(0x2028, 0x2029),  # separators of lines and paragraphs
    *range(0xD800, 0xE000),  # lone surrogates, which UTF-8 cannot carry
)
_ESCAPES = {code: chr(code).encode("unicode_escape").decode("ascii") for code in _ACTIVE}
_LAYOUT = {ord(character) for character in "\n\t"}
_ESCAPES_IN_TEXT = {code: escape for code, escape in _ESCAPES.items() if code not in _LAYOUT}
# The sequences that rich writes: colours, and the movements of the cursor and erasures of a progress bar.
_RICH_SEQUENCE = re.compile(r"(\x1b\[[0-9;?]*[A-HJKhlm]|\r)")


def escape(value: str) -> str:
    """Return a value on one line, with every active character escaped, line feeds and tabs too."""
    return value.translate(_ESCAPES)


def escape_text(text: str) -> str:
    """Return a text of several lines: its line feeds and tabs stay, and its carriage returns before line feeds go."""
    return text.replace("\r\n", "\n").translate(_ESCAPES_IN_TEXT)


def escape_around_sequences(rendered: str) -> str:
    """Return what rich has rendered with everything escaped but layout and the sequences that rich writes itself."""
    parts = _RICH_SEQUENCE.split(rendered)
    return "".join(part if index % 2 else part.translate(_ESCAPES_IN_TEXT) for index, part in enumerate(parts))
