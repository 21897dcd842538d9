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
from akidb_mlx.checkpoint.prompts import choose_prompt
from akidb_mlx.checkpoint.sentence_config import read_model_config
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.integrations.similarity import Scores, SimilarityName, pairwise_similarity, similarity
from akidb_mlx.options import EmbedOptions
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
        name = _full_name(model_name_or_path, revision)
        self.embedder = EmbeddingService(name, device=_DEVICES[device], auto_download=not local_files_only)
        directory = Path(self.embedder.get_model_info()["path"])
        config = read_model_config(directory)
        self._normalizes, self._is_routed = _read_end(directory)
        # The library gives every model these two, empty where nothing else is said.
        self._stored = {"query": "", "document": "", **(config.get("prompts") or {})}
        self.prompts = {**self._stored, **(prompts or {})}
        self.default_prompt_name = default_prompt_name or config.get("default_prompt_name")
        self._choose_prompt(None, None, None)  # the default one is there
        self.similarity_fn_name = _similarity_name(similarity_fn_name or config.get("similarity_fn_name") or "cosine")
        self.truncate_dim = truncate_dim or config.get("truncate_dim")

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
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
            **others: `sentences`, the former name of `inputs`, and `task`; all else is refused by name.

        Raises:
            InvalidInputError: a text or an argument is not usable.
            AkidbMlxError: see `Embedder.embed_detailed`.
        """
        given = others.pop("sentences", inputs)
        if given is None:
            raise InvalidInputError("inputs must be a string or several, found None")
        task = others.pop("task", None)
        _refuse(others, {"pool": "one process uses the whole device"})
        for name, value, only in (
            ("output_value", output_value, "sentence_embedding"),
            ("convert_to_numpy", convert_to_numpy, True),
            ("convert_to_tensor", convert_to_tensor, False),
            ("device", device, None),
        ):
            if value != only:
                raise InvalidInputError(f"{name}={value!r} is not supported: vectors are NumPy arrays; leave it out")
        if precision not in get_args(Precision):
            raise InvalidInputError(f"precision must be one of {', '.join(get_args(Precision))}, found {precision!r}")
        options = self._choose_prompt(prompt_name, prompt, task)
        texts = [given] if isinstance(given, str) else list(given)
        vectors = self._embed(texts, options, normalize_embeddings, truncate_dim or self.truncate_dim)
        if precision != "float32" and texts:
            ranges = calibration_ranges(vectors) if precision in ("int8", "uint8") else None
            vectors = quantize(vectors, precision, ranges)
        return vectors[0] if isinstance(given, str) else vectors

    def encode_query(
        self, inputs: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> OutputVectors:
        """Return the vectors of texts to search with: as `encode`, with the prompt "query" where none is given."""
        name = "query" if prompt_name is None and prompt is None else prompt_name
        return self.encode(inputs, name, prompt, task="query", **options)

    def encode_document(
        self, inputs: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> OutputVectors:
        """Return the vectors of texts to be found: as `encode`, with the prompt "document" where none is given."""
        name = "document" if prompt_name is None and prompt is None else prompt_name
        return self.encode(inputs, name, prompt, task="document", **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Scores:
        """Return the similarity of each of the first vectors to each of the second ones."""
        return similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Scores:
        """Return the similarity of each of the first vectors to the second one in the same place."""
        return pairwise_similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def get_embedding_dimension(self) -> int:
        """Return how many values a vector has."""
        native = self.embedder.get_model_info()["native_dimension"]
        return min(native, self.truncate_dim or native)

    get_sentence_embedding_dimension = get_embedding_dimension  # its former name

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Keep the first `truncate_dim` values of vectors inside the `with` block."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    @property
    def max_seq_length(self) -> int:
        """Return the most tokens of a text, special tokens included."""
        return self.embedder.max_tokens

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        if tokens != self.max_seq_length:
            raise InvalidInputError(
                f"max_seq_length={tokens!r} is not supported: a text is cut at the model's own limit of "
                f"{self.max_seq_length} tokens"
            )

    def _choose_prompt(self, name: str | None, prompt: str | None, task: str | None) -> EmbedOptions:
        """Return the option that puts the right prompt before each text, and leads it through the right route."""
        if task not in (None, "query", "document"):
            raise InvalidInputError(f"task must be query, document or None, found {task!r}")
        if prompt is None:
            name = self.default_prompt_name if name is None else name
            if name is not None and name not in self.prompts:
                raise InvalidInputError(
                    f"prompt_name {name!r} is none of this model's prompts: {', '.join(self.prompts)}"
                )
            prompt = self.prompts[name] if name is not None else ""
        if task is None or not self._is_routed:
            return {"prompt": prompt}
        if prompt != choose_prompt(self._stored, task, None):
            raise InvalidInputError(
                f"another prompt than the model's own for the task {task!r} is not supported, since its texts take "
                "routes by their task"
            )
        return {"input_type": task}

    def _embed(self, texts: list[str], options: EmbedOptions, normalize: bool, size: int | None) -> OutputVectors:
        """Return vectors, cut and normalised in the order in which the library does both."""
        native = self.embedder.get_model_info()["native_dimension"]
        size = None if size is None else min(size, native)
        self.embedder.parse_options({"dimensions": size})  # refused, where the model was not trained for it
        if self._normalizes and not normalize:  # the model's own vectors have length 1, and what is cut of them less
            options = {**options, "dimensions": native}
            return np.ascontiguousarray(self.embedder.embed_array(texts, **options)[:, :size])
        options = {**options, "dimensions": size or native, "normalize": normalize}
        return self.embedder.embed_array(texts, **options)


def _full_name(name: str, revision: str | None) -> str:
    """Return a model's name with its revision, and with the organisation that the library adds to one without."""
    if revision is not None and name in CATALOG:
        name = CATALOG[name].repo_id
    known = "/" in name or name in CATALOG or Path(name).exists()
    full = name if known else f"sentence-transformers/{name}"
    return full if revision is None else f"{full}@{revision}"


def _read_end(directory: Path) -> tuple[bool, bool]:
    """Return whether a model normalises its vectors itself, and whether its texts take routes by their task."""
    path = directory / "modules.json"
    if not is_file(path):
        return False, False
    modules = list_modules(path)
    if modules[0].kind == "StaticEmbedding":
        return modules[-1].kind == "Normalize", False
    chains = read_modules(directory).chains.values()
    ends = {chain[-1].kind == "Normalize" for chain in chains}
    if len(ends) > 1:
        raise ModelLoadError(f"{path}: only some of its routes end in Normalize, which is not supported here")
    return ends.pop(), len(chains) > 1


def _similarity_name(name: str) -> SimilarityName:
    if name not in get_args(SimilarityName):
        raise InvalidInputError(
            f"similarity_fn_name must be one of {', '.join(get_args(SimilarityName))}, found {name!r}"
        )
    return cast("SimilarityName", name)


def _refuse(arguments: Mapping[str, Any], instead: Mapping[str, str]) -> None:
    """Refuse arguments that ask for something; None, an empty collection and what changes no vector ask for nothing.

    Raises:
        InvalidInputError: there is one; the message names it.
    """
    for name, value in arguments.items():
        if value is None or value == {} or (isinstance(value, dict) and set(value) <= _HARMLESS_KWARGS):
            continue
        raise InvalidInputError(
            f"the argument {name} is not supported" + (f": {instead[name]}" if name in instead else "")
        )
