"""Whole operators of a trace as nodes of an ONNX graph: norms, activations, rotations and attention.

ONNX Runtime has operators of its own beside ONNX's; they are taken where they are faster.
"""

from __future__ import annotations

from collections.abc import Sequence

from akidb_mlx.backends.onnx.arrays import Arrays, Method
from akidb_mlx.backends.onnx.graph import Value, onnx_type
from akidb_mlx.backends.onnx.heads import heads_side_by_side, rotate
from akidb_mlx.backends.traced import Operation, TracedArray

_MICROSOFT = "com.microsoft"
# Added to a score that is masked; not -inf, so that a row which sees nothing stays a number.
_MASKED = -1e9
# ONNX Runtime's operators for a sum and the norm of it.
_SKIP_NORMS = {
    "LayerNormalization": "SkipLayerNormalization",
    "RMSNormalization": "SkipSimplifiedLayerNormalization",
}


def add_and_norm(arrays: Arrays, operation: Operation) -> bool:
    """Add the operator of ONNX Runtime for a sum of token vectors and its norm; return whether there is a norm."""
    output = operation.outputs[0]
    consumers = arrays.consumers[output.name]
    norm = next((one for one in consumers if one.kind in _SKIP_NORMS and one.inputs[0] == output), None)
    values = [arrays.plain(array) for array in operation.inputs]
    if norm is None or len(output.shape) != 3 or any(value.held != output.shape for value in values):
        return False
    assert norm.attributes is not None
    weight, *bias = (arrays.whole(array) for array in norm.inputs[1:])
    operator = _SKIP_NORMS[norm.kind]
    inputs = [value.name for value in values] + [weight, *(bias or [""] * (operator == "SkipLayerNormalization"))]
    wanted = len(consumers) > 1 or output in arrays.trace.outputs
    names = arrays.graph.add(operator, inputs, 4 if wanted else 1, _MICROSOFT, **norm.attributes)
    arrays.set(norm.outputs[0], names[0])
    arrays.set(output, names[-1])
    return True


def _layer_norm(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    names = [arrays.whole(array) for array in operation.inputs]
    assert operation.attributes is not None
    arrays.set(output, arrays.graph.add(operation.kind, names, axis=-1, **operation.attributes)[0])


def _gelu(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    value = arrays.plain(operation.inputs[0])
    assert operation.attributes is not None
    arrays.set(output, arrays.graph.one("Gelu", value.name, **operation.attributes), value.held)


def _rotary(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    arrays.set(output, rotate(arrays, operation, arrays.whole(operation.inputs[0])))


def _attention(arrays: Arrays, operation: Operation, output: TracedArray) -> None:
    """Choose the fastest operator: ONNX Runtime's own, where there are as many key heads as heads."""
    queries, keys, values, *masks = operation.inputs
    assert operation.attributes is not None
    scale, causal = operation.attributes["scale"], operation.attributes["is_causal"]
    if queries.shape[1] == keys.shape[1]:
        key_mask, bias = _masks(arrays, masks)
        inputs = [*(heads_side_by_side(arrays, array) for array in (queries, keys, values)), "", key_mask, bias]
        while not inputs[-1]:
            inputs.pop()
        name = arrays.graph.add(
            "MultiHeadAttention",
            inputs,
            domain=_MICROSOFT,
            num_heads=queries.shape[1],
            scale=scale,
            unidirectional=causal,
            mask_filter_value=_MASKED,
        )[0]
        arrays.set(output, name)
        return
    mask = [_spread(arrays, masks[0], queries, keys)] if masks else []
    heads = [arrays.whole(array) for array in (queries, keys, values)]
    attended = arrays.graph.add("Attention", [*heads, *mask], scale=scale, is_causal=causal)[0]
    apart = (output.shape[0], output.shape[1], queries.shape[1], values.shape[-1])
    side_by_side = arrays.graph.one("Transpose", attended, perm=[0, 2, 1, 3])
    arrays.set(output, arrays.graph.one("Reshape", side_by_side, arrays.target(apart, output.shape)))


def _masks(arrays: Arrays, masks: Sequence[TracedArray]) -> tuple[str, str]:
    """Return the mask of keys (batch, length) int32 and the bias of the scores, "" for none."""
    if not masks:
        return "", ""
    value = arrays.plain(masks[0])
    if value.dtype == "bool" and value.shape[2] == 1 and value.held == value.shape:
        seen = arrays.graph.shared("Squeeze", value.name, arrays.graph.constant([1, 2]))
        return arrays.graph.shared("Cast", seen, to=onnx_type("int32")), ""
    return "", _bias(arrays, value)


def _bias(arrays: Arrays, value: Value) -> str:
    """Return the name of what is added to the scores for a mask."""
    name = arrays.whole_value(value)
    if value.dtype != "bool":
        return name
    return arrays.graph.shared(
        "Where", name, arrays.graph.constant(0, "float32"), arrays.graph.constant(_MASKED, "float32")
    )


def _spread(arrays: Arrays, mask: TracedArray, queries: TracedArray, keys: TracedArray) -> str:
    """Return the name of a mask for each query, as `Attention` takes it."""
    value = arrays.plain(mask)
    bias = _bias(arrays, value)
    shape = (*mask.shape[:2], queries.shape[2], keys.shape[2])
    return bias if mask.shape == shape else arrays.graph.shared("Expand", bias, arrays.graph.sizes(shape))


METHODS: dict[str, Method] = {
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _layer_norm),
    "Gelu": _gelu,
    "RotaryEmbedding": _rotary,
    "Attention": _attention,
}
