"""Names given from outside, checked before any path is built from them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_cache.errors import InvalidModelNameError

# The Hub's own rule for repositories: letters, digits, "-", "_" and ".", no leading or trailing "-" or ".", 96 at most.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO_ID = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,127}")
# A file that is a model by itself, perhaps in a folder.
_FILE = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/){0,3}[A-Za-z0-9_][A-Za-z0-9._-]{0,120}\.gguf", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# With one slash too, which a Path leaves of two. A single letter is a drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class RepoName:
    """A model on the Hub: a repository, or a GGUF file of one.

    Attributes:
        repo_id: `org/repo`, or `org/repo:file.gguf`.
        revision: the one that is wanted, None for any.
    """

    repo_id: str
    revision: str | None = None

    @property
    def repository(self) -> str:
        """Return the repository, `org/repo`."""
        return self.repo_id.partition(":")[0]

    @property
    def file(self) -> str | None:
        """Return the name of the file in the repository that is the model; None where all of it is."""
        return self.repo_id.partition(":")[2] or None

    @classmethod
    def parse(cls, name: str, revision: str | None = None) -> RepoName:
        """Read `org/repo` or `org/repo@revision`, each perhaps with `:file.gguf` behind it.

        An explicit `revision` must not contradict the name's.

        Raises:
            InvalidModelNameError: the Hub can have no such repository or revision.
        """
        repository, colon, file = name.partition(":")
        repo_id, at, named = repository.partition("@")
        if at and revision not in (None, named):
            raise InvalidModelNameError(f"{name!r} names one revision and revision={revision!r} another: give one")
        revision = named if at else revision
        if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
            raise InvalidModelNameError(f"{repo_id!r} is not a repository name: expected org/repo")
        if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
            raise InvalidModelNameError(f"{revision!r} is not a revision: expected a branch, a tag or a commit")
        if colon and (not _FILE.fullmatch(file) or ".." in file or "--" in file.rpartition("/")[0]):
            raise InvalidModelNameError(f"{file!r} is not a GGUF file of a repository: expected org/repo:file.gguf")
        return cls(f"{repo_id}{colon}{file}", revision)

    @property
    def folder(self) -> str:
        """Return the name of its folder, which is unique because a repository's name cannot contain "--"."""
        return self.repo_id.replace("/", "--")

    def __str__(self) -> str:
        if self.revision is None:
            return self.repo_id
        return f"{self.repository}@{self.revision}" + (f":{self.file}" if self.file else "")


def is_commit(text: str) -> bool:
    """Return whether a text is the full name of a commit."""
    return _COMMIT.fullmatch(text) is not None


def check_commit(text: str) -> None:
    """Refuse a text that is not the full name of a commit.

    Raises:
        InvalidModelNameError: it is not.
    """
    if not is_commit(text):
        raise InvalidModelNameError(f"{text!r} is not a commit: expected 40 hexadecimal digits")


def is_url(text: str) -> bool:
    """Return whether a path is a URL, which would be taken for a folder of this machine."""
    return _URL.match(text) is not None
