"""The encoder of mteb, the benchmark of embedding models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from akidb_mlx.integrations.shared import RoleEmbedder, needs_extra
from akidb_mlx.options import OverflowPolicy

with needs_extra("mteb"):
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction

if TYPE_CHECKING:
    from akidb_mlx.quantized import OutputVectors


class AkidbEncoder(AbsEncoder):
    """Vectors of akidb-mlx for mteb's tasks, each with the model's prompt for it: by task, kind of task, or role."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        dimensions: int | None = None,
        on_overflow: OverflowPolicy = "truncate",
    ) -> None:
        """Load a model; see `RoleEmbedder`."""
        name = model_name if revision is None else f"{model_name}@{revision}"
        self._embedder = RoleEmbedder(name, device=device, dimensions=dimensions, on_overflow=on_overflow)
        info = self._embedder.embedder.get_model_info()
        # mteb chooses by name, and the embedder puts the prompt of that name before each text.
        self.model_prompts = {prompt: prompt for prompt in info["prompts"]}
        stored_as = model_name.rstrip("/").rpartition("/")[2]  # apart from the results of the library it came from
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"akidb-mlx/{stored_as}",
                "revision": revision or info["revision"],
                "embed_dim": self._embedder.dimension,
                "max_tokens": info["max_tokens"],
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        prompt_type: Any = None,
        **_options: Any,  # the split, and batch sizes, which change no vector
    ) -> OutputVectors:
        """Return the vectors of the texts of all batches, (texts, dimension) float32."""
        texts = [text for batch in inputs for text in batch["text"]]
        name = self.get_prompt_name(task_metadata, prompt_type)
        role = None if prompt_type is None else str(prompt_type.value)
        return self._embedder.embed(texts, name or role)
