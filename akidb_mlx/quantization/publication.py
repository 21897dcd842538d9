"""The publication of a quantised model on the Hub."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from akidb_mlx.fidelity.answers import ANSWERS, read_answers
from akidb_mlx.fidelity.json_files import CARD
from akidb_mlx.quantization.model_card import check_publishable, find_base_model, model_card
from model_cache.files import list_names
from model_cache.names import RepoName
from model_cache.upload import push_files

_MODEL_CARD = "README.md"


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
    repo, base_model = RepoName.parse(name).repo_id, base_model or find_base_model(path)
    card = card.model_copy(
        update={"model": _repository(card.model, repo), "original": _repository(card.original, base_model)}
    )
    readme = model_card(path, repo, card, base_model, licence)
    names = [one for one in sorted(list_names(path)) if not any(part.startswith(".") for part in Path(one).parts)]
    files: dict[str, Path | bytes] = {one: path / one for one in names}
    files |= {_MODEL_CARD: readme.encode(), CARD: card.model_dump_json(indent=1).encode()}
    if answers := read_answers(path / ANSWERS):
        answers = answers.model_copy(update={"model": _repository(answers.model, base_model)})
        files[ANSWERS] = answers.model_dump_json(indent=1).encode()
    return push_files(files, name, f"Add {card.model}", private=private)


def _repository(name: str, repo: str) -> str:
    """Return the name of a model as others know it: a folder of this machine's by its repository."""
    return repo if Path(name).is_absolute() or Path(name).is_dir() else name
