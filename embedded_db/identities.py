"""The identity of the models that vectors come from."""

from __future__ import annotations

from pathlib import Path

from akidb_mlx.catalog import find_record
from akidb_mlx.checkpoint.prompts import find_prompt_name
from akidb_mlx.embedder import Embedder
from embedded_db.records import ModelIdentity


def identity(embedder: Embedder) -> ModelIdentity:
    """Return the identity of the vectors that an embedder computes of messages."""
    info = embedder.get_model_info()
    prompt = find_prompt_name(info["prompts"], "document") or ""
    return ModelIdentity(canonical_name(info["model_name"]), info["revision"] or "", info["dimension"], prompt)


def canonical_name(name: str) -> str:
    """Return the one name of a model: the catalogue's, else its repository, else the whole path of its directory."""
    if record := find_record(name):
        return record.name
    if Path(name).is_dir():
        return str(Path(name).resolve())
    return name.partition("@")[0] or name


def named(name: str, dimension: int) -> ModelIdentity:
    """Return the identity of vectors of which no more is known than the name of their model."""
    return ModelIdentity(canonical_name(name), "", dimension, "")


def agree(one: ModelIdentity, other: ModelIdentity) -> bool:
    """Return whether vectors may be compared: a name alone is taken for any revision and prompt of that model."""
    if (one.name, one.dimension) != (other.name, other.dimension):
        return False
    return one == other or is_bare(one) or is_bare(other)


def is_bare(model: ModelIdentity) -> bool:
    """Return whether no more is known of a model than its name."""
    return not model.revision and not model.prompt
