"""Checks that token ids are in the model's table of token vectors: beyond it a device reads foreign memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.errors import ModelLoadError

# The table of token vectors, by the encoders' names for it.
_TABLES = ("embed_tokens.weight", "embeddings.word_embeddings.weight")


def table_rows(checkpoint: Checkpoint) -> int:
    """Return how many tokens the model has vectors for, by the stored table and not by config.json."""
    stored = next((checkpoint.tensors[name] for name in _TABLES if name in checkpoint.tensors), None)
    if stored is not None and stored.shape:
        return stored.shape[0]
    size = checkpoint.config.get("vocab_size")  # the encoder will miss the table
    return size if isinstance(size, int) else 0


def check_vocabulary(path: Path, description: dict[str, Any], rows: int) -> None:
    """Check the vocabulary of a tokenizer.json, which the library has parsed, so that its types are right.

    An added token may be beyond the table, as EmbeddingGemma's is for images: only a text that spells it is refused.

    Args:
        path: the file, for errors.
        description: its content.
        rows: how many tokens the model has vectors for.

    Raises:
        ModelLoadError: it is empty, or one of its tokens has no vector.
    """
    model = description["model"]
    vocabulary = model["vocab"]
    if not vocabulary:
        raise ModelLoadError(f"{path} has an empty vocabulary")
    is_list = not isinstance(vocabulary, dict)  # Unigram's, of tokens with their scores
    ids = {token: number for number, (token, _) in enumerate(vocabulary)} if is_list else vocabulary
    if max(ids.values()) >= rows:
        added = {token["content"] for token in description.get("added_tokens") or ()}
        for token in ids.keys() - added:
            check_id(path, f"the vocabulary's token {token[:80]!r}", ids[token], rows)
    if model.get("dropout"):
        raise ModelLoadError(f"{path}: dropout {model['dropout']} would tokenise a text differently each time")


def check_id(path: Path, what: str, number: Any, rows: int) -> None:
    """Check one token id.

    Args:
        path: the file that it is in.
        what: what it is the id of, for a person.
        number: the id.
        rows: how many tokens the model has vectors for.

    Raises:
        ModelLoadError: it is no id of a token with a vector.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < rows:
        raise ModelLoadError(f"{path}: {what} is {str(number)[:40]}, and the model has tokens 0 to {rows - 1}")
