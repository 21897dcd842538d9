"""The special tokens that a tokenizer puts around every text, read from its post-processor.

They are read and not found by tokenising a sample: no sample is in every vocabulary, and one that is its own special
token would be found in the wrong place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.tokenization.files import read_description
from akidb_mlx.checkpoint.tokenization.parsing import parse_tokenizer
from akidb_mlx.errors import ModelLoadError


@dataclass(frozen=True)
class Frame:
    """The ids of the tokens before and after every text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class PairFrame:
    """The ids of the tokens before, between and after the texts of every pair.

    Attributes:
        first_type: how many of the tokens between are of the first token type, like all before them, the others being
            of the second, like all after them; None where all tokens are of the first.
    """

    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    first_type: int | None = None


def read_frame(path: Path, processor: Any) -> Frame:
    """Return the tokens that a post-processor puts around a text.

    Args:
        path: tokenizer.json, for errors.
        processor: its `post_processor`.

    Raises:
        ModelLoadError: it does something else to a text's tokens.
    """
    if processor is None:
        return Frame()
    try:
        return _read(path, processor)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelLoadError(f"{path}: post_processor is malformed: {error!r}") from error


def read_pair_frame(path: Path, processor: Any) -> PairFrame:
    """Return the tokens that a post-processor puts around the two texts of a pair.

    Args:
        path: tokenizer.json, for errors.
        processor: its `post_processor`.

    Raises:
        ModelLoadError: it does something else to a pair's tokens.
    """
    try:
        parts = _flatten(processor)
        if len(parts) > 1:
            raise ModelLoadError(f"{path}: a post_processor with {len(parts)} frames of pairs is not supported")
        return _read_pair(path, parts[0]) if parts else PairFrame(first_type=0)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ModelLoadError(f"{path}: post_processor is malformed: {error!r}") from error


def _flatten(processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the parts of a post-processor that add tokens."""
    if processor is None or processor["type"] == "ByteLevel":
        return []
    if processor["type"] == "Sequence":
        return [one for part in processor["processors"] for one in _flatten(part)]
    return [processor]


def _read_pair(path: Path, processor: dict[str, Any]) -> PairFrame:
    kind = processor["type"]
    if kind in ("BertProcessing", "RobertaProcessing"):
        begin, end = processor["cls"][1], processor["sep"][1]
        return PairFrame((begin,), (end,), (end,), 1) if kind[0] == "B" else PairFrame((begin,), (end, end), (end,))
    if kind != "TemplateProcessing":
        raise ModelLoadError(f"{path}: a post_processor of type {kind!r} is not supported")
    sides: list[list[int]] = [[]]
    texts: list[str] = []
    types: list[int] = []  # of all tokens in order, a text counting as one
    for piece in processor["pair"]:
        ((kind, value),) = piece.items()
        if kind == "SpecialToken":
            ids = processor["special_tokens"][value["id"]]["ids"]
            sides[-1] += ids
            types += [value["type_id"]] * len(ids)
        else:
            texts.append(value["id"])
            sides.append([])
            types.append(value["type_id"])
    if texts != ["A", "B"]:
        raise ModelLoadError(f"{path}: post_processor must put the first text of a pair before the second, once each")
    before, between, after = map(tuple, sides)
    if not any(types):
        return PairFrame(before, between, after)
    first = types.count(0)
    if types != [0] * first + [1] * (len(types) - first) or not len(before) < first <= len(before) + 1 + len(between):
        raise ModelLoadError(
            f"{path}: post_processor gives the tokens of a pair the types {types}; supported: 0 up to the first text, "
            "then 1, at the latest from the second text on"
        )
    return PairFrame(before, between, after, first - len(before) - 1)


def appends_end_token(directory: Path, token: str) -> bool:
    """Return whether the tokenizer by itself ends every text with a token.

    Args:
        directory: the model directory.
        token: the token's text, as in "<|endoftext|>".

    Raises:
        ModelLoadError: tokenizer.json is missing or malformed.
    """
    path = directory / "tokenizer.json"
    content, description = read_description(path)
    frame = read_frame(path, description.get("post_processor"))
    if not frame.after:
        return False
    ids = [entry["id"] for entry in description.get("added_tokens") or () if entry["content"] == token]
    return frame.after[-1] == (ids[0] if ids else parse_tokenizer(path, content, description).token_to_id(token))


def _read(path: Path, processor: dict[str, Any]) -> Frame:
    kind = processor["type"]
    if kind == "ByteLevel":  # changes offsets only
        return Frame()
    if kind in ("BertProcessing", "RobertaProcessing"):
        return Frame((processor["cls"][1],), (processor["sep"][1],))
    if kind == "TemplateProcessing":
        return _read_template(path, processor)
    if kind == "Sequence":
        frame = Frame()
        for part in processor["processors"]:
            outer = _read(path, part)
            frame = Frame(outer.before + frame.before, frame.after + outer.after)
        return frame
    raise ModelLoadError(f"{path}: a post_processor of type {kind!r} is not supported")


def _read_template(path: Path, processor: dict[str, Any]) -> Frame:
    sides: list[list[int]] = [[]]
    for piece in processor["single"]:
        ((kind, value),) = piece.items()
        if value["type_id"] != 0:
            raise ModelLoadError(
                f"{path}: post_processor gives tokens of a single text the type {value['type_id']}; only 0 is supported"
            )
        if kind == "SpecialToken":
            sides[-1] += processor["special_tokens"][value["id"]]["ids"]
        else:
            sides.append([])
    if len(sides) != 2:
        raise ModelLoadError(
            f"{path}: post_processor must put a single text in one place, found {len(sides) - 1} places"
        )
    return Frame(tuple(sides[0]), tuple(sides[1]))
