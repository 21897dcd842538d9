"""Checks that token ids are in the model's table of token vectors: beyond it a device reads foreign memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.errors import ModelLoadError

# The table of token vectors, by the encoders' names for it.
_TABLES = ("embed_tokens.weight", "embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight")


def table_rows(checkpoint: Checkpoint) -> int:
    """Return how many tokens the model has vectors for, by the stored table and not by config.json."""
    if checkpoint.static is not None:
        return checkpoint.static.tokens
    stored = next((checkpoint.tensors[name] for name in _TABLES if name in checkpoint.tensors), None)
    if stored is not None and stored.shape:
        return stored.shape[0]
    return checkpoint.encoder_config.vocab_size  # the encoder will miss the table


def check_vocabulary(path: Path, tokenizer: Tokenizer, rows: int) -> None:
    """Check the vocabulary of a tokenizer as its file has it.

    An added token may be beyond the table, as EmbeddingGemma's is for images: only a text that spells it is refused.

    Args:
        path: tokenizer.json, for errors.
        tokenizer: what the library made of it.
        rows: how many tokens the model has vectors for.

    Raises:
        ModelLoadError: the vocabulary is empty, or one of its tokens has no vector.
    """
    size = tokenizer.get_vocab_size(with_added_tokens=False)
    if not size:
        raise ModelLoadError(f"{path} has an empty vocabulary")
    # Almost all vocabularies have the ids from 0 on. Seeing that takes half the time of making a dictionary of all.
    if size > rows or None in map(tokenizer.model.id_to_token, range(size)):
        ids = tokenizer.get_vocab(with_added_tokens=False)
        for token in ids.keys() - {token.content for token in tokenizer.get_added_tokens_decoder().values()}:
            check_id(path, f"the vocabulary's token {token[:80]!r}", ids[token], rows)


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
