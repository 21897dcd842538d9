"""The tokens that a text is searched for before anything else is done with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer

from akidb_mlx.checkpoint.tokenization.classes import TokenizerClass
from akidb_mlx.checkpoint.tokenization.files import STANDARD_TOKENS, Token, TokenizerFiles, parse_token


def add_tokens(
    tokenizer: Tokenizer, kind: TokenizerClass | None, config: Mapping[str, Any], files: TokenizerFiles
) -> None:
    """Add the tokens that a text is searched for before it is split, in transformers' order, which decides their ids.

    A token that the vocabulary has keeps its id; another has the next one.

    Args:
        tokenizer: has the vocabulary, and the added tokens of tokenizer.json where its class keeps them.
        kind: its class.
        config: tokenizer_config.json, with what the class adds.
        files: the files.

    Raises:
        ModelLoadError: something in the configuration is no token.
    """
    path = files.path.with_name("tokenizer_config.json")
    present = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    added: list[Token] = [token for _, token in sorted(files.added_tokens.items()) if repr(token) not in present]
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()} | set(map(str, added))
    named = {key: parse_token(f"{path}: {key}", config.get(key)) for key in _token_names(config)}
    own = config.get("model_specific_special_tokens") or {}
    named |= {key: parse_token(f"{path}: {key}", token) for key, token in own.items()}
    extra = config.get("extra_special_tokens") or ()
    others = [parse_token(f"{path}: extra_special_tokens", token) for token in extra]
    special = {str(token) for token in named.values() if token}
    for token in (*named.values(), *others):
        # One that is named twice, with different properties, is added twice; the last properties count.
        if token is not None and str(token) not in known and token not in added:
            added.append(token)
    tokens = [AddedToken(token, special=True) if isinstance(token, str) else token for token in added]
    for token in tokens:
        token.special = token.special or token.content in special
    tokenizer.add_tokens(tokens)
    if kind is not None and kind.resets_special_tokens:
        tokenizer.add_tokens([AddedToken(str(token), special=True) for token in (*named.values(), *others) if token])


def add_markers(tokenizer: Tokenizer, prompts: Iterable[str]) -> None:
    """Make the token that a prompt begins with special, so that it stays whole in a text, where it would not.

    It is the prompt itself or its first word. Models were trained with that token before their texts (ColBERT).
    """
    markers = []
    for prompt in prompts:
        for marker in (prompt, *prompt.split(None, 1)[:1]):
            if prompt.split() and tokenizer.token_to_id(marker) is not None:
                if tokenizer.encode(marker, add_special_tokens=False).tokens != [marker]:
                    markers.append(AddedToken(marker, normalized=False, special=True))
                break
    tokenizer.add_special_tokens(markers)


def _token_names(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of the configuration that name a special token, the standard ones first."""
    own = [key for key in config if key.endswith("_token") and key not in STANDARD_TOKENS]
    return [*STANDARD_TOKENS, *(key for key in own if not isinstance(config[key], bool))]
