"""Make tiny random models beside this file, and their vectors, with sentence-transformers.

Run with sentence-transformers installed: python -m tests.goldens.make_models FAMILY..., names of files in recipes/.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
# The roles of texts that sentence-transformers knows; `encode_query` and `encode_document` pass them on.
_TASKS = ("query", "document")


@dataclass(frozen=True)
class Recipe:
    """One tiny model.

    Attributes:
        config: the transformers configuration; its vocabulary must hold the donor's tokens.
        pooling: mode of sentence-transformers' Pooling module.
        donor: the tiny model whose tokenizer it gets.
        max_seq_length: most tokens of a text.
        prompts: its named prompts; a golden array is made for each, and one for none.
        modules: makes the modules after the Transformer, for the size of its vectors; if None, a Pooling of that
            mode and a Normalize.
        change: a last change of the saved directory, before its vectors are computed: extra keys, other modules.
        scale: standard deviation of what is added to every parameter, so that leaving out a norm or a bias shows.
        query: the tower for queries, where a Router is to lead there; this recipe's own is the one for documents.
    """

    config: Any
    pooling: str
    donor: str = "tiny-bert"
    max_seq_length: int = 128
    prompts: dict[str, str] = field(default_factory=dict)
    modules: Callable[[int], list[Any]] | None = None
    change: Callable[[Path], None] | None = None
    scale: float = 0.1
    query: Recipe | None = None


def make(name: str, recipe: Recipe) -> None:
    """Write a model's directory and its vectors."""
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    torch.manual_seed(7)
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    with TemporaryDirectory() as towers:
        if recipe.query is None:
            modules = _make_modules(recipe, out)
        else:
            query, document = (_make_modules(one, Path(towers, one.pooling)) for one in (recipe.query, recipe))
            modules = [Router.for_query_document(query, document), Normalize()]
        SentenceTransformer(modules=modules, prompts=recipe.prompts, device="cpu").save_pretrained(
            str(out), create_model_card=False
        )
    if recipe.change is not None:
        recipe.change(out)
    reference = SentenceTransformer(str(out), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})
    texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))["texts"]
    arrays = {
        key: reference.encode(
            texts, prompt=prompt, task=key if key in _TASKS else None, normalize_embeddings=True, batch_size=1
        ).astype(np.float32)
        for key, prompt in {"none": "", **recipe.prompts}.items()
    }
    np.savez(HERE / f"{name}.npz", **arrays)
    print(name, {key: array.shape for key, array in arrays.items()})


def _make_modules(recipe: Recipe, folder: Path) -> list[Any]:
    """Write a random encoder to a folder, and return its Transformer and the modules after it."""
    import torch
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import AutoModel

    model = AutoModel.from_config(recipe.config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * recipe.scale)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(HERE / recipe.donor / file, folder)
    transformer = Transformer(str(folder), max_seq_length=recipe.max_seq_length)
    size = transformer.get_embedding_dimension()
    after = [Pooling(size, recipe.pooling), Normalize()] if recipe.modules is None else recipe.modules(size)
    return [transformer, *after]


def main() -> None:
    """Make the models of the families that are named."""
    for family in sys.argv[1:]:
        recipes: dict[str, Any] = importlib.import_module(f"tests.goldens.recipes.{family}").MODELS
        for name, recipe in recipes.items():
            if isinstance(recipe, Recipe):
                make(name, recipe)
            else:  # of a model that gives no vectors of one size
                recipe.make(name)


if __name__ == "__main__":
    main()
