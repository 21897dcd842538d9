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
    from akidb_mlx.backends.mlx.encoders.gemma3 import Gemma3

    encoder = Gemma3.__new__(Gemma3)
    encoder._reach = 16 // 2 + 1
    masks = encoder._masks(TokenBatch(mx.zeros((2, 40), mx.int32), mx.array([40, 10]), padded=True))
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
            np.array(
                ExecutionPlan(mx.Device(mx.cpu), mx.float32, exact, 1, 1).rotation(70, RotaryPositions(32, 1e4))(x)
            )
            for exact in (True, False)
        ]
    assert np.abs(rotated[0] - rotated[1]).max() < 2e-5
