"""Store the reference vectors of the static models in tests/static_models.py.

Run once with model2vec installed and once with sentence-transformers: python -m tests.goldens.make_static
Each run makes the vectors of its library's forms and keeps the others. A text without tokens has a vector of zeros.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tests.static_models import FORMS, PROMPTS
from tests.support import GOLDENS, TEXTS

OUT = GOLDENS / "static.npz"


def of_model2vec(directory: Path) -> dict[str, np.ndarray]:
    from model2vec import StaticModel

    return {"none": StaticModel.from_pretrained(directory).encode(TEXTS, normalize=True)}


def of_sentence_transformers(directory: Path) -> dict[str, np.ndarray]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
    prompts = {"none": "", "query": PROMPTS["query"]}
    return {name: model.encode(TEXTS, prompt=prompt, batch_size=1) for name, prompt in prompts.items()}


vectors: dict[str, np.ndarray] = {}
if OUT.is_file():
    with np.load(OUT) as stored:
        vectors = dict(stored)
for form_name, form in FORMS.items():
    if find_spec("model2vec" if form.model2vec else "sentence_transformers") is None:
        continue
    with tempfile.TemporaryDirectory() as folder:
        reference = of_model2vec if form.model2vec else of_sentence_transformers
        for prompt_name, array in reference(form.make(Path(folder))).items():
            vectors[f"{form_name}/{prompt_name}"] = array.astype(np.float32)
            print(form_name, prompt_name, array.shape, array.dtype)
np.savez_compressed(OUT, **{name: vectors[name] for name in sorted(vectors)})
