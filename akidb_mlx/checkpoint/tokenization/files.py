"""The files that describe a tokenizer, and every key in them: honoured, known to be harmless, or refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from tokenizers import AddedToken
from typing_extensions import Required, TypedDict

from akidb_mlx.checkpoint.files import is_file, read_json
from akidb_mlx.errors import ModelLoadError

Token = str | AddedToken

# Special tokens that every tokenizer of transformers has a name for, in the order in which it adds them.
STANDARD_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Keys of tokenizer_config.json that are read somewhere in this package.
_HONOURED = {
    *("tokenizer_class", "truncation_side", "model_max_length", "split_special_tokens", "add_prefix_space"),
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars"),
    *("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"),
    *STANDARD_TOKENS,
}
# Keys that change no token of a text in transformers either.
_HARMLESS = {
    # where a tokenizer came from, and what saved it
    *("name_or_path", "_name_or_path", "vocab_file", "merges_file", "tokenizer_file", "special_tokens_map_file"),
    *("full_tokenizer_file", "added_tokens_file", "files_loaded", "is_local", "local_files_only", "from_slow"),
    *("use_fast", "model_type", "model_name", "vocab_size", "transformers_version", "tokenizers_version", "device_map"),
    *("_commit_hash", "_from_auto", "revision", "subfolder", "cache_dir", "trust_remote_code", "torch_dtype", "dtype"),
    # how tokens become text again
    *("clean_up_tokenization_spaces", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"),
    *("spaces_between_special_tokens", "errors", "trim_offsets", "skip_special_tokens"),
    # conversations, images and answers
    *("chat_template", "chat_control_tokens", "use_default_system_prompt", "response_template", "response_schema"),
    *("processor_class", "image_processor_type", "feature_extractor_type"),
    # arguments of a call, which sentence-transformers passes itself, and padding, which is none of a text's tokens
    *("padding", "padding_side", "padding_strategy", "pad_to_multiple_of", "pad_token_type_id", "pad_token_id"),
    *("truncation", "truncation_strategy", "max_length", "max_len", "stride", "return_tensors", "verbose"),
    *("return_token_type_ids", "return_attention_mask", "add_special_tokens", "model_input_names"),
    *("bos_token_id", "eos_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
    # what only tokenizers without a tokenizer.json read
    *("do_basic_tokenize", "never_split", "sp_model_kwargs", "legacy", "keep_accents", "remove_space"),
    *("split_by_punct", "vocab_type", "sp_model", "spm_file", "unk_id", "add_dummy_prefix", "wordpieces_prefix"),
    *("clean_text", "backend"),
    # transformers drops both where there is a tokenizer.json, whose post-processor says it
    *("add_bos_token", "add_eos_token"),
    # repairs Mistral's models only, none of which is supported
    "fix_mistral_regex",
}
_FLAGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "split_special_tokens", "add_prefix_space")
_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class AddedTokenDescription(TypedDict):
    """An added token of tokenizer.json; its other keys are kept."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    id: int
    content: str


class ModelDescription(TypedDict, total=False):
    """The small part of a tokenizer.json's `model`; the vocabulary and merges are the library's to read."""

    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]
    type: Any
    unk_id: Any
    byte_fallback: Any
    dropout: Any
    continuing_subword_prefix: Any
    end_of_word_suffix: Any


class Description(TypedDict, total=False):
    """A tokenizer.json without its vocabulary, which is not made into Python objects. It has no other keys."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    version: Any
    truncation: Any
    padding: Any
    added_tokens: list[AddedTokenDescription] | None
    normalizer: Any
    pre_tokenizer: Any
    post_processor: Any
    decoder: Any  # makes text of tokens, which nobody asks for here
    model: Required[ModelDescription]


_DESCRIPTION = TypeAdapter(Description)


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a tokenizer.

    Attributes:
        path: tokenizer.json.
        content: its bytes.
        description: what they say, without the vocabulary.
        config: tokenizer_config.json, and what special_tokens_map.json says instead.
        added_tokens: the tokens that a text is first searched for, by id, beside those in tokenizer.json.
    """

    path: Path
    content: bytes
    description: Description
    config: dict[str, Any]
    added_tokens: dict[int, AddedToken]


def read_tokenizer_files(directory: Path) -> TokenizerFiles:
    """Read the files of a tokenizer, of which only tokenizer.json must be there.

    Raises:
        ModelLoadError: a file is missing or malformed, or has a key whose meaning is not known.
    """
    path = directory / "tokenizer.json"
    content, description = read_description(path)
    config_path = directory / "tokenizer_config.json"
    config = read_json(config_path) if is_file(config_path) else {}
    _check_config(config_path, config)
    _join_special_tokens(config_path, config)
    if "added_tokens_decoder" in config:
        added = config["added_tokens_decoder"]
        if not isinstance(added, dict) or not all(str(number).isdecimal() for number in added):
            raise ModelLoadError(f"{config_path}: added_tokens_decoder must map ids to tokens")
        parse = partial(_added_token, f"{config_path}: added_tokens_decoder")
        added_tokens = {int(number): parse(token) for number, token in added.items()}
    else:
        config |= _read_special_tokens_map(directory / "special_tokens_map.json", config)
        added_tokens = _read_added_tokens(directory / "added_tokens.json", config)
        _join_special_tokens(config_path, config)
        for token in description.get("added_tokens") or ():
            added_tokens[token["id"]] = _added_token(f"{path}: added_tokens", token)
    return TokenizerFiles(path, content, description, config, added_tokens)


