"""Loading of a checkpoint's tokenizer, and the checks that all its tokens are in the model's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from tokenizers.normalizers import Lowercase, Sequence

from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.checkpoint.static import UNLIMITED, StaticTable
from akidb_mlx.checkpoint.tokenization.added_tokens import add_markers, add_tokens
from akidb_mlx.checkpoint.tokenization.classes import TokenizerClass, find_class
from akidb_mlx.checkpoint.tokenization.files import (
    STANDARD_TOKENS,
    TokenizerFiles,
    parse_token,
    read_description,
    read_tokenizer_files,
)
from akidb_mlx.checkpoint.tokenization.frame import Frame, PairFrame, read_frame, read_pair_frame
from akidb_mlx.checkpoint.tokenization.ids import check_id, check_vocabulary, table_rows
from akidb_mlx.checkpoint.tokenization.parsing import parse_tokenizer
from akidb_mlx.errors import ModelLoadError


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer that neither pads nor cuts.

    Attributes:
        tokenizer: gives a text's tokens, without the special ones around it.
        frame: the special tokens around a text.
        keeps_end: whether a text that is too long loses its beginning instead of its end.
        without_vector: the tokens, by id, that a text may spell and the model has no vector for.
        pair_frame: the special tokens around the texts of a pair, in a reranker; None in an embedding model.
        unknown: the token for unknown words, where a static model leaves it out.
        longest_text: most characters of a text that are read, where a static model cuts texts by characters too.
        special: the ids of special tokens, by their names in tokenizer_config.json.
    """

    tokenizer: Tokenizer
    frame: Frame
    keeps_end: bool
    without_vector: dict[int, str]
    pair_frame: PairFrame | None = None
    unknown: int | None = None
    longest_text: int | None = None
    special: Mapping[str, int] = field(default_factory=dict)


def load_tokenizer(checkpoint: Checkpoint) -> LoadedTokenizer:
    """Load a tokenizer so that it gives the tokens that transformers' AutoTokenizer gives.

    Raises:
        ModelLoadError: a file is missing or malformed, asks for something that is not known, or the vocabulary, the
            padding or the special tokens around a text are not in the model's table of token vectors.
    """
    if checkpoint.static is not None:
        return _load_static(checkpoint.static)
    files = read_tokenizer_files(checkpoint.directory)
    config = files.config
    named_class = config.get("tokenizer_class") or checkpoint.config.get("tokenizer_class")
    kind = find_class(checkpoint.directory / "tokenizer_config.json", named_class, checkpoint.model_type)
    loaded = parse_tokenizer(files.path, files.content, files.description)
    rows = table_rows(checkpoint)
    check_vocabulary(files.path, loaded, rows)
    padding = files.description.get("padding")
    if kind is not None:
        config = {**kind.special_tokens, **config}
    elif padding is not None:
        config = {"pad_token": padding["pad_token"], **config}
    tokenizer = loaded if kind is None else kind.rebuild(loaded, config, files)
    _check_unknown_token(files.path, tokenizer)
    add_tokens(tokenizer, kind, config, files)
    if checkpoint.multi_vector is not None:
        add_markers(tokenizer, checkpoint.multi_vector.markers)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = config.get("split_special_tokens") is True
    if checkpoint.lower_case:
        _lower_case_first(tokenizer)
    frame = _frame(tokenizer, kind, config, files)
    if not frame.after and checkpoint.scoring is None and _lost_final_token(checkpoint):
        frame = Frame(frame.before, (_final_token_id(tokenizer, checkpoint),))
    pair_frame = None if checkpoint.scoring is None else _pair_frame(checkpoint, kind, frame, config, files)
    _check_other_ids(checkpoint, frame, pair_frame, padding)
    truncation = files.description.get("truncation") or {}
    side = config.get("truncation_side") or str(truncation.get("direction", "right")).lower()
    without_vector = _without_vector(tokenizer, rows)
    named = {key: str(config[key]) for key in STANDARD_TOKENS if config.get(key)}
    special = {key: number for key, name in named.items() if (number := tokenizer.token_to_id(name)) is not None}
    return LoadedTokenizer(tokenizer, frame, side == "left", without_vector, pair_frame, special=special)


