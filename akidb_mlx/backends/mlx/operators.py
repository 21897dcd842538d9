"""Names for the operators that MLX's graph holds in parts, so that a traced graph can be written with whole ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx


class _State(threading.local):
    naming = False


_state = _State()


@contextmanager
def naming_operators() -> Iterator[None]:
    """Have `named` leave its mark in the graphs that this thread makes inside the `with` block."""
    _state.naming = True
    try:
        yield
    finally:
        _state.naming = False


def named(operator: str, result: mx.array, inputs: Sequence[mx.array], **attributes: float | str) -> mx.array:
    """Return the result of an operator, marked with its name, inputs and attributes while a graph is traced.

    The mark is a dependency of the result on the inputs, and on a constant that holds the rest as JSON.
    """
    if not _state.naming:
        return result
    label = mx.array(list(json.dumps([operator, attributes]).encode()), mx.uint8)
    marked: list[mx.array] = mx.depends([result], [label, *inputs])
    return marked[0]
