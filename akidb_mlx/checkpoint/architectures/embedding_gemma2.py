"""EmbeddingGemma 2: its text tower, alone or in the file of the whole model.

The prompts are those of google/embeddinggemma-2's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from akidb_mlx.checkpoint.architectures.architecture import Architecture
from akidb_mlx.checkpoint.architectures.common_keys import HARMLESS, ONLY
from akidb_mlx.checkpoint.architectures.config import ActivationName, LayerType, Size
from akidb_mlx.checkpoint.architectures.decoder import BiasedAttention
from akidb_mlx.checkpoint.architectures.gemma3 import GEMMA3
from akidb_mlx.checkpoint.architectures.rotary import ROTARY_ONLY
from akidb_mlx.checkpoint.known_keys import KnownKeys, Only, harmless, honoured, only
from akidb_mlx.errors import ModelLoadError

_TokenId = Annotated[int, Field(ge=0, lt=1 << 24)]


class HeadSizes(NamedTuple):
    """The sizes of attention that differ between the types of layers."""

    head_dim: int
    key_heads: int


class LayerOverrides(BaseModel):
    """An entry of `per_layer_config`, which transformers writes for the layers that differ from the rest."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    head_dim: Size | None = None
    num_key_value_heads: Size | None = None


class EmbeddingGemma2TextConfig(BiasedAttention):
    """The keys of config.json that are read."""

    head_norms: ClassVar[bool] = True
    default_thetas: ClassVar[Mapping[LayerType, float]] = {"sliding_attention": 1e4, "full_attention": 1e6}
    older_thetas: ClassVar[Mapping[LayerType, str]] = {}

    pad_token_id: _TokenId = 0
    sliding_window: Size = 512
    hidden_act: ActivationName = Field("gelu_pytorch_tanh", validation_alias="hidden_activation")
    hidden_size_per_layer_input: Size = 512
    embedding_dim: Size = 768
    per_layer_config: dict[Annotated[str, Field(pattern=r"^\d{1,4}$")], LayerOverrides] | None = None
    # Where these are missing, transformers makes them of the three keys below.
    sliding_window_pattern: Size = 6
    global_head_dim: Size = 512
    num_global_key_value_heads: Size = 1

    def head_size_of(self, kind: LayerType) -> int:
        """Return the size of a head in the layers of a type."""
        return self.head_sizes[kind].head_dim if kind in self.head_sizes else self.head_dim

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        """Return the ids of the tokens that stand for images, videos and sounds, and that are read as padding."""
        return ()

    @property
    def types(self) -> list[LayerType]:
        """Return the type of each layer; the last is a full one whatever the file says, as in transformers."""
        period = self.sliding_window_pattern
        types = list(self.layer_types or ())
        if self.layer_types is None:
            types = ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(self.layers)]
        return [*types[:-1], "full_attention"]

    @cached_property
    def head_sizes(self) -> dict[LayerType, HeadSizes]:
        """Return the sizes in the layers of each type that there is.

        Raises:
            ModelLoadError: `per_layer_config` names a layer that there is not, or layers of one type differ.
        """
        sizes: dict[LayerType, HeadSizes] = {}
        for layer, kind in enumerate(self.types):
            if sizes.setdefault(kind, self._sizes_of(layer, kind)) != self._sizes_of(layer, kind):
                raise ModelLoadError(
                    f"config.json: per_layer_config gives layers of {kind} different sizes, as in layer {layer}; only "
                    "layers of different types may differ"
                )
        if beyond := [number for number in self._overrides if number >= self.layers]:
            raise ModelLoadError(f"config.json: per_layer_config names layer {beyond[0]} of {self.layers}")
        return sizes

    def for_type(self, kind: LayerType) -> Self:
        """Return these keys with the sizes of the layers of a type."""
        return self.model_copy(update=self.head_sizes[kind]._asdict())

    @cached_property
    def _overrides(self) -> dict[int, LayerOverrides]:
        return {int(number): entry for number, entry in (self.per_layer_config or {}).items()}

    def _sizes_of(self, layer: int, kind: LayerType) -> HeadSizes:
        if "per_layer_config" not in self.model_fields_set and kind == "full_attention":
            return HeadSizes(self.global_head_dim, self.num_global_key_value_heads)
        own = self._overrides.get(layer, LayerOverrides())
        return HeadSizes(own.head_dim or self.head_dim, own.num_key_value_heads or self.key_heads)

    @model_validator(mode="after")
    def _check_head_sizes(self) -> Self:
        _ = self.head_sizes
        return self


class EmbeddingGemma2Config(EmbeddingGemma2TextConfig):
    """The keys of `text_config`, and the placeholders that the whole model adds."""

    image_token_id: _TokenId | None = 258_880
    video_token_id: _TokenId | None = 258_884
    audio_token_id: _TokenId | None = 258_881

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        """Return the ids of the tokens that stand for images, videos and sounds, and that are read as padding."""
        found = (self.image_token_id, self.video_token_id, self.audio_token_id)
        return tuple(number for number in found if number is not None)


_ONLY = (
    {key: rule for key, rule in ONLY.items() if key != "per_layer_config"}
    | ROTARY_ONLY
    | {
        "model_type": Only((None, "embedding_gemma2_text"), "it describes the text tower of EmbeddingGemma 2"),
        "hidden_act": Only((None, "gelu_pytorch_tanh"), "EmbeddingGemma 2 names its activation hidden_activation"),
        **only("rope_theta rope_scaling", None, reason="EmbeddingGemma 2 reads its rotary bases in rope_parameters"),
    }
)
_PROMPTS = {name: prompt for name, prompt in GEMMA3.prompts.items() if name in ("query", "document")}

EMBEDDING_GEMMA2_TEXT = Architecture(
    encoder="embedding_gemma2:EmbeddingGemma2",
    config=EmbeddingGemma2TextConfig,
    only=_ONLY,
    harmless=HARMLESS,
    pooling="mean",
    prompts=_PROMPTS,
    matryoshka=True,
    float16_overflows=True,
    original="google/embeddinggemma-2",
)
EMBEDDING_GEMMA2 = Architecture(
    encoder="embedding_gemma2:EmbeddingGemma2",
    config=EmbeddingGemma2Config,
    only=_ONLY,
    harmless=HARMLESS,
    wrapper=KnownKeys(
        honoured=honoured(
            "model_type auto_map quantization quantization_config tokenizer_class text_config image_token_id "
            "video_token_id audio_token_id"
        ),
        only=ONLY,
        harmless={key: reason for key, reason in HARMLESS.items() if key != "tokenizer_class"}
        | harmless("vision_config audio_config", reason="describes a tower that no text passes through")
        | harmless(
            "boi_token_id eoi_token_id boa_token_id eoa_token_id eoa_token_index",
            reason="is put around an image or a sound",
        ),
    ),
    pooling="mean",
    prompts=_PROMPTS,
    matryoshka=True,
    float16_overflows=True,
    prefixes=("language_model.", "model.language_model.", "model."),
    # The towers of images and sounds: transformers' EmbeddingGemma2Model calls them for those inputs only.
    unused=("vision_tower.", "embed_vision.", "audio_tower.", "embed_audio."),
    original="google/embeddinggemma-2",
)
