"""Changes of a model directory that take more than the value of a key."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.architectures import DECODERS
from tests.fuzz.contents import WEIGHTS, Contents, Tensors
from tests.fuzz.tokenizer_files import token_ids

INDEX = "model.safetensors.index.json"
MODULES = "modules.json"
POOLING_CONFIG = "1_Pooling/config.json"
_NEW_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}

Modules = list[dict[str, Any]]


def module(kind: str, path: str) -> dict[str, Any]:
    """Return an entry of modules.json."""
    return {"type": f"sentence_transformers.models.{kind}", "path": path}


def numbered(modules: Modules) -> Modules:
    """Number the entries of modules.json, and return them."""
    for number, entry in enumerate(modules):
        entry |= {"idx": number, "name": str(number)}
    return modules


def hidden_size(contents: Contents) -> int:
    """Return the size of a token's vector."""
    config = contents.files["config.json"]
    return int(config.get("hidden_size") or config.get("dim") or 8)


# Tokens


def _add_token(contents: Contents, given: dict[str, Any]) -> None:
    """Add a token to some of the files that may name it."""
    token, tokenizer = dict(given["token"]), contents.files["tokenizer.json"]
    beyond = token.pop("beyond")
    ids = token_ids(tokenizer)
    number = ids.get(token["content"], max(ids.values()) + 1 + (contents.spare_ids if beyond else 0))
    if "tokenizer.json" in given["files"] and token["content"] not in [t["content"] for t in tokenizer["added_tokens"]]:
        tokenizer["added_tokens"].append({"id": number, **token})
        tokenizer["added_tokens"].sort(key=lambda added: added["id"])
    config = contents.files.get("tokenizer_config.json", {})
    if "decoder" in given["files"] and "added_tokens_decoder" in config:
        config["added_tokens_decoder"][str(number)] = token
    if "added_tokens.json" in given["files"]:
        contents.files.setdefault("added_tokens.json", {})[token["content"]] = number
    if "special_tokens_map.json" in given["files"]:
        named = contents.files.setdefault("special_tokens_map.json", {})
        named.setdefault("additional_special_tokens", []).append(token["content"])


def _shift_ids(contents: Contents, by: int) -> None:
    """Give every token a later id, in all files that name ids."""
    tokenizer = contents.files["tokenizer.json"]
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):
        return  # an id is the place in the list
    tokenizer["model"]["vocab"] = {token: number + by for token, number in vocabulary.items()}
    for token in tokenizer["added_tokens"]:
        token["id"] += by
    for token in (tokenizer["post_processor"] or {}).get("special_tokens", {}).values():
        token["ids"] = [number + by for number in token["ids"]]
    config = contents.files.get("tokenizer_config.json", {})
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = {str(int(n) + by): t for n, t in config["added_tokens_decoder"].items()}


# Modules


