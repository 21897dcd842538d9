"""mteb: the task STSBenchmark on the data of this repository, and the prompts that its tasks get."""

import csv

import numpy as np
import pytest

mteb = pytest.importorskip("mteb")

from datasets import Dataset, DatasetDict
from mteb.models import EncoderProtocol
from mteb.tasks.sts import STSBenchmarkSTS
from mteb.types import PromptType

from akidb_mlx.integrations.mteb import AkidbEncoder
from tests.integrations.conftest import GOLDENS


class LocalSTSBenchmark(STSBenchmarkSTS):
    """The task on the English test split that lies in the repository."""

    def load_data(self, *_arguments, **_options):
        with (GOLDENS / "stsb-en-test.csv").open(encoding="utf-8", newline="") as file:
            first, second, score = zip(*csv.reader(file), strict=True)
        rows = {"sentence1": first, "sentence2": second, "score": [float(one) for one in score]}
        self.dataset = DatasetDict(test=Dataset.from_dict(rows))
        self.data_loaded = True


def test_the_score_is_that_of_the_pages():
    """docs/fidelity.md: 0.8203, as the reference's."""
    encoder = AkidbEncoder("minilm-l6-v2")
    assert isinstance(encoder, EncoderProtocol)
    results = mteb.evaluate(encoder, LocalSTSBenchmark(), cache=None, show_progress_bar=False)
    assert results.model_name == "akidb-mlx/minilm-l6-v2"
    assert results[0].get_score() == pytest.approx(0.8203, abs=5e-5)


@pytest.mark.parametrize(
    ("prompt_type", "kind", "input_type"),
    [
        (PromptType.query, "Retrieval", "query"),
        (PromptType.document, "Retrieval", "document"),
        (None, "Classification", None),
        (None, "STS", "STS"),
    ],
)
def test_texts_get_the_prompt_of_their_task(prompt_type, kind, input_type, texts):
    encoder = AkidbEncoder(str(GOLDENS / "tiny-gemma3-4bit"))
    metadata = LocalSTSBenchmark.metadata.model_copy(update={"type": kind})
    batches = [{"text": texts[:2]}, {"text": texts[2:]}]
    options = {"hf_split": "test", "hf_subset": "default", "batch_size": 2}
    found = encoder.encode(batches, task_metadata=metadata, prompt_type=prompt_type, **options)
    assert np.array_equal(found, encoder._embedder.embedder.embed_array(texts, input_type=input_type))
    assert encoder.similarity(found, found).shape == (len(texts), len(texts))
