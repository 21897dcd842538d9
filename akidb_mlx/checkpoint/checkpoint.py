"""The contents of a model directory, read from its files before anything is loaded.

The checkpoint's own files take precedence over the architecture's documented rules; a checkpoint is refused where both
are silent.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.config import EncoderConfig, parse_config
from akidb_mlx.checkpoint.architectures.static import BARE
from akidb_mlx.checkpoint.files import is_file, read_json, read_optional_json
from akidb_mlx.checkpoint.head import Head, Pooling
from akidb_mlx.checkpoint.head_modules import HeadReader
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.checkpoint.modules import EVERY_ROLE, ModuleList, read_modules
from akidb_mlx.checkpoint.purpose import check_additions, check_heads, check_not_colbert
from akidb_mlx.checkpoint.quantization import QuantizationConfig, read_quantization
from akidb_mlx.checkpoint.sentence_config import read_model_config, read_transformer
from akidb_mlx.checkpoint.static import StaticTable, read_static
from akidb_mlx.checkpoint.tensors import StoredTensor, float_type, has_weights, read_tensors
from akidb_mlx.errors import ModelLoadError

if TYPE_CHECKING:
    from akidb_mlx.checkpoint.gguf import GgufHeader
    from akidb_mlx.checkpoint.multi_vector_head import MultiVector
    from akidb_mlx.checkpoint.scoring import Scoring
    from akidb_mlx.checkpoint.sparse_head import SparseHead


@dataclass(frozen=True)
class Checkpoint:
    """The description of a model, from the files of its directory.

    Attributes:
        directory: the model directory.
        model_type: `model_type` in config.json, a key of `ARCHITECTURES`; for a static model "model2vec" or "static".
        config: the content of config.json, or its part that describes the encoder of texts.
        encoder_config: what the encoder reads of it, checked.
        tensors: every stored tensor by the name that the encoder or a module after it uses.
        quantization: the packing of the layers that have scales.
        dtype: the floating type that most tensors are stored in.
        heads: for each route, what follows the encoder; a model without a Router has one route, "".
        routes: the route of a text for each role that has one: "query", "document" or None.
        stated_embedder: whether sentence-transformers' files say that it is an embedding model.
        prompts: named prompts.
        truncate_dim: how many values of a vector its publisher keeps by default, or None for all.
        max_tokens: most tokens of a text that the model reads, special tokens included.
        lower_case: whether texts are lower-cased before the tokenizer's own normalisation.
        gguf: the header of the GGUF file, whose model has neither `config` nor `tensors`; None for any other.
        static: the table of a static model, which has no encoder and no `tensors`; None for any other.
        scoring: how a reranker scores a pair of texts; None in an embedding model.
        sparse: for each route of a sparse model, the head that it has in place of those in `heads`; None in any other.
        multi_vector: the same for a multi-vector model.
        towers: the encoders that a Router leads to, where it is the first module: a checkpoint for each, with its own
            folder, tokenizer and routes. Empty in a model of one encoder. The attributes of one encoder are those of
            the first tower then, and `max_tokens` is the smallest.
    """

    directory: Path
    model_type: str
    config: dict[str, Any]
    encoder_config: EncoderConfig
    tensors: dict[str, StoredTensor]
    quantization: QuantizationConfig
    dtype: str
    heads: Mapping[str, Head]
    routes: Mapping[str | None, str]
    stated_embedder: bool
    prompts: dict[str, str]
    truncate_dim: int | None
    max_tokens: int
    lower_case: bool
    gguf: GgufHeader | None = None
    static: StaticTable | None = None
    scoring: Scoring | None = None
    sparse: Mapping[str, SparseHead] | None = None
    multi_vector: MultiVector | None = None
    towers: tuple[Checkpoint, ...] = ()

    @property
    def encoders(self) -> tuple[Checkpoint, ...]:
        """Return the checkpoint of each encoder."""
        return self.towers or (self,)

    @property
    def architecture(self) -> Architecture:
        """Return the record of this model type, with the rules that are for this model."""
        if self.static is not None or self.gguf is not None:
            return BARE
        return ARCHITECTURES[self.model_type].for_config(self.encoder_config)

    @property
    def pooling(self) -> str:
        """Return how token vectors become one vector, as in "mean" or "cls+mean"; the ways of several routes."""
        return "; ".join(dict.fromkeys(str(head.pooling) for head in self.heads.values()))

    @property
    def pooling_source(self) -> str:
        """Return the files or the rule that decide the pooling, for a person."""
        return "; ".join(dict.fromkeys(head.pooling.source for head in self.heads.values()))

    @property
    def architectures(self) -> str:
        """Return the model types of its encoders."""
        return "; ".join(dict.fromkeys(encoder.model_type for encoder in self.encoders))

    @property
    def quantization_summary(self) -> str | None:
        """Describe how the quantised layers are packed; None where no layer is quantised."""
        if self.gguf is not None:
            return self.gguf.quantization
        if self.static is not None:
            return self.static.dtype if self.static.dtype == "int8" else None
        packings = {
            str(encoder.quantization.of(name.removesuffix(".scales")))
            for encoder in self.encoders
            for name in encoder.tensors
            if name.endswith(".scales")
        }
        return "; ".join(sorted(packings)) or None


def read_checkpoint(directory: Path, *, weights: bool = True) -> Checkpoint:
    """Read a model directory's configuration and tensor headers. Nothing from it is executed.

    Args:
        directory: the model directory.
        weights: whether the encoder's weights must be there; else there may be none.

    Raises:
        ModelLoadError: a file is missing or malformed, or asks for something that is not supported.
    """
    if (static := read_static(directory, read_optional_json(directory / "config.json"))) is not None:
        return _static_checkpoint(directory, static)
    model = read_model_config(directory)  # first, since it says whether this is another kind of model
    modules = read_modules(directory)
    folders = dict.fromkeys(chain[0].folder for chain in modules.chains.values())
    if not modules.routed_first:
        _check_folders(directory, folders)
        return _read_encoder(directory, directory, model, modules, weights)
    towers = tuple(_read_tower(directory, folder, model, modules.beginning_in(folder)) for folder in folders)
    return replace(
        towers[0],
        directory=directory,
        heads={route: tower.heads[route] for tower in towers for route in tower.heads},
        routes=modules.routes,
        max_tokens=min(tower.max_tokens for tower in towers),
        towers=towers,
    )


def _read_tower(directory: Path, folder: Path, model: dict[str, Any], modules: ModuleList) -> Checkpoint:
    """Return the description of one of several encoders; see `_read_encoder`."""
    try:
        return _read_encoder(directory, folder, model, modules)
    except ModelLoadError as error:
        raise ModelLoadError(f"{cut(folder.name)}: {error}") from error


def _read_encoder(
    directory: Path, folder: Path, model: dict[str, Any], modules: ModuleList, weights: bool = True
) -> Checkpoint:
    """Return the description of an encoder and of what follows it.

    Args:
        directory: the model directory.
        folder: that of the encoder's files.
        model: the content of config_sentence_transformers.json.
        modules: the modules of the routes that begin with the encoder.
        weights: whether its weights must be there.
    """
    config_path = folder / "config.json"
    config, model_type = read_config(config_path)
    architecture = ARCHITECTURES[model_type]
    check_not_colbert(config_path, config)
    config = text_config(config_path, config, architecture)
    encoder_config = parse_config(architecture.config, config)
    architecture = architecture.for_config(encoder_config)
    transformer = read_transformer(folder)
    tensors = read_tensors(folder, architecture) if weights or has_weights(folder) else {}
    check_heads(tensors)
    reader = HeadReader(directory, config, architecture, modules, tensors)
    heads = {route: reader.read(chain) for route, chain in modules.chains.items()}
    dtype = float_type(tensors.values()) if tensors else "float32"
    quantization = read_quantization(config_path, config, architecture)
    if tensors:
        check_layers(config_path, quantization, tensors | reader.tensors)
    return Checkpoint(
        directory=folder,
        model_type=model_type,
        config=config,
        encoder_config=encoder_config,
        tensors=tensors | reader.tensors,
        quantization=quantization,
        dtype=dtype,
        heads=heads,
        routes=modules.routes,
        stated_embedder=modules.listed or bool(model) or is_file(directory / "1_Pooling/config.json"),
        prompts=model["prompts"] if model.get("prompts") is not None else dict(architecture.prompts),
        truncate_dim=model.get("truncate_dim"),
        max_tokens=read_max_tokens(folder, config, encoder_config, transformer),
        lower_case=transformer.get("do_lower_case") is True,
    )


def _static_checkpoint(directory: Path, static: StaticTable) -> Checkpoint:
    """Return the description of a static model."""
    model = read_model_config(directory)
    return Checkpoint(
        directory=directory,
        model_type="model2vec" if static.model2vec else "static",
        config={},
        encoder_config=EncoderConfig(vocab_size=static.tokens, hidden_size=static.dimension),
        tensors={},
        quantization=QuantizationConfig(None, {}),
        dtype=static.dtype,
        heads={"": Head(Pooling(("mean",), source="config.json" if static.model2vec else "modules.json"))},
        routes=EVERY_ROLE,
        stated_embedder=True,
        prompts=model.get("prompts") or {},
        truncate_dim=model.get("truncate_dim"),
        max_tokens=static.max_tokens,
        lower_case=False,
        static=static,
    )


def read_config(path: Path) -> tuple[dict[str, Any], str]:
    """Return the content of config.json, and its `model_type`.

    Raises:
        ModelLoadError: it is missing or malformed, of no architecture that is supported, or has an adapter or code
            beside it.
    """
    config = read_json(path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        found = repr(cut(model_type)) if isinstance(model_type, str) else reprlib.repr(model_type)
        raise ModelLoadError(f"{path}: model_type {found} is not supported ({', '.join(ARCHITECTURES)})")
    architecture = ARCHITECTURES[model_type]
    known = architecture.own_code_flag is None or config.get(architecture.own_code_flag) is True
    check_additions(path.parent, config, architecture.own_code if known else ())
    return config, model_type


def text_config(path: Path, config: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Return the keys that describe the encoder of texts, once all keys of the file are known."""
    wrapper = architecture.wrapper
    if wrapper is None:
        architecture.keys.check(path, config)
        return config
    wrapper.check(path, config)
    text = config.get("text_config")
    if not isinstance(text, dict):
        raise ModelLoadError(f"{path}: text_config must be an object, found {reprlib.repr(text)}")
    architecture.keys.check(path, text, "text_config.")
    # The keys of the whole model count where they are outside `text_config` only.
    outer = {key: value for key, value in config.items() if key in wrapper.honoured and key != "text_config"}
    return {key: value for key, value in text.items() if key not in wrapper.honoured} | outer


