"""The call of the library that parses a tokenizer.json, behind the checks that must come before it."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from akidb_mlx.checkpoint.tokenization.files import Description
from akidb_mlx.checkpoint.tokenization.growth import check_growth
from akidb_mlx.errors import ModelLoadError


def parse_tokenizer(path: Path, content: bytes, description: Description) -> Tokenizer:
    """Return what the library makes of a tokenizer.json.

    Args:
        path: the file, for errors.
        content: its bytes.
        description: what they say.

    Raises:
        ModelLoadError: the library refuses it, it makes very much of little, or it would tokenise by chance.
    """
    check_growth(path, description)
    if dropout := description["model"].get("dropout"):
        raise ModelLoadError(f"{path}: dropout {dropout!r} would tokenise a text differently each time")
    try:
        return Tokenizer.from_buffer(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises nothing narrower, and a native panic is no Exception
        raise ModelLoadError(f"{path} is not a tokenizer: {str(error)[:500]}") from error
