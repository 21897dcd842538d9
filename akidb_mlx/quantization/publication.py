"""The publication of a quantised model on the Hub."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from akidb_mlx.quantization.model_card import check_publishable, model_card
from model_cache.files import list_names
from model_cache.names import RepoName
from model_cache.upload import push_files

_CARD = "README.md"


def push_model(
    folder: str | PathLike[str],
    name: str,
    *,
    base_model: str | None = None,
    licence: str | None = None,
    private: bool = False,
) -> str:
    """Upload a model and its model card in one commit, and return the commit's address.

    Args:
        folder: the model, with its fidelity card.
        name: "org/repo" or "org/repo@branch" on the Hub.
        base_model: the original's repository; what the folder says if None.
        licence: by the Hub's name; the original's, by its model card, if None.
        private: whether a repository that is made is private.

    Raises:
        InvalidInputError: there is no fidelity card of these weights, or the base model or the licence is not known.
        ModelLoadError: files of the model are missing or damaged.
        ModelCacheError: the Hub cannot be reached, or refuses the files.
    """
    path = Path(fspath(folder))
    card = check_publishable(path)
    readme = model_card(path, RepoName.parse(name).repo_id, card, base_model, licence)
    names = [one for one in sorted(list_names(path)) if not any(part.startswith(".") for part in Path(one).parts)]
    files: dict[str, Path | bytes] = {one: path / one for one in names if one != _CARD}
    return push_files({**files, _CARD: readme.encode()}, name, f"Add {card.model}", private=private)
