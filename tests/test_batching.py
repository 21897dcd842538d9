from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.engine.batching import Batch, padded_length
from tests.engines import FakeModel

LIMIT = 512


def bucketed(length, limit):
    return padded_length(length, replace(FakeModel.facts, bucket_lengths=True, max_tokens=limit))


def test_padded_lengths_are_these():
    found = {bucketed(n, LIMIT) for n in range(1, LIMIT + 1)}
    steps = [(1, 17, 1), (18, 33, 2), (36, 65, 4), (72, 129, 8), (144, 257, 16), (288, 513, 32)]
    assert found == {n for step in steps for n in range(*step)}


@given(st.integers(1, 100_000))
def test_padding_is_an_eighth_of_a_row_at_most(length):
    assert length <= bucketed(length, 10**9) <= length * 9 / 8


def test_padding_never_exceeds_the_models_limit():
    assert bucketed(509, 510) == 510


def test_a_cpu_pads_no_sequence_by_itself():
    facts = replace(FakeModel.facts, bucket_lengths=False)
    assert [padded_length(n, facts) for n in (1, 33, 509)] == [1, 33, 509]


def item(ids):
    return SimpleNamespace(segment=0, ids=np.array(ids, np.int32))


def test_a_batch_takes_what_its_limits_allow():
    batch = Batch(BatchKey(), length=10, limit=60, target=40, most_padding=3)
    assert batch.add(item([1] * 10))
    assert batch.add(item([2] * 8))
    assert not batch.add(item([3] * 8))  # 4 tokens of padding
    assert batch.add(item([4] * 10))
    assert batch.add(item([5] * 9))
    assert not batch.add(item([6] * 10))  # 50 tokens, which is further from the target than 40
    assert (batch.size, batch.tokens, batch.padded_tokens) == (4, 37, 40)


@given(st.integers(1, 300), st.integers(1, 400))
def test_a_batch_is_as_near_to_its_target_as_its_limit_allows(length, limit):
    batch = Batch(BatchKey(), length, limit, target=0.9 * limit, most_padding=0)
    while batch.add(item([batch.size + 1] * length)):
        pass
    assert batch.size == 1 or batch.padded_tokens <= limit
    gaps = [abs(0.9 * limit - length * (batch.size + more)) for more in (-1, 0, 1)]
    assert batch.size == 1 or gaps[1] <= gaps[0]
    assert gaps[1] <= gaps[2] or batch.padded_tokens + length > limit
    assert batch.full


def test_a_longer_sequence_runs_alone():
    batch = Batch(BatchKey(), length=100, limit=40, target=40, most_padding=3)
    assert batch.add(item([1] * 97))
    assert not batch.add(item([2] * 100))


def test_equal_sequences_run_once():
    batch = Batch(BatchKey(), length=3, limit=3, target=3, most_padding=0)
    items = [item([1, 2, 3]), item([1, 2, 3])]
    assert all(batch.add(one) for one in items)
    assert (batch.size, list(batch.rows())) == (1, [(0, items[0]), (0, items[1])])


def test_halves_hold_everything_once():
    batch = Batch(BatchKey(), length=2, limit=100, target=100, most_padding=10)
    for i in range(5):
        batch.add(item([i, i]))
    halves = batch.halves()
    assert [half.size for half in halves] == [2, 3]
    assert [ids[0] for half in halves for ids in half.token_rows().ids] == list(range(5))


def test_token_rows_are_padded_with_zeros_on_the_right():
    prefix = np.array([7, 8], np.int32)
    batch = Batch(BatchKey(prefix.tobytes()), length=3, limit=100, target=100, most_padding=10)
    assert all(batch.add(item(ids)) for ids in ([1, 2, 3], [4], [5, 6]))
    rows = batch.token_rows()
    assert rows.ids.tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]]
    assert (rows.lengths.tolist(), rows.prefix.tolist()) == ([3, 1, 2], [7, 8])
    assert {rows.ids.dtype, rows.lengths.dtype, rows.prefix.dtype} == {np.dtype(np.int32)}


def test_rows_may_be_padded_to_a_length_with_a_token():
    assert padded_length(3, FakeModel.facts, floor=8) == 8
    assert padded_length(9, FakeModel.facts, floor=8) == 9
    assert bucketed(70, LIMIT) == padded_length(9, replace(FakeModel.facts, bucket_lengths=True), floor=70) == 72
    batch = Batch(BatchKey(padding=7, floor=4), 4, LIMIT, LIMIT, LIMIT)
    assert all(batch.add(item(ids)) for ids in ([1, 2], [3]))
    rows = batch.token_rows()
    assert rows.ids.tolist() == [[1, 2, 7, 7], [3, 7, 7, 7]]
    assert rows.lengths.tolist() == [2, 1]
