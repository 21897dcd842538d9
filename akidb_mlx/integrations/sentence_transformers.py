"""A model with the methods of sentence-transformers, for programs that were written for that library.

    from akidb_mlx.integrations.sentence_transformers import SentenceTransformer

    model = SentenceTransformer("all-MiniLM-L6-v2")
    vectors = model.encode(["Hello, world!"])

The vectors are those of sentence-transformers, as NumPy arrays. An argument that could not change them is accepted and
ignored; one that asks for something that this class does not do is refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from akidb_mlx.catalog import CATALOG
from akidb_mlx.checkpoint.files import is_file
from akidb_mlx.checkpoint.modules import list_modules, read_modules
from akidb_mlx.checkpoint.sentence_config import read_model_config
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.integrations.similarity import Scores, SimilarityName, pairwise_similarity, similarity
from akidb_mlx.options import OUTPUT_DTYPES, EmbedOptions, OutputDtype
from akidb_mlx.quantized import OutputVectors, calibration_ranges, quantize
from akidb_mlx.service import EmbeddingService

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]

_DEVICES = {None: None, "cpu": "cpu", "mps": "gpu", "gpu": "gpu", "auto": "auto"}
# Arguments of the constructor, and what takes their place.
_INSTEAD = {
    "modules": "name a model directory",
    "cache_folder": "set AKIDB_CACHE_DIR",
    "token": "set HF_TOKEN",
    "use_auth_token": "set HF_TOKEN",
    "model_kwargs": "set AKIDB_PRECISION for another precision",
}
# What chooses how a model is computed or padded, which is decided here by other means and changes no vector.
_HARMLESS_KWARGS = {"attn_implementation", "device_map", "padding_side"}


class SentenceTransformer:
    """A model that turns texts into vectors, as the class of the same name in sentence-transformers.

    Attributes:
        embedder: the service that computes.
        prompts: the strings to put before texts, by name.
        default_prompt_name: the one that is used where a call names none, or None.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        truncate_dim: how many of the first values vectors keep, or None for all.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        trust_remote_code: bool = False,  # noqa: ARG002 - no code of a repository is ever run
        revision: str | None = None,
        local_files_only: bool = False,
        truncate_dim: int | None = None,
        backend: str = "torch",
        model_card_data: object = None,  # noqa: ARG002 - only describes a model that is saved
        **others: Any,
    ) -> None:
        """Load a model, by a name of sentence-transformers, the Hub or this package's catalogue, or a directory.

        Raises:
            InvalidInputError: an argument is not supported; the message names it.
            AkidbMlxError: the model cannot be loaded.
        """
        _refuse(others, _INSTEAD)
        if backend != "torch":
            raise InvalidInputError(f"backend={backend!r} is not supported: MLX computes; leave it out")
        if device not in _DEVICES:
            raise InvalidInputError(f"device must be cpu, mps (or gpu) or None, found {device!r}")
        name = _repository(model_name_or_path) + (f"@{revision}" if revision else "")
        self.embedder = EmbeddingService(name, device=_DEVICES[device], auto_download=not local_files_only)
        directory = Path(self.embedder.get_model_info()["path"])
        config = read_model_config(directory)
        self._normalizes, self._is_routed = _read_end(directory)
        # The library gives every model these two, empty where nothing else is said.
        self._stored = {"query": "", "document": "", **(config.get("prompts") or {})}
        self.prompts = {**self._stored, **(prompts or {})}
        self.default_prompt_name = default_prompt_name or config.get("default_prompt_name")
        if self.default_prompt_name is not None:
            self._prompt(None, None)
        self.similarity_fn_name = _similarity_name(similarity_fn_name or config.get("similarity_fn_name") or "cosine")
        self.truncate_dim = truncate_dim or config.get("truncate_dim")

    def encode(
        self,
        inputs: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,  # noqa: ARG002 - batches are chosen by tokens
        show_progress_bar: bool | None = None,  # noqa: ARG002 - a library prints nothing
        output_value: str | None = "sentence_embedding",
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        **others: Any,
    ) -> OutputVectors:
        """Return the vectors of texts, (texts, dimension); of one string, (dimension,).

        Args:
            inputs: a string, or several.
            prompt_name: name of the prompt to put before each text; `default_prompt_name` if None.
            prompt: string to put before each text, in place of a named one.
            batch_size: ignored.
            show_progress_bar: ignored.
            output_value: "sentence_embedding"; there is no other.
            precision: type of the values; the ranges of int8 and uint8 are those of these texts.
            convert_to_numpy: True; there is nothing else to convert to.
            convert_to_tensor: False, likewise.
            device: None; the constructor chooses it.
            normalize_embeddings: whether vectors are divided by their length, where the model does not do so itself.
            truncate_dim: how many of the first values to keep; the attribute's if None.
            **others: `sentences`, the former name of `inputs`; all else is refused by name.

        Raises:
            InvalidInputError: a text or an argument is not usable.
            AkidbMlxError: see `Embedder.embed_detailed`.
        """
        _refuse(others, {"pool": "one process uses the whole device", "task": "call encode_query or encode_document"})
        for name, value, only in (
            ("output_value", output_value, "sentence_embedding"),
            ("convert_to_numpy", convert_to_numpy, True),
            ("convert_to_tensor", convert_to_tensor, False),
            ("device", device, None),
        ):
            if value != only:
                raise InvalidInputError(f"{name}={value!r} is not supported: vectors are NumPy arrays; leave it out")
        options: EmbedOptions = {"prompt": self._prompt(prompt_name, prompt)}
        return self._encode(inputs, options, precision, normalize_embeddings, truncate_dim)

    def encode_query(
        self, inputs: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> OutputVectors:
        """Return the vectors of texts to search with: as `encode`, with the prompt "query" where none is named."""
        return self._encode_role("query", inputs, prompt_name, prompt, options)

    def encode_document(
        self, inputs: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> OutputVectors:
        """Return the vectors of texts to be found: as `encode`, with the prompt "document" where none is named."""
        return self._encode_role("document", inputs, prompt_name, prompt, options)
