"""A multilayer perceptron: linear layers, ReLU, batch normalisation and dropout, which does nothing here."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from akidb_mlx.selection.json_fields import Fields, Floats, Width
from akidb_mlx.selection.scored import ScoredLabels

_Layer = Callable[[Floats], Floats]
_DEFAULT_EPSILON = 1e-5


class Perceptron(ScoredLabels):
    """An MLP selector's data, and its choice.

    Args:
        fields: the file's.
        trained: whether it must hold data.
    """

    algorithm: ClassVar[str] = "mlp"

    def __init__(self, fields: Fields, *, trained: bool) -> None:
        self.names = fields.strings("model_names")
        size = fields.integer("feature_dim")
        classes = fields.integer("n_classes")
        for index, hidden in enumerate(fields.integers("hidden_sizes").tolist()):
            if hidden < 1:
                raise fields.error(f"hidden_sizes[{index}]", f"must be an integer of 1 or more, found {hidden}")
        fields.number("dropout")
        layers = fields.objects("layers")
        if classes != len(self.names):
            raise fields.error("n_classes", f"is {classes} and model_names has {len(self.names)} values")
        if trained and not self.names:
            raise fields.error("model_names", "is empty, and trained is true")
        if trained and not layers:
            raise fields.error("layers", "is empty, and trained is true")
        self.dimension: int | None = size or None
        self._layers: list[_Layer] = []
        for one in layers:
            layer, size = _read_layer(one, size)
            self._layers.append(layer)
            one.check_others()
        if layers and size != classes:
            raise fields.error("layers", f"end with {size} values and model_names has {classes}")

    def decide(self, queries: Floats) -> Floats:
        """Return the logits, (queries, labels)."""
        values = queries
        with np.errstate(over="ignore", invalid="ignore"):
            for layer in self._layers:
                values = layer(values)
        return values


def _read_layer(fields: Fields, size: int) -> tuple[_Layer, int]:
    """Return a layer that takes `size` values, and how many it gives."""
    kind = fields.choice("type", ("linear", "relu", "batch_norm", "dropout"))
    if kind == "linear":
        return _read_linear(fields, size)
    if kind == "batch_norm":
        return _read_batch_norm(fields, size), size
    if kind == "dropout":
        fields.number("p")
        return lambda values: values, size
    return lambda values: np.maximum(values, 0), size


def _read_linear(fields: Fields, size: int) -> tuple[_Layer, int]:
    _check_size(fields, "in_features", size)
    outputs = fields.integer("out_features", minimum=1)
    weight = fields.matrix("weight", Width())
    if weight.shape != (outputs, size):
        raise fields.error("weight", f"has {weight.shape[0]} by {weight.shape[1]} values, expected {outputs} by {size}")
    bias = _optional(fields, "bias", outputs, 0.0)
    # Unlike a product of matrices, this gives equal rows equal results, whatever is computed beside them.
    return lambda values: np.einsum("qi,oi->qo", values, weight) + bias, outputs


def _read_batch_norm(fields: Fields, size: int) -> _Layer:
    _check_size(fields, "num_features", size)
    weight, bias = _optional(fields, "weight", size, 1.0), _optional(fields, "bias", size, 0.0)
    mean, variance = _optional(fields, "running_mean", size, 0.0), _optional(fields, "running_var", size, 1.0)
    epsilon = fields.number("eps") if fields.has("eps") else _DEFAULT_EPSILON
    if not (variance + epsilon > 0).all():
        index = int(np.argmin(variance + epsilon > 0))
        raise fields.error(f"running_var[{index}]", "plus eps must be more than 0")
    deviation = np.sqrt(variance + epsilon)
    return lambda values: (values - mean) / deviation * weight + bias


def _check_size(fields: Fields, key: str, size: int) -> None:
    if (found := fields.integer(key, minimum=1)) != size:
        raise fields.error(key, f"is {found}, and the layer gets {size} values")


def _optional(fields: Fields, key: str, size: int, default: float) -> Floats:
    """Return a list that may be null, and then one value for all: a file may name a huge size."""
    if not fields.has(key):
        return np.array([default])
    found = fields.vector(key)
    if len(found) != size:
        raise fields.error(key, f"has {len(found)} values, expected {size}")
    return found
