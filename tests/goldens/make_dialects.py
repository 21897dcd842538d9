"""Store sentence-transformers' vectors of the changed models in tests/dialects.py.

Run with sentence-transformers installed: python -m tests.goldens.make_dialects
"""

import tempfile
from pathlib import Path

import numpy as np
import sentence_transformers
import transformers
from sentence_transformers import SentenceTransformer

from tests.dialects import DIALECTS, SAMPLE
from tests.support import GOLDENS

vectors = {}
for name, dialect in DIALECTS.items():
    with tempfile.TemporaryDirectory() as folder:
        model = SentenceTransformer(str(dialect.make(Path(folder))), device="cpu", local_files_only=True)
        vectors[name] = model.encode(SAMPLE, normalize_embeddings=True, batch_size=1).astype(np.float32)
    print(name, vectors[name].shape)
np.savez_compressed(GOLDENS / "dialects.npz", **vectors)
print("sentence-transformers", sentence_transformers.__version__, "transformers", transformers.__version__)
