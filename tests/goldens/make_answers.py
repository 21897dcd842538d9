"""Make the known answers that the package ships, with the vectors of sentence-transformers in float32.

Run with sentence-transformers installed: python -m tests.goldens.make_answers REPOSITORY DIRECTORY
"""

import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer

from akidb_mlx.checkpoint.prompts import choose_prompt
from akidb_mlx.embedder import Embedder
from akidb_mlx.fidelity.making import make_answers
from akidb_mlx.fidelity.shipped import shipped_file
from akidb_mlx.vectors import EmbeddingBatch


class Reference(Embedder):
    """sentence-transformers as an embedder; each text alone, so that nothing is padded."""

    def __init__(self, repository, directory):
        self.repository = repository
        self.model = SentenceTransformer(
            directory, device="cpu", local_files_only=True, model_kwargs={"torch_dtype": torch.float32}
        )

    def submit(self, texts, **options):
        prompt = choose_prompt(self.model.prompts or {}, options.get("input_type"), None)
        given = [prompt + text for text in texts]
        future = Future()
        vectors = self.model.encode(given, normalize_embeddings=True, batch_size=1).astype(np.float32)
        counts = [int(self.model.tokenize([text])["attention_mask"].sum()) for text in given]
        future.set_result(EmbeddingBatch(vectors, counts, [False] * len(given), self.repository, vectors.shape[1]))
        return future

    def get_model_info(self):
        dimension = self.model.get_sentence_embedding_dimension()
        return {
            "model_name": self.repository,
            "dimension": dimension,
            "native_dimension": dimension,
            "max_tokens": self.model.max_seq_length,
            "prompts": sorted(self.model.prompts or {}),
            "architecture": self.model[0].auto_model.config.model_type,
            "backend": "torch",
            "precision": "float32",
            "allow_tf32": False,
        }

    def get_metrics(self):
        raise NotImplementedError

    def health_check(self):
        raise NotImplementedError

    def close(self, drain=False):
        pass


def main(repository, directory):
    versions = f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}, float32"
    answers = make_answers(Reference(repository, directory), versions)
    path = shipped_file(repository)
    path.write_text(answers.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for answer in answers.answers:
        print(answer.tokens, answer.input_type, repr(answer.text[:40]))
    print(path, path.stat().st_size, "bytes", sum(answer.tokens for answer in answers.answers), "tokens")


if __name__ == "__main__":
    main(sys.argv[1], str(Path(sys.argv[2])))
