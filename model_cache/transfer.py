"""The files of a model from the Hub, one by one, continued where they were cut off and verified."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from model_cache import exchange
from model_cache.description import RemoteFile, RemoteModel
from model_cache.errors import CorruptModelError, DownloadError
from model_cache.names import RepoName
from model_cache.progress import Progress
from model_cache.retries import retry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transfer:
    """The transfer of a model's files into a folder.

    Attributes:
        model: the model.
        folder: where its files go.
        deadline: by `time.monotonic`, when to give up.
        report: told of every number of bytes received; a negative number takes some back.
        make_space: asked for space for a number of bytes, once the first of them have arrived.
    """

    model: RemoteModel
    folder: Path
    deadline: float
    report: Progress
    make_space: Callable[[int], None]

    def fetch(self, file: RemoteFile) -> None:
        """Download a file, continuing after the bytes that an interrupted download left.

        Raises:
            CorruptModelError: it arrived twice with a different hash than the Hub declares.
            DownloadError: the network kept failing, the deadline passed, or the answers are malformed.
            ModelUnavailableError: the Hub refuses the file.
        """
        repo = RepoName(self.model.repo_id, self.model.commit)
        part = _part(file, self.folder)
        part.parent.mkdir(parents=True, exist_ok=True)
        self.report(received_bytes(file, self.folder))
        for _ in range(2):
            # As long as some attempts bring anything, there are as many again.
            while (before := received_bytes(file, self.folder)) < file.size or not part.exists():
                try:
                    retry(partial(self._receive, file, part), repo, self.deadline)
                except DownloadError:
                    if received_bytes(file, self.folder) <= before:
                        raise
            if file.is_at(part):
                part.replace(self.folder / file.name)
                return
            logger.warning("%s: %s arrived with a different hash than the Hub declares", repo, file.name)
            self.report(-received_bytes(file, self.folder))
            part.unlink()
        kind = "SHA-256" if file.sha256 else "git hash"
        raise CorruptModelError(
            f"{file.name} of {repo} arrived twice with a different {kind} than the Hub declares "
            f"({file.sha256 or file.git_sha1}); a proxy may be changing it: try another network, or report it to the "
            "repository's owner"
        )

    def _receive(self, file: RemoteFile, part: Path) -> None:
        """Ask once for the bytes that a part lacks. The client itself would start a file anew after a failure."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(RepoName(self.model.repo_id).repository, file.name, revision=self.model.commit)
        with part.open("ab") as out:
            size = out.tell()
            asked = {"Range": f"bytes={size}-"} if size else {}
            with exchange.get(url, self.deadline, **asked) as answer:
                first = _first_byte(answer)
                if first != size:  # the whole file, from its beginning, or a range that was not asked for
                    self.report(-size)
                    size = out.truncate(0)
                if first != size:
                    raise ConnectionError(f"the answer to {answer.path} is another range than was asked for")
                for number, piece in enumerate(answer.body):
                    if number == 0:
                        self.make_space(file.size - size)
                    out.write(piece)
                    size += len(piece)
                    self.report(len(piece))
                    if size > file.size:
                        return
        if size < file.size:
            raise ConnectionError(f"the connection ended after {size} of {file.size} bytes of {file.name}")


def received_bytes(file: RemoteFile, folder: Path) -> int:
    """Return how many bytes of a file an interrupted download left in a folder."""
    part = _part(file, folder)
    return part.stat().st_size if part.is_file() else 0


def _part(file: RemoteFile, folder: Path) -> Path:
    return folder / f"{file.name}.part"


def _first_byte(answer: exchange.Answer) -> int | None:
    """Return which byte of a file an answer begins with, None where it does not say."""
    if answer.status == 200:
        return 0
    found = re.match(r"bytes (\d{1,20})-", answer.headers.get("Content-Range", ""), re.ASCII)
    return int(found[1]) if found else None