def parse_token(where: str, value: Any) -> Token | None:
    """Return a special token of tokenizer_config.json as the library takes it.

    Raises:
        ModelLoadError: it is neither a string nor the description of a token.
    """
    return value if value is None or isinstance(value, str | AddedToken) else _added_token(where, value)


def read_description(path: Path) -> tuple[bytes, Description]:
    """Return the bytes of tokenizer.json and their content.

    Raises:
        ModelLoadError: it is missing, malformed, or has a key that is not known.
    """
    if not is_file(path):
        raise ModelLoadError(f"{path} is missing; convert the model's tokenizer with transformers' save_pretrained")
    try:
        content = path.read_bytes()
        return content, _DESCRIPTION.validate_json(content)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        key = ".".join(str(part)[:80] for part in fault["loc"])
        raise ModelLoadError(f"{path} is not a tokenizer: {key or 'its content'}: {fault['msg'][:200]}") from error


def _check_config(path: Path, config: dict[str, Any]) -> None:
    for key, value in config.items():
        asks_for_nothing = value is None or value is False or value in ("", [], {})
        special = key.endswith("_token") and not isinstance(value, bool)
        if not (asks_for_nothing or special or key in _HONOURED or key in _HARMLESS):
            reason = {
                "auto_map": "a tokenizer of its own code is never run",
                "fast_tokenizer_files": "only tokenizer.json is read",
                "init_inputs": "positional arguments are not supported",
            }.get(key, "its effect on tokens is not known; remove it if it has none")
            raise ModelLoadError(f"{path}: {key[:80]!r} is not supported: {reason}")
    for key in _FLAGS:
        if not isinstance(config.get(key), bool | None):
            raise ModelLoadError(f"{path}: {key} must be true or false, found {str(config[key])[:80]!r}")
    if config.get("truncation_side", "right") not in ("left", "right"):
        raise ModelLoadError(
            f"{path}: truncation_side must be 'left' or 'right', found {str(config['truncation_side'])[:80]!r}"
        )


def _join_special_tokens(path: Path, config: dict[str, Any]) -> None:
    """Put special tokens under the newer of two keys, and those that have names of their own under a third."""
    if not config.get("extra_special_tokens") and "additional_special_tokens" in config:
        config["extra_special_tokens"] = config.pop("additional_special_tokens")
    extra = config.get("extra_special_tokens")
    if isinstance(extra, dict):
        config["model_specific_special_tokens"] = (config.get("model_specific_special_tokens") or {}) | extra
        del config["extra_special_tokens"]
    elif not isinstance(extra, list | None):
        raise ModelLoadError(f"{path}: extra_special_tokens must be a list or an object, found {str(extra)[:80]!r}")
    if not isinstance(config.get("model_specific_special_tokens"), dict | None):
        raise ModelLoadError(f"{path}: model_specific_special_tokens must be an object of tokens")


def _read_special_tokens_map(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers takes from special_tokens_map.json, where the newer added_tokens_decoder is missing."""
    content = read_json(path) if is_file(path) else {}
    taken: dict[str, Any] = {}
    for key, value in content.items():
        if key != "extra_special_tokens" and isinstance(value, dict):
            taken[key] = _added_token(f"{path}: {key}", value | {"special": True})
        elif key == "extra_special_tokens" and isinstance(value, list):
            taken[key] = [*(config.get(key) or ()), *value]
        elif key.endswith(("_token", "_special_tokens")):
            taken[key] = value
        else:
            raise ModelLoadError(f"{path}: {key[:80]!r} is not the name of special tokens")
    return taken


def _read_added_tokens(path: Path, config: dict[str, Any]) -> dict[int, AddedToken]:
    content = read_json(path) if is_file(path) else {}
    if not all(isinstance(number, int) and number >= 0 for number in content.values()):
        raise ModelLoadError(f"{path} must map tokens to their ids")
    named = [config[key] for key in STANDARD_TOKENS if config.get(key)]
    extra = config.get("extra_special_tokens") or ()
    special = {str(token["content"]) if isinstance(token, dict) else str(token) for token in (*named, *extra)}
    return {
        number: AddedToken(token, normalized=token not in special, special=token in special)
        for token, number in content.items()
    }


def _added_token(where: str, value: Any) -> AddedToken:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ModelLoadError(f"{where} must hold tokens, found {str(value)[:80]!r}")
    flags = {key: flag for key, flag in value.items() if key not in ("__type", "id", "content")}
    unknown = [key for key, flag in flags.items() if key not in _TOKEN_FLAGS or not isinstance(flag, bool)]
    if unknown:
        raise ModelLoadError(f"{where}: token {value['content'][:80]!r} has an unknown property {unknown[0][:80]!r}")
    return AddedToken(value["content"], **flags)
