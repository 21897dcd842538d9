"""A repository as the Hub describes it: JSON from outside, checked before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from model_cache import files
from model_cache.errors import DownloadError, ModelUnavailableError, excerpt
from model_cache.kinds import ENCODER_WEIGHTS, GGUF, can_omit_weights, kind_of
from model_cache.names import RepoName, is_commit

_LARGEST_SIZE = 2**63 - 1
_LONGEST_NAME = 1000
_GitHash = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, with the hash that the Hub declares for it."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None

    def is_at(self, path: Path) -> bool:
        """Return whether a path holds exactly this file."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return files.sha256(path) == self.sha256
        return files.git_sha1(path) == self.git_sha1


@dataclass(frozen=True)
class RemoteModel:
    """A repository at one commit: the files of it that a model needs."""

    repo_id: str
    commit: str
    licence: str | None
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)


class _Json(BaseModel):
    """A part of the description; fields that are not needed may be anything."""

    model_config = ConfigDict(strict=True, frozen=True)


class _Lfs(_Json):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Sibling(_Json):
    rfilename: Annotated[str, Field(max_length=_LONGEST_NAME)]
    size: Annotated[int, Field(ge=0, le=_LARGEST_SIZE)] | None = None
    blob_id: Annotated[_GitHash | None, Field(alias="blobId")] = None
    lfs: _Lfs | None = None


class _Description(_Json):
    sha: _GitHash
    siblings: Annotated[list[_Sibling], FailFast()]  # a list of a million faults has one
    card_data: Annotated[dict[str, Any] | None, Field(alias="cardData")] = None


def read_description(
    content: bytes, repo: RepoName, path: str, wanted: re.Pattern[str] | None = None, *, weights: bool = True
) -> RemoteModel:
    """Read what the Hub answers when it is asked for a repository.

    Args:
        content: the body of the answer.
        repo: the repository, and the revision that was asked for.
        path: the path that was asked for, for messages.
        wanted: pattern of the names of the files to describe; those that a model needs if None.
        weights: whether an encoder's weights are among these.

    Raises:
        DownloadError: it is not a description, or lacks what a download needs to know.
        InvalidModelNameError: it lists names from which no path may be built.
        ModelUnavailableError: the repository is not a supported model, or has none of the files.
    """
    try:
        description = _Description.model_validate_json(content)
    except ValidationError as error:
        raise _malformed(path, _first_fault(error)) from None
    if is_commit(repo.revision or "") and repo.revision != description.sha:
        raise _malformed(path, f"it is of commit {description.sha}")
    siblings = {sibling.rfilename: sibling for sibling in description.siblings}
    listed = [sibling.rfilename for sibling in description.siblings]  # a name that is listed twice is refused below
    names = files.select_needed(listed)
    if repo.file is not None:
        names = [name for name in listed if name == repo.file]
        if not names:
            raise ModelUnavailableError(f"{repo} on the Hub has no such file ({_list_files(siblings, '.gguf')})")
    elif wanted is not None:
        names = sorted(filter(wanted.fullmatch, listed))
        if not names:
            raise ModelUnavailableError(f"{repo} on the Hub has no such file ({_list_files(siblings, '.onnx')})")
    elif kind_of(siblings) is GGUF:
        raise ModelUnavailableError(
            f"{repo} on the Hub holds GGUF files, each a model by itself: name one, as in {repo}:file.gguf "
            f"({_list_files(siblings, '.gguf')})"
        )
    elif not weights and can_omit_weights(names):
        names = [name for name in names if not ENCODER_WEIGHTS.fullmatch(name)]
    elif not kind_of(siblings).matches(names):
        found = ", ".join(excerpt(name, 40) for name in sorted(siblings)[:8])
        raise ModelUnavailableError(
            f"{repo} on the Hub is not a supported model: it needs {kind_of(siblings).requirement}, and holds "
            f"{found or 'nothing'}{_hint_at_onnx(siblings)}"
        )
    if clash := _find_clash(names):
        raise _malformed(path, f"{clash} is listed twice, or as a file and as a folder")
    licence = (description.card_data or {}).get("license")
    return RemoteModel(
        repo_id=repo.repo_id,
        commit=description.sha,
        licence=excerpt(licence) if isinstance(licence, str) else None,
        files=tuple(_remote_file(siblings[name], path) for name in names),
    )


def _hint_at_onnx(names: Iterable[str]) -> str:
    """Return what to do about a repository that holds its model as ONNX files alone."""
    return '; its ONNX files can be used with backend="onnx"' if any(name.endswith(".onnx") for name in names) else ""


def _list_files(names: Iterable[str], ending: str) -> str:
    """Return the names of the files of a kind, cut."""
    found = ", ".join(excerpt(name, 60) for name in sorted(names) if name.lower().endswith(ending))
    return f"{ending[1:].upper()} files: {found[:400] or 'none'}"


def _remote_file(sibling: _Sibling, path: str) -> RemoteFile:
    if sibling.size is None or (sibling.lfs is None and sibling.blob_id is None):
        lacking = "size" if sibling.size is None else "hash"
        raise _malformed(path, f"no {lacking} of {sibling.rfilename}")
    return RemoteFile(
        name=sibling.rfilename,
        size=sibling.size,
        sha256=None if sibling.lfs is None else sibling.lfs.sha256,
        git_sha1=sibling.blob_id,
    )


def _find_clash(names: Sequence[str]) -> str | None:
    """Return a name that would be the same file as another, or its folder, on a disk that ignores case."""
    folded = [name.casefold() for name in names]
    taken = {str(folder) for name in folded for folder in PurePosixPath(name).parents}
    for name, key in zip(names, folded, strict=True):
        if key in taken:
            return name
        taken.add(key)
    return None


def _malformed(path: str, fault: str) -> DownloadError:
    return DownloadError(
        f"the answer to {path} is not a description of a model: {fault}; "
        "a login page or a proxy may be answering for the Hub: check the network and HF_ENDPOINT"
    )


def _first_fault(error: ValidationError) -> str:
    """Return the first of a validation's faults in words, with what was found, cut."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(map(str, fault["loc"]))
    found = fault["input"]
    if isinstance(found, bytes):
        shown = f"a text of {len(found)} bytes that begins with {found[:60].decode(errors='replace')!r}"
    elif isinstance(found, str):
        shown = excerpt(repr(found), 60)
    elif isinstance(found, float) or found is None or (isinstance(found, int) and abs(found) <= _LARGEST_SIZE):
        shown = repr(found)
    else:
        shown = type(found).__name__
    return f"{where + ': ' if where else ''}{excerpt(fault['msg'])}, found {shown}"
