"""Attention and the sliding window against NumPy."""

import numpy as np
import pytest


def reference(queries, keys, values, scale, visible):
    scores = np.where(visible, scale * queries @ np.swapaxes(keys, -1, -2), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ values


def arrays(batch=2, heads=4, key_heads=2, length=13, size=8):
    rng = np.random.default_rng(3)
    shapes = [(batch, heads, length, size)] + [(batch, key_heads, length, size)] * 2
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("most_scores", [1 << 28, 2 * 4 * 13 * 5, 1], ids=["whole", "blocks of 5", "blocks of 2"])
@pytest.mark.parametrize("kind", ["none", "causal", "keys", "pairs"])
@pytest.mark.parametrize("way", ["fused_attention", "vectorised_attention"])
def test_attention_in_blocks_equals_the_formula(monkeypatch, most_scores, kind, way):
    import mlx.core as mx

    from akidb_mlx.backends.mlx import attention

    monkeypatch.setattr(attention, "_MIN_QUERIES", 2)
    queries, keys, values = arrays()
    length = queries.shape[2]
    i, j = np.arange(length)[:, None], np.arange(length)
    visible = {
        "none": np.ones((1, 1, length, length), bool),
        "causal": (j <= i)[None, None],
        "keys": np.array([7, length])[:, None, None, None] > j,
        "pairs": (np.abs(i - j) < 4)[None, None],
    }[kind]
    mask = {"none": None, "causal": "causal"}.get(kind, mx.array(visible))
    with mx.stream(mx.cpu):
        if way == "vectorised_attention" and isinstance(mask, mx.array):
            mask = attention.additive_mask(mask)
        blocked = attention.in_blocks(getattr(attention, way), most_scores)
        found = np.array(blocked(mx.array(queries), mx.array(keys), mx.array(values), 0.3, mask))
    by_head = reference(queries, np.repeat(keys, 2, axis=1), np.repeat(values, 2, axis=1), 0.3, visible)
    expected = by_head.swapaxes(1, 2).reshape(len(queries), length, -1)
    assert np.abs(found - expected).max() < 1e-6


def test_gemma_sees_half_the_window_on_each_side():
    """A window of 16 is 8 tokens before, 8 after and the token itself; padding sees itself at least."""
    import mlx.core as mx

    from akidb_mlx.backends.mlx.encoders import TokenBatch
    from akidb_mlx.backends.mlx.encoders.windows import visible_keys

    masks = visible_keys(TokenBatch(mx.zeros((2, 40), mx.int32), mx.array([40, 10]), padded=True), 16 // 2 + 1)
    sliding = np.array(masks["sliding_attention"])[:, 0]
    assert np.flatnonzero(sliding[0, 20]).tolist() == list(range(12, 29))
    assert np.flatnonzero(sliding[0, 0]).tolist() == list(range(9))
    assert np.flatnonzero(sliding[1, 5]).tolist() == list(range(10))
    assert np.flatnonzero(sliding[1, 39]).tolist() == [39]
    assert sliding.any(axis=-1).all()
    assert np.array(masks["full_attention"])[1, 0, 0].sum() == 10


def test_rotation_equals_mlx_own():
    import mlx.core as mx

    from akidb_mlx.backends.mlx.plan import ExecutionPlan
    from akidb_mlx.checkpoint.architectures.rotary import RotaryPositions

    x = mx.array(np.random.default_rng(1).normal(size=(2, 3, 70, 32)).astype(np.float32))
    with mx.stream(mx.cpu):
        rotated = [
            np.array(plan.rotation(70, RotaryPositions(32, 1e4))(x))
            for plan in (ExecutionPlan(mx.Device(mx.cpu), mx.float32, exact, 1, 1) for exact in (True, False))
        ]
    assert np.abs(rotated[0] - rotated[1]).max() < 2e-5


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("most_scores", [1 << 28, 1], ids=["whole", "blocks of 2"])
@pytest.mark.parametrize("precision", ["exact", "float32", "float16", "bfloat16"])
def test_a_bias_is_added_to_the_scores(monkeypatch, precision, most_scores, padded):
    """The bias of MPNet's relative positions differs from head to head, and is not symmetric."""
    import mlx.core as mx

    from akidb_mlx.backends.mlx import attention
    from akidb_mlx.backends.mlx.plan import ExecutionPlan

    monkeypatch.setattr(attention, "_MIN_QUERIES", 2)
    queries, keys, values = arrays(key_heads=4)
    length = queries.shape[2]
    bias = np.random.default_rng(4).normal(size=(1, 4, length, length)).astype(np.float32) * 3
    visible = np.array([7, length])[:, None, None, None] > np.arange(length)
    scores = 0.3 * queries @ keys.swapaxes(-1, -2) + bias
    scores = np.where(visible, scores, -np.inf) if padded else scores
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    expected = weights / weights.sum(axis=-1, keepdims=True) @ values
    exact = precision == "exact"
    dtype = mx.float32 if exact else getattr(mx, precision)
    with mx.stream(mx.cpu):
        plan = ExecutionPlan(mx.Device(mx.cpu), dtype, exact, 1, 1)
        mask = plan.mask(mx.array(visible) if padded else None, mx.array(bias))
        assert mask is not None
        assert mask.dtype == dtype
        # Finite, also after a score was added.
        assert np.isfinite(np.array((mask - 1000).astype(mx.float32))).all()
        way = attention.vectorised_attention if exact else attention.fused_attention
        given = [mx.array(array).astype(dtype) for array in (queries, keys, values)]
        found = attention.in_blocks(way, most_scores)(*given, 0.3, mask).astype(mx.float32)
        found = np.array(found)
    difference = np.abs(found - expected.swapaxes(1, 2).reshape(found.shape)).max()
    assert difference < {"float16": 1e-2, "bfloat16": 1e-1}.get(precision, 2e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_a_mask_of_one_query_is_that_querys_row(exact):
    import mlx.core as mx

    from akidb_mlx.backends.mlx.encoders.blocks import mask_at
    from akidb_mlx.backends.mlx.plan import ExecutionPlan

    rng = np.random.default_rng(5)
    visible, bias = rng.random((2, 1, 1, 6)) < 0.7, rng.normal(size=(1, 3, 6, 6)).astype(np.float32)
    positions = mx.array([4, 1])
    with mx.stream(mx.cpu):
        plan = ExecutionPlan(mx.Device(mx.cpu), mx.float32, exact, 1, 1)
        mask = plan.mask(mx.array(visible), mx.array(bias))
        whole, rows = np.array(mask), np.array(mask_at(mask, positions))
        shared = np.array(mask_at(mx.array(bias), positions))
        assert mask_at(mx.array(visible), positions).shape == (2, 1, 1, 6)
    assert rows.tolist() == [whole[0, :, 4:5].tolist(), whole[1, :, 1:2].tolist()]
    assert shared.tolist() == [bias[0, :, 4:5].tolist(), bias[0, :, 1:2].tolist()]


def test_a_layer_norm_without_bias_equals_the_formula():
    import mlx.core as mx

    from akidb_mlx.backends.mlx.layers import LayerNorm

    rng = np.random.default_rng(6)
    x, weight = rng.normal(size=(3, 16)).astype(np.float32), rng.normal(size=16).astype(np.float32)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * weight
    with mx.stream(mx.cpu):
        for exact in (True, False):
            found = np.array(LayerNorm(mx.array(weight), None, 1e-3, exact)(mx.array(x)))
            assert np.abs(found - expected).max() < 1e-6
