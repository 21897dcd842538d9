"""A process that embeds directories, with this package or with sentence-transformers.

python -m tests.fuzz.worker akidb-mlx | sentence-transformers

The reference's own interpreter runs this module, too: nothing else of the tests is imported here.
"""

import logging
import re
import sys
from typing import Any

import numpy as np

from benchmarks.contestants import OURS, REFERENCE
from benchmarks.contestants.worker import serve

Answer = dict[str, Any]


class Ours:
    """This package."""

    def embed(self, directory: str, calls: list[tuple[str | None, list[str]]]) -> Answer:
        """Embed the texts of each call with its `input_type`; only errors of this package's own tree are refusals."""
        from akidb_mlx import EmbeddingService
        from akidb_mlx.errors import AkidbMlxError
        from model_cache.errors import ModelCacheError

        try:
            with EmbeddingService(directory, device="cpu") as service:

                def vectors(role: str | None, texts: list[str]) -> list[Any]:
                    try:
                        return service.embed(texts, input_type=role)
                    except AkidbMlxError:  # a text is at fault
                        return [one(text, role) for text in texts]

                def one(text: str, role: str | None) -> Any:
                    try:
                        return service.embed([text], input_type=role)[0]
                    except AkidbMlxError as error:
                        return _refusal(error)

                return {"vectors": {str(role): vectors(role, texts) for role, texts in calls}}
        except (AkidbMlxError, ModelCacheError) as error:
            return _refusal(error)


class Reference:
    """Sentence-transformers in float32, one text at a time, so that nothing is padded."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._log = _Messages()
        for name in ("transformers", "sentence_transformers"):
            logging.getLogger(name).addHandler(self._log)

    def embed(self, directory: str, calls: list[tuple[str | None, list[str]]]) -> Answer:
        """Embed texts without a prompt, and as queries and documents; any exception is a refusal."""
        from sentence_transformers import SentenceTransformer

        self._log.messages.clear()
        try:
            options = {"dtype": "float32"}
            model = SentenceTransformer(directory, device="cpu", local_files_only=True, model_kwargs=options)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - panics of the tokenizers library, too
            return _refusal(error)
        if random := self._log.random_tensors():
            return {"refused": f"weights are missing and were drawn at random: {', '.join(random)}"}
        encoders = {None: lambda text: model.encode(text, prompt=""), "query": model.encode_query}
        encoders["document"] = model.encode_document

        def one(text: str, role: str | None) -> Any:
            try:
                vector = np.asarray(encoders[role](text), np.float64)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001
                return _refusal(error)
            norm = np.linalg.norm(vector)
            if vector.ndim != 1 or not np.isfinite(norm) or norm < 1e-9:
                return {"refused": "not a finite vector other than zero"}
            return (vector / norm).tolist()

        return {"vectors": {str(role): [one(text, role) for text in texts] for role, texts in calls}}


class _Messages(logging.Handler):
    """Keeps what libraries log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def random_tensors(self) -> list[str]:
        """Return the tensors that matter and that the report on loading calls missing."""
        found = [name for message in self.messages for name in re.findall(r"^(\S+) *\| *MISSING", message, re.M)]
        return [name for name in found if not name.startswith("pooler.")]


def _refusal(error: BaseException) -> Answer:
    return {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}


if __name__ == "__main__":
    serve({OURS: Ours, REFERENCE: Reference}[sys.argv[1]])
