"""Make outputs.npz: vectors of smaller types by sentence-transformers, and activations of Dense modules by torch.

Run with sentence-transformers installed: python -m tests.goldens.make_outputs.
"""

import numpy as np
import torch
from sentence_transformers.util import quantize_embeddings

from akidb_mlx.checkpoint.head import DENSE_ACTIVATIONS
from tests.goldens.make_models import HERE


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(7)
    sample, vectors = (rng.standard_normal((rows, 19)).astype(np.float32) for rows in (50, 40))
    sample[:, 3] = vectors[:20, 3] = 0.25  # a dimension without a range
    vectors[0], vectors[1] = sample.min(axis=0), sample.max(axis=0)
    vectors[2], vectors[3] = 0, -0.0
    arrays = {"sample": sample, "vectors": vectors}
    for precision in ("int8", "uint8", "binary", "ubinary"):
        arrays[precision] = quantize_embeddings(vectors, precision, calibration_embeddings=sample)
    x = np.concatenate([np.linspace(-30, 30, 121), [-1e-3, 1e-3, -100, 100]]).astype(np.float32)
    arrays["x"] = x
    for name in DENSE_ACTIVATIONS:
        arrays[name] = getattr(torch.nn, name)()(torch.from_numpy(x)).numpy()
    np.savez(HERE / "outputs.npz", **arrays)


if __name__ == "__main__":
    main()
