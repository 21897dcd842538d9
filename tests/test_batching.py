from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from akidb_mlx.embedding.batching import padded_length, plan_batches

LIMIT = 512
lengths = st.lists(st.integers(1, LIMIT), max_size=200)


def test_padded_lengths_are_these():
    found = {padded_length(n, LIMIT) for n in range(1, LIMIT + 1)}
    steps = [(1, 17, 1), (18, 33, 2), (36, 65, 4), (72, 129, 8), (144, 257, 16), (288, 513, 32)]
    assert found == {n for step in steps for n in range(*step)}


@given(st.integers(1, 100_000))
def test_padding_is_an_eighth_of_a_row_at_most(length):
    assert length <= padded_length(length, 10**9) <= length * 9 / 8


def test_padding_never_exceeds_the_models_limit():
    assert padded_length(509, 510) == 510


@given(lengths, st.integers(1, 2000))
def test_every_sequence_runs_once_within_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget, LIMIT)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    for batch in batches:
        assert batch.length >= max(lengths[i] for i in batch.indices)
        assert len(batch.indices) * batch.length <= budget or len(batch.indices) == 1


@given(lengths, st.integers(1, 2000))
def test_batches_are_as_full_as_the_order_allows(lengths, budget):
    batches = plan_batches(lengths, budget, LIMIT)
    for batch, following in pairwise(batches):
        assert (len(batch.indices) + 1) * batch.length > budget
        assert min(lengths[i] for i in batch.indices) >= max(lengths[i] for i in following.indices)