def check_layers(path: Path, quantization: QuantizationConfig, tensors: dict[str, StoredTensor]) -> None:
    """Refuse a packing for a layer that is not stored: it would be looked up under another name, and be lost."""
    for layer, packing in quantization.overrides.items():
        if packing is not None and f"{layer}.weight" not in tensors:
            raise ModelLoadError(f"{path}: quantization names {cut(layer)!r}, and {cut(layer)}.weight is not stored")


def read_max_tokens(
    directory: Path, config: dict[str, Any], encoder_config: EncoderConfig, transformer: dict[str, Any]
) -> int:
    """Return the smallest of the limits in the files; no position beyond `max_position_embeddings` was trained."""
    stated = transformer.get("max_seq_length")
    if stated is None:
        stated = read_optional_json(directory / "tokenizer_config.json").get("model_max_length")
    positions = config.get("max_position_embeddings", getattr(encoder_config, "max_position_embeddings", None))
    limits = [limit for limit in (stated, positions) if limit is not None]
    if not limits or not all(isinstance(limit, int) and limit > 0 for limit in limits):
        raise ModelLoadError(
            f"{directory} does not say how many tokens the model takes: found max_seq_length or model_max_length "
            f"{reprlib.repr(stated)}, max_position_embeddings {reprlib.repr(positions)}"
        )
    if positions is not None:
        limits[-1] -= encoder_config.reserved_positions
    return int(min(limits))


def _check_folders(directory: Path, folders: Iterable[Path]) -> None:
    """Refuse an encoder that is not in the model's own folder: another may lie there."""
    for folder in folders:
        if folder != directory:
            raise ModelLoadError(
                f"{directory / 'modules.json'}: the Transformer lies in the folder "
                f"{cut(str(folder.relative_to(directory)))!r}, as in sentence-transformers' old layout, and "
                "is read from the model directory itself only; load the model with a recent sentence-transformers and "
                "save it again"
            )
