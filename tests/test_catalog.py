"""The catalogue, the command that lists it, and the prompts that it adds."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from akidb_mlx import EmbeddingService
from akidb_mlx.catalog import (
    ALL_MODELS,
    CATALOG,
    MULTI_VECTOR_MODELS,
    RERANKERS,
    SPARSE_MODELS,
    SUMMARY_CATALOG,
    find_record,
)
from akidb_mlx.cli.commands import create_app
from akidb_mlx.errors import ModelLoadError, ModelNotFoundError
from model_cache.names import RepoName
from tests.support import GOLDENS

RECORDS = [*ALL_MODELS.values()]


def listed(*arguments: str) -> list[str]:
    done = CliRunner().invoke(create_app(), ["models", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return [record["name"] for record in json.loads(done.stdout)]


def test_names_and_repositories_are_unambiguous():
    names = [record.name for record in (*RECORDS, *SUMMARY_CATALOG.values())]
    assert len(set(names)) == len(names) >= 30
    assert len({record.repo_id for record in RECORDS}) == len(RECORDS)
    for record in RECORDS:
        assert str(RepoName.parse(record.repo_id)) == record.repo_id
        assert (record.vector_size is None) == (record.task == "reranking")
        assert record.dimensions is None or (record.matryoshka and record.dimensions <= record.vector_size)


def test_a_record_is_found_by_its_name_and_by_its_repository():
    record = CATALOG["bge-small-en-v1.5"]
    assert find_record("bge-small-en-v1.5") is record
    assert find_record("BAAI/bge-small-en-v1.5") is record
    assert find_record("BAAI/bge-small-en-v1.5@main") is record
    assert find_record("someone/bge-small-en-v1.5") is None


def test_the_list_is_narrowed_by_task_language_and_size():
    assert set(listed()) == {record.name for record in RECORDS}
    assert set(listed("--task", "reranking")) == set(RERANKERS)
    assert set(listed("--task", "sparse")) == set(SPARSE_MODELS)
    assert set(listed("--task", "multi-vector")) == set(MULTI_VECTOR_MODELS)
    small = listed("--task", "embedding", "--language", "multilingual", "--max-bytes", "400000000")
    assert small == ["qwen3-0.6b-4bit", "gemma-300m-4bit"]
    assert "bge-reranker-v2-m3" in listed("--language", "zh")  # multilingual takes every language
    assert "bge-small-en-v1.5" not in listed("--language", "zh")


def test_the_list_for_a_person_names_the_licence():
    done = CliRunner().invoke(create_app(), ["models", "--task", "reranking"])
    line = next(line for line in done.stdout.splitlines() if line.startswith("bge-reranker-base"))
    assert line.split("\t")[1:7] == ["reranking", "en zh", "-", "512", "1.1 GB", "MIT"]


def test_a_model_whose_files_hold_no_prompts_has_those_of_its_card(hub):
    hub.add("BAAI/bge-small-en-v1.5", GOLDENS / "tiny-bert")
    text = "who keeps the ledger?"
    with EmbeddingService("bge-small-en-v1.5", device="cpu") as named:
        assert named.get_model_info()["prompts"] == ["query"]
        query, prompt = named.embed_array([text], input_type="query"), CATALOG["bge-small-en-v1.5"].prompts["query"]
        np.testing.assert_array_equal(query, named.embed_array([prompt + text]))
        plain = named.embed_array([text])
        np.testing.assert_array_equal(named.embed_array([text], input_type="document"), plain)
    assert np.abs(query - plain).max() > 1e-3
    with EmbeddingService("BAAI/bge-small-en-v1.5", device="cpu") as by_repository:
        np.testing.assert_array_equal(by_repository.embed_array([text], input_type="query"), query)


def test_prompts_in_the_files_go_before_those_of_the_card(hub):
    hub.add("BAAI/bge-small-en-v1.5", GOLDENS / "tiny-gemma3")
    with EmbeddingService("bge-small-en-v1.5", device="cpu") as service:
        assert "STS" in service.get_model_info()["prompts"]
        expected = service.embed_array(["task: search result | query: ships"])
        np.testing.assert_array_equal(service.embed_array(["ships"], input_type="query"), expected)


def test_a_reranker_has_no_vectors():
    with pytest.raises(ModelLoadError, match="bge-reranker-base is a reranker"):
        EmbeddingService("bge-reranker-base")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bge-small-en-v15", "did you mean bge-small-en-v1.5"),
        ("MiniLM-L6-v2", "did you mean minilm-l6-v2"),
        ("someone/quite-another", "`akidb-mlx models` lists the names"),
    ],
)
def test_an_unknown_name_is_answered_with_a_hint(name, hint):
    with pytest.raises(ModelNotFoundError, match=hint):
        EmbeddingService(name)
