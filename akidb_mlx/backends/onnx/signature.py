"""The inputs and outputs of an ONNX model, by their names and types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.engine.backend import TokenRows
from akidb_mlx.errors import ModelLoadError

_IDS, _MASK, _TYPES, _POSITIONS = "input_ids", "attention_mask", "token_type_ids", "position_ids"
_INPUTS = (_IDS, _MASK, _TYPES, _POSITIONS)
# The names that exporters give to a vector for each text, and to one for each token.
_POOLED = ("sentence_embedding",)
_TOKENS = ("token_embeddings", "last_hidden_state")
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_MASKS = {**_INTEGERS, "tensor(float)": np.float32, "tensor(bool)": np.bool_}
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True)
class Signature:
    """The inputs that a model is given, and the output that is taken.

    Attributes:
        inputs: the type of each input.
        output: the name of the output that is taken.
        pooled: whether that is a vector for each text, and not one for each token.
    """

    inputs: Mapping[str, Any]
    output: str
    pooled: bool

    @property
    def masks(self) -> bool:
        """Return whether the model is told which tokens are padding."""
        return _MASK in self.inputs

    def feed(self, rows: TokenRows) -> dict[str, NDArray[Any]]:
        """Return the inputs for a batch."""
        shape = rows.ids.shape
        places = np.arange(shape[1])
        values: dict[str, Any] = {_IDS: rows.ids}
        if _MASK in self.inputs:
            values[_MASK] = places < rows.lengths[:, None]
        if _TYPES in self.inputs:
            values[_TYPES] = np.zeros(shape, np.int64)
        if _POSITIONS in self.inputs:
            values[_POSITIONS] = np.broadcast_to(places, shape)
        return {name: np.ascontiguousarray(value, self.inputs[name]) for name, value in values.items()}


def read_signature(file: Path, session: Any, *, tokens: bool, positions: bool) -> Signature:
    """Return the signature of a session's model.

    Args:
        file: the model, for errors.
        session: ONNX Runtime's.
        tokens: whether a vector for each token is needed, since not all of them are pooled alike.
        positions: whether the positions of tokens count from 0, so that they can be given.

    Raises:
        ModelLoadError: the model needs other inputs, has no output of a known name, or one of another type.
    """
    inputs: dict[str, Any] = {}
    for one in session.get_inputs():
        known = _MASKS if one.name == _MASK else _INTEGERS
        if one.name not in _INPUTS or (one.name == _POSITIONS and not positions):
            raise ModelLoadError(
                f"{file}: the model needs the input {cut(one.name)!r}, which cannot be given ({', '.join(_INPUTS)} can)"
            )
        if one.type not in known:
            raise ModelLoadError(f"{file}: the input {one.name} is a {one.type}, expected {' or '.join(known)}")
        if len(one.shape) != 2 or any(isinstance(size, int) for size in one.shape):
            raise ModelLoadError(
                f"{file}: the input {one.name} has the shape {cut(str(one.shape))}; export the model with a dynamic "
                "batch and length"
            )
        inputs[one.name] = known[one.type]
    if _IDS not in inputs:
        raise ModelLoadError(f"{file}: the model has no input {_IDS}")
    return _choose_output(file, session.get_outputs(), inputs, tokens)


def _choose_output(file: Path, outputs: list[Any], inputs: Mapping[str, Any], tokens: bool) -> Signature:
    """Return the signature with the output to take: of tokens where there is one, as this package pools by itself."""
    found = {one.name: one for one in outputs}
    wanted = _TOKENS if tokens else (*_TOKENS, *_POOLED)
    name = next((name for name in wanted if name in found), None)
    if name is None:
        only = f"; its {_POOLED[0]} is of no use for this model" if tokens and _POOLED[0] in found else ""
        raise ModelLoadError(
            f"{file}: the model has no output {' or '.join(wanted)} (found {cut(', '.join(found), 200)}){only}"
        )
    if found[name].type not in _FLOATS:
        raise ModelLoadError(f"{file}: the output {name} is a {found[name].type}, expected {' or '.join(_FLOATS)}")
    return Signature(inputs, name, name in _POOLED)
