"""Make encode.npz: what the methods of sentence-transformers' SentenceTransformer return for tiny models.

Run with sentence-transformers installed: python -m tests.goldens.make_encode.
"""

from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TEXTS = ["A cat sat on the mat.", "Interest rates rose", "", "the dog chased the ball, and the cat watched"]
GEMMA, BERT, ROBERTA, ROUTES = "tiny-gemma3", "tiny-bert", "tiny-roberta", "tiny-bert-routes"
# A model, arguments of the constructor, a method and its arguments.
CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    (GEMMA, {}, "encode", {}),
    (GEMMA, {}, "encode_query", {}),
    (GEMMA, {}, "encode_document", {}),
    (GEMMA, {}, "encode", {"prompt_name": "query"}),
    (GEMMA, {}, "encode", {"prompt": "title: "}),
    (GEMMA, {}, "encode_query", {"prompt": "title: ", "prompt_name": "document"}),
    (GEMMA, {"prompts": {"query": "another: ", "own": "mine: "}}, "encode_query", {}),
    (GEMMA, {"prompts": {"query": "another: ", "own": "mine: "}}, "encode_document", {"prompt_name": "own"}),
    (GEMMA, {"default_prompt_name": "query"}, "encode", {}),
    (GEMMA, {"default_prompt_name": "query"}, "encode_document", {}),
    (GEMMA, {"default_prompt_name": "query"}, "encode", {"prompt": ""}),
    (GEMMA, {}, "encode", {"truncate_dim": 16}),
    (GEMMA, {}, "encode", {"truncate_dim": 16, "normalize_embeddings": True}),
    (GEMMA, {"truncate_dim": 16}, "encode_query", {}),
    (GEMMA, {"truncate_dim": 16}, "encode_query", {"truncate_dim": 10_000}),
    (GEMMA, {}, "encode", {"precision": "ubinary"}),
    (GEMMA, {}, "encode", {"precision": "int8"}),
    (GEMMA, {}, "encode", {"precision": "uint8", "normalize_embeddings": True}),
    (BERT, {}, "encode", {"normalize_embeddings": True}),
    (ROBERTA, {}, "encode", {}),
    (ROBERTA, {}, "encode", {"normalize_embeddings": True}),
    (ROBERTA, {}, "encode_query", {"precision": "binary"}),
    ("tiny-roberta-prompt", {}, "encode_query", {}),
    (ROUTES, {}, "encode", {}),
    (ROUTES, {}, "encode", {"prompt_name": "query"}),
    (ROUTES, {}, "encode_query", {}),
    (ROUTES, {}, "encode_document", {}),
]
SIMILARITIES = ["cosine", "dot", "euclidean", "manhattan"]


def main() -> None:
    """Write the file."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    arrays = {}
    for number, (name, arguments, method, options) in enumerate(CASES):
        model = SentenceTransformer(str(HERE / name), device="cpu", **arguments)
        arrays[str(number)] = getattr(model, method)(TEXTS, **options)
    first, second = np.random.default_rng(7).standard_normal((2, 3, 8)).astype(np.float32)
    arrays["first"], arrays["second"] = first, second
    for name in SIMILARITIES:
        model = SentenceTransformer(str(HERE / BERT), device="cpu", similarity_fn_name=name)
        arrays[name] = model.similarity(first, second).numpy()
        arrays[f"{name} pairwise"] = model.similarity_pairwise(first, second).numpy()
    np.savez(HERE / "encode.npz", **arrays)


if __name__ == "__main__":
    main()