def _load_static(table: StaticTable) -> LoadedTokenizer:
    """Load the tokenizer of a static model, which is tokenizer.json as it is and puts nothing around a text."""
    content, description = read_description(table.tokenizer)
    tokenizer = parse_tokenizer(table.tokenizer, content, description)
    check_vocabulary(table.tokenizer, tokenizer, table.tokens)
    _check_unknown_token(table.tokenizer, tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    without_vector = _without_vector(tokenizer, table.tokens)
    if not table.model2vec:
        return LoadedTokenizer(tokenizer, Frame(), table.keeps_end, without_vector)
    if hasattr(tokenizer.model, "unk_token"):
        name = tokenizer.model.unk_token
        unknown = None if name is None else tokenizer.token_to_id(name)
    else:  # Unigram
        unknown = description["model"].get("unk_id")
    median = int(np.median([len(token) for token in tokenizer.get_vocab()]))
    longest = None if table.max_tokens == UNLIMITED else table.max_tokens * median
    return LoadedTokenizer(tokenizer, Frame(), False, without_vector, unknown=unknown, longest_text=longest)


def _without_vector(tokenizer: Tokenizer, rows: int) -> dict[int, str]:
    tokens = tokenizer.get_added_tokens_decoder()
    return {number: token.content for number, token in tokens.items() if number >= rows}


def _lower_case_first(tokenizer: Tokenizer) -> None:
    """Lower-case texts before other normalisation, but not the special tokens that they spell.

    So does sentence-transformers for `do_lower_case` in sentence_bert_config.json.
    """
    found = tokenizer.normalizer
    parts: list[Any] = [] if found is None else [found]
    if isinstance(found, Sequence):
        parts = list(found)  # type: ignore[call-overload]  # its stub knows no iteration
    if not any(isinstance(part, Lowercase) for part in parts):
        tokenizer.normalizer = Sequence([Lowercase(), *parts])


def _check_unknown_token(path: Path, tokenizer: Tokenizer) -> None:
    model = tokenizer.model
    if isinstance(model, WordPiece | WordLevel) and model.token_to_id(model.unk_token) is None:
        raise ModelLoadError(f"{path}: {model.unk_token[:80]!r}, for unknown words, is not in the vocabulary")


def _check_other_ids(
    checkpoint: Checkpoint, frame: Frame, pair_frame: PairFrame | None, padding: dict[str, Any] | None
) -> None:
    path, rows = checkpoint.directory / "tokenizer.json", table_rows(checkpoint)
    between = pair_frame.before + pair_frame.between + pair_frame.after if pair_frame else ()
    for number in frame.before + frame.after + between:
        check_id(path, "a special token around every text", number, rows)
    if padding is not None:
        check_id(path, "padding's pad_id", padding["pad_id"], rows)
    own = checkpoint.config.get("pad_token_id")
    if own is not None:
        check_id(checkpoint.directory / "config.json", "pad_token_id", own, rows)


def _frame(tokenizer: Tokenizer, kind: TokenizerClass | None, config: dict[str, Any], files: TokenizerFiles) -> Frame:
    if kind is None or kind.frame is None:
        return read_frame(files.path, files.description.get("post_processor"))
    ids = []
    for key in kind.frame:
        token = parse_token(key, config.get(key))
        number = None if token is None else tokenizer.token_to_id(str(token))
        if number is None:
            raise ModelLoadError(f"{files.path.with_name('tokenizer_config.json')} has no {key}")
        ids.append(number)
    return Frame((ids[0],), (ids[1],))


def _pair_frame(
    checkpoint: Checkpoint, kind: TokenizerClass | None, frame: Frame, config: dict[str, Any], files: TokenizerFiles
) -> PairFrame:
    """Return the tokens around the texts of a pair, without types where the model is not told of them.

    Raises:
        ModelLoadError: the post-processor does something else, or the model lacks the second token type.
    """
    if kind is None or kind.frame is None:
        found = read_pair_frame(files.path, files.description.get("post_processor"))
    else:
        found = PairFrame(frame.before, frame.after * kind.separators, frame.after, 1 if kind.token_types else None)
    default = ["token_type_ids"] if kind is not None and kind.token_types else []
    inputs = config.get("model_input_names", default)
    if not isinstance(inputs, list):
        raise ModelLoadError(f"{files.path.with_name('tokenizer_config.json')}: model_input_names must be a list")
    types = getattr(checkpoint.encoder_config, "type_vocab_size", 0)
    if found.first_type is None or "token_type_ids" not in inputs or not types:
        return replace(found, first_type=None)
    if types < 2:
        raise ModelLoadError(
            f"{files.path}: the second text of a pair is of the second token type, and the model has one "
            f"(type_vocab_size {types})"
        )
    return found


def _lost_final_token(checkpoint: Checkpoint) -> bool:
    """Return whether a conversion may have lost the token that must end every text.

    Where the sentence-transformers files are there, so is the tokenizer that the model was trained with.
    """
    kept = (checkpoint.directory / "modules.json", checkpoint.directory / "1_Pooling" / "config.json")
    return (
        checkpoint.pooling == "last"
        and checkpoint.architecture.final_token is not None
        and not any(is_file(path) for path in kept)
    )


def _final_token_id(tokenizer: Tokenizer, checkpoint: Checkpoint) -> int:
    token = checkpoint.architecture.final_token
    number = None if token is None else tokenizer.token_to_id(token)
    if number is None:
        raise ModelLoadError(
            f"{checkpoint.directory / 'tokenizer.json'} has no {token}, which must end every text for this model's "
            "pooling"
        )
    return number
