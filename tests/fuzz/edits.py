"""Edits of a model directory: the value of a key, or a change that takes more than a key.

An edit is ordinary if a directory that has it must still load.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from tests.fuzz import config_values as values
from tests.fuzz.architectures import Model
from tests.fuzz.changes import CHANGES, MODULE_LISTS, MODULES, POOLING_CONFIG, WEIGHT_FILES
from tests.fuzz.contents import Contents
from tests.fuzz.tokenizer_files import KINDS, template, token_ids

_SIBLINGS = ("sentence_roberta_config.json", "sentence_distilbert_config.json", "sentence_xlm-roberta_config.json")
# Files of which a directory is not obliged to have each.
_LOSABLE = (MODULES, POOLING_CONFIG, "sentence_bert_config.json", "config_sentence_transformers.json")

_ACTIVATIONS = (
    "linear.Identity",
    "activation.Tanh",
    "activation.ReLU",
    "activation.GELU",
    "activation.Sigmoid",
    "Activation",
    None,
)
_DENSE_KEYS: tuple[dict[str, Any], ...] = (
    {},
    {"use_residual": True},
    {"module_input_name": "token_embeddings"},
    {"module_output_name": "other"},
    {"in_features": 3},
)


class Edit(NamedTuple):
    """One edit.

    Attributes:
        kind: "set", "drop", or the name of a function in `CHANGES`.
        file: the JSON file; empty for a change that takes none.
        key: the key in it; empty for "drop" of the whole file.
        value: the new value, or the argument of the change.
        ordinary: whether a directory must still load with it.
    """

    kind: str
    file: str
    key: str
    value: Any
    ordinary: bool

    def __str__(self) -> str:
        where = " ".join(part for part in (self.file, self.key) if part)
        value = "" if self.kind == "drop" else f" = {json.dumps(self.value, ensure_ascii=False)}"
        return f"{self.kind} {where}{value}"


def apply(edit: Edit, contents: Contents) -> None:
    """Make an edit. One of a file that is not there makes the file, or does nothing if it takes something away."""
    value = json.loads(json.dumps(edit.value))  # so that later edits do not change this one
    if edit.kind == "set":
        holder, _, key = f"/{edit.key}".rpartition("/")
        target = contents.files.setdefault(edit.file, {})
        for part in holder.split("/")[1:]:
            target = target[part]
        target[key] = value
    elif edit.kind == "drop" and not edit.key:
        contents.files.pop(edit.file, None)
    elif edit.kind == "drop":
        contents.files.get(edit.file, {}).pop(edit.key, None)
    else:
        CHANGES[edit.kind](contents, value)


def draw(rng: Random, model: Model, contents: Contents, ordinary: bool) -> Edit:
    """Return a random edit for a directory."""
    sources = _ORDINARY if ordinary else _ANY
    source = rng.choices([source for source, _ in sources], [weight for _, weight in sources])[0]
    return source(rng, model, contents)._replace(ordinary=ordinary)


Source = Callable[[Random, Model, Contents], Edit]


def _set(file: str, table: values.Values, prefix: str = "") -> Source:
    def source(rng: Random, _model: Model, _contents: Contents) -> Edit:
        key = rng.choice(list(table))
        return Edit("set", file, prefix + key, rng.choice(table[key]), False)

    return source


def _config(rng: Random, model: Model, contents: Contents) -> Edit:
    return _set("config.json", values.config_values(model.architecture))(rng, model, contents)


def _harmless_config(rng: Random, model: Model, contents: Contents) -> Edit:
    return _set("config.json", values.harmless_config_values(model.architecture))(rng, model, contents)


def _drop_key(rng: Random, _model: Model, contents: Contents) -> Edit:
    names = [name for name, content in contents.files.items() if isinstance(content, dict) and content]
    # Each file as often as the others, config.json oftener.
    name = rng.choice([*names, *["config.json"] * 4])
    return Edit("drop", name, rng.choice(list(contents.files[name])), None, False)


def _drop_file(rng: Random, _model: Model, _contents: Contents) -> Edit:
    return Edit("drop", rng.choice((*_LOSABLE, "tokenizer_config.json")), "", None, False)


def _unknown(rng: Random, model: Model, contents: Contents) -> Edit:
    files = [name for name, content in contents.files.items() if isinstance(content, dict) and name != "tokenizer.json"]
    return _set(rng.choice(files), values.UNKNOWN)(rng, model, contents)


def _sibling(rng: Random, model: Model, contents: Contents) -> Edit:
    return _set(rng.choice(_SIBLINGS), values.SENTENCE_BERT)(rng, model, contents)


def _change(name: str, *arguments: Any) -> Source:
    def source(rng: Random, _model: Model, _contents: Contents) -> Edit:
        return Edit(name, "", "", rng.choice(arguments), False)

    return source


def _post_processor(rng: Random, model: Model, contents: Contents) -> Edit:
    kind, ids = KINDS[model.tokenizer], token_ids(contents.files["tokenizer.json"])
    first, last = rng.choice(kind.special_tokens), rng.choice(kind.special_tokens)
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    framed = template((first,), (last,), ids)
    tokens = {"sep": [last, ids[last]], "cls": [first, ids[first]]}
    second_type = json.loads(json.dumps(framed).replace('"type_id": 0', '"type_id": 1'))
    twice = template((first,), (), ids)
    twice["single"].insert(1, twice["single"][1])
    processors = [
        None,
        framed,
        template((), (last,), ids),
        template((first,), (), ids),
        template((), (), ids),
        template((first, last), (last, last), ids),
        {"type": "BertProcessing", **tokens},
        {"type": "RobertaProcessing", **tokens, "trim_offsets": True, "add_prefix_space": False},
        byte_level,
        {"type": "Sequence", "processors": [byte_level, framed]},
        {"type": "Sequence", "processors": [framed, template((), (last,), ids)]},
        second_type,
        twice,
    ]
    return Edit("set", "tokenizer.json", "post_processor", rng.choice(processors), False)


def _added_token(rng: Random, _model: Model, contents: Contents) -> Edit:
    known = list(token_ids(contents.files["tokenizer.json"]))
    content = rng.choice(("kept", "lonely token", "🚢", "LEDGER", "ships ", "é", rng.choice(known)))
    flags = {flag: rng.random() < 0.3 for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    token = {"content": content, **flags, "beyond": rng.random() < 0.15}
    places = ("tokenizer.json", "decoder", "added_tokens.json", "special_tokens_map.json")
    files = [place for place in places if rng.random() < 0.6]
    return Edit("add_token", "", "", {"token": token, "files": files}, False)


def _consistent_token(rng: Random, _model: Model, _contents: Contents) -> Edit:
    token = {"content": rng.choice(("<extra>", "[unused]")), "special": rng.random() < 0.5}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "beyond"), False)
    return Edit("add_token", "", "", {"token": token, "files": ["tokenizer.json", "decoder"]}, True)


def _dense(rng: Random, _model: Model, _contents: Contents) -> Edit:
    given = _dense_layer(rng, rng.choice(_ACTIVATIONS))
    return Edit("add_dense", "", "", given | {"extra": rng.choice(_DENSE_KEYS), "position": rng.randint(1, 3)}, False)


def _ordinary_dense(rng: Random, _model: Model, _contents: Contents) -> Edit:
    return Edit("add_dense", "", "", _dense_layer(rng, rng.choice(_ACTIVATIONS[:2])), True)


def _dense_layer(rng: Random, activation: str | None) -> dict[str, Any]:
    name = f"torch.nn.modules.{activation}" if activation and "." in activation else activation
    return {
        "seed": rng.randrange(1000),
        "bias": rng.random() < 0.5,
        "activation": name,
        "extra": {},
        "position": 2,
    }


_ORDINARY_MODULES = ("no normalize", "new types")
_ORDINARY_WEIGHTS = ("float16", "bfloat16", "own prefix", "shards", "position ids", "no pooler")

# Sources of edits and their weights.
_ORDINARY: list[tuple[Source, int]] = [
    (_harmless_config, 10),
    (_set("tokenizer_config.json", values.HARMLESS_TOKENIZER_CONFIG), 4),
    (_set("config_sentence_transformers.json", values.HARMLESS_SENTENCE_TRANSFORMERS), 4),
    (_consistent_token, 2),
    (_ordinary_dense, 2),
    (_change("modules", *_ORDINARY_MODULES), 3),
    (_change("weights", *_ORDINARY_WEIGHTS), 4),
]
_ANY: list[tuple[Source, int]] = [
    (_config, 26),
    (_drop_key, 8),
    (_drop_file, 3),
    (_unknown, 3),
    (_set("tokenizer_config.json", values.TOKENIZER_CONFIG), 14),
    (_set("special_tokens_map.json", values.SPECIAL_TOKENS_MAP), 3),
    (_set("added_tokens.json", values.ADDED_TOKENS), 2),
    (_set("tokenizer.json", values.TOKENIZER), 7),
    (_set("tokenizer.json", values.TOKENIZER_MODEL, "model/"), 4),
    (_post_processor, 5),
    (_added_token, 6),
    (_change("shift_ids", 1, 2, 10, 1000), 2),
    (_set("config_sentence_transformers.json", values.SENTENCE_TRANSFORMERS), 5),
    (_set("sentence_bert_config.json", values.SENTENCE_BERT), 7),
    (_sibling, 2),
    (_set(POOLING_CONFIG, values.POOLING), 8),
    (_dense, 4),
    (_change("modules", *[name for name in MODULE_LISTS if name not in _ORDINARY_MODULES]), 6),
    (_change("weights", *[name for name in WEIGHT_FILES if name not in _ORDINARY_WEIGHTS]), 5),
]