def _add_dense(contents: Contents, given: dict[str, Any]) -> None:
    """Put a Dense layer among the modules, by default behind those before it; position 1 is before the pooling."""
    modules = contents.files.get(MODULES)
    if modules is None:
        return
    earlier = [name for name in contents.tensors if name.endswith("_Dense/model.safetensors")]
    size = contents.tensors[earlier[-1]]["linear.weight"].shape[0] if earlier else hidden_size(contents)
    rng = np.random.default_rng(given["seed"])
    outputs = int(rng.choice([size, size + 4, max(size // 2, 2)]))
    content = {"in_features": size, "out_features": outputs, "bias": given["bias"], **given["extra"]}
    if given["activation"] is not None:
        content["activation_function"] = given["activation"]
    tensors = {"linear.weight": rng.standard_normal((outputs, size)) / size**0.5}
    if given["bias"]:
        tensors["linear.bias"] = rng.standard_normal(outputs)
    if content.get("use_residual") and outputs != size:
        tensors["residual.weight"] = rng.standard_normal((outputs, size)) / size**0.5
    folder = f"{2 + len(earlier)}_Dense"
    contents.files[f"{folder}/config.json"] = content
    contents.tensors[f"{folder}/model.safetensors"] = {n: t.astype(np.float32) for n, t in tensors.items()}
    modules.insert(min(given["position"] + len(earlier), len(modules)), module("Dense", folder))
    numbered(modules)


def _remove(kind: str) -> Callable[[Contents, Modules], None]:
    def change(_contents: Contents, modules: Modules) -> None:
        modules[:] = [entry for entry in modules if not entry["type"].endswith(kind)]

    return change


def _move_transformer(contents: Contents, modules: Modules) -> None:
    """Put the transformer's files into a folder of their own, as the first versions did."""
    for held in (contents.files, contents.tensors):
        for name in [name for name in held if "/" not in name]:
            if name not in (MODULES, "config_sentence_transformers.json"):
                held[f"0_Transformer/{name}"] = held.pop(name)
    modules[0]["path"] = "0_Transformer"


def _new_types(_contents: Contents, modules: Modules) -> None:
    for entry in modules:
        entry["type"] = _NEW_TYPES.get(entry["type"].rpartition(".")[2], entry["type"])


def _layer_norm(contents: Contents, modules: Modules) -> None:
    size = hidden_size(contents)
    modules.insert(2, module("LayerNorm", "9_LayerNorm"))
    contents.files["9_LayerNorm/config.json"] = {"dimension": size}
    norm = {"norm.weight": np.linspace(1, 3, size, dtype=np.float32), "norm.bias": np.ones(size, np.float32)}
    contents.tensors["9_LayerNorm/model.safetensors"] = norm


def _dropout(contents: Contents, modules: Modules) -> None:
    modules.insert(2, module("Dropout", "9_Dropout"))
    contents.files["9_Dropout/config.json"] = {"dropout": 0.5}


def _other_pooling_folder(contents: Contents, modules: Modules) -> None:
    contents.files["pooling/config.json"] = {"word_embedding_dimension": hidden_size(contents), "pooling_mode": "cls"}
    modules[1]["path"] = "pooling"


MODULE_LISTS: dict[str, Callable[[Contents, Modules], None]] = {
    "another pooling folder": _other_pooling_folder,
    "dropout": _dropout,
    "foreign": lambda _, modules: modules[0].update(type="custom_st.Transformer"),
    "kwargs": lambda _, modules: modules[0].update(kwargs=["task"]),
    "layer norm": _layer_norm,
    "new types": _new_types,
    "no normalize": _remove("Normalize"),
    "no pooling": _remove("Pooling"),
    "no transformer": _remove("Transformer"),
    "normalize before pooling": lambda _, modules: modules.insert(1, module("Normalize", "9_Normalize")),
    "only transformer": lambda _, modules: modules.__delitem__(slice(1, None)),
    "reversed": lambda _, modules: modules.reverse(),
    "transformer in a folder": _move_transformer,
    "two poolings": lambda _, modules: modules.insert(2, dict(modules[1])),
}


def _modules(contents: Contents, how: str) -> None:
    """Change the list of modules, where there is one."""
    modules = contents.files.get(MODULES)
    if modules is not None and len(modules) > 1:
        MODULE_LISTS[how](contents, modules)
        numbered(modules)


# Weights


def _dtype(name: str) -> Callable[[Contents, str], None]:
    def change(contents: Contents, _file: str) -> None:
        contents.dtype = name

    return change


def _rename(change_key: Callable[[str], str]) -> Callable[[Contents, str], None]:
    def change(contents: Contents, file: str) -> None:
        contents.tensors[file] = {change_key(key): tensor for key, tensor in contents.tensors[file].items()}

    return change


def _own_prefix(contents: Contents, file: str) -> None:
    """Store the tensors as a model with a head does."""
    kind = contents.files["config.json"].get("model_type")
    prefix = "model" if kind in DECODERS else {"xlm-roberta": "roberta"}.get(kind, kind)
    _rename(lambda key: f"{prefix}.{key.removeprefix(f'{prefix}.')}")(contents, file)  # it may be drawn twice


def _shards(contents: Contents, file: str) -> None:
    tensors = contents.tensors.pop(file)
    keys = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
    contents.tensors |= {name: {key: tensors[key] for key in half} for name, half in halves.items()}
    mapping = {key: name for name, half in halves.items() for key in half}
    contents.files[INDEX] = {"metadata": {"total_size": 0}, "weight_map": mapping}


def _index_beside(contents: Contents, file: str) -> None:
    """Add an index that names another file with other weights."""
    tensors = contents.tensors[file]
    contents.files[INDEX] = {"weight_map": dict.fromkeys(tensors, "other.safetensors")}
    contents.tensors["other.safetensors"] = {key: tensor * np.float32(0.5) for key, tensor in tensors.items()}


def _attention_biases(contents: Contents, file: str) -> None:
    tensors = contents.tensors[file]
    for key in [key for key in tensors if key.endswith("_proj.weight") and "self_attn" in key]:
        tensors[key.replace("weight", "bias")] = np.linspace(-1, 1, tensors[key].shape[0], dtype=np.float32)
    contents.files["config.json"]["attention_bias"] = True


def _add(make: Callable[[Tensors], Tensors]) -> Callable[[Contents, str], None]:
    def change(contents: Contents, file: str) -> None:
        contents.tensors[file] |= make(contents.tensors[file])

    return change


def _position_ids(tensors: Tensors) -> Tensors:
    positions = tensors.get("embeddings.position_embeddings.weight")
    return {} if positions is None else {"embeddings.position_ids": np.arange(len(positions), dtype=np.int64)[None]}


def _drop(chosen: Callable[[list[str]], list[str]]) -> Callable[[Contents, str], None]:
    def change(contents: Contents, file: str) -> None:
        for key in chosen(sorted(contents.tensors[file])):
            del contents.tensors[file][key]

    return change


WEIGHT_FILES: dict[str, Callable[[Contents, str], None]] = {
    "attention biases": _attention_biases,
    "bfloat16": _dtype("bfloat16"),
    "extra tensor": _add(lambda _: {"adapter.weight": np.ones((2, 2), np.float32)}),
    "float16": _dtype("float16"),
    "index of another file": _index_beside,
    "lm head": _add(lambda tensors: {"lm_head.weight": np.ones((4, 8), np.float32)} if tensors else {}),
    "missing tensor": _drop(lambda keys: keys[len(keys) // 2 :][:1]),
    "no pooler": _drop(lambda keys: [key for key in keys if key.startswith("pooler.")]),
    "old names of norms": _rename(
        lambda key: key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    ),
    "own prefix": _own_prefix,
    "position ids": _add(_position_ids),
    "prefix 0.": _rename(lambda key: f"0.{key}"),
    "prefix bert.": _rename(lambda key: f"bert.{key}"),
    "prefix encoder.": _rename(lambda key: f"encoder.{key}"),
    "prefix language_model.": _rename(lambda key: f"language_model.{key}"),
    "prefix model.": _rename(lambda key: f"model.{key}"),
    "prefix roberta.": _rename(lambda key: f"roberta.{key}"),
    "shards": _shards,
}


def _weights(contents: Contents, how: str) -> None:
    """Change how the tensors of the transformer are stored."""
    file = WEIGHTS if WEIGHTS in contents.tensors else f"0_Transformer/{WEIGHTS}"
    if file in contents.tensors and "config.json" in contents.files:
        WEIGHT_FILES[how](contents, file)


CHANGES: dict[str, Callable[[Contents, Any], None]] = {
    "add_token": _add_token,
    "add_dense": _add_dense,
    "shift_ids": _shift_ids,
    "modules": _modules,
    "weights": _weights,
}
