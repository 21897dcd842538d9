"""Evaluation of many arrays in short turns on the device, so that other models run in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import mlx.core as mx

from akidb_mlx.runtime.locks import device_lock

# Bytes of arrays that are read and computed in one turn on the device; a larger array has a turn of its own.
_TURN_BYTES = 64 << 20


def evaluate_in_turns(arrays: Iterable[mx.array]) -> int:
    """Read and compute arrays, and return how many bytes they take.

    The device is held for a bounded number of bytes at a time.
    """
    total = 0
    for group in _groups(arrays, _TURN_BYTES):
        with device_lock:
            mx.eval(group)
            mx.synchronize()  # `eval` may return before a failure of the device is recorded (ml-explore/mlx#4134)
        total += sum(array.nbytes for array in group)
    return total


def _groups(arrays: Iterable[mx.array], max_bytes: int) -> Iterator[list[mx.array]]:
    """Yield the arrays in groups of at most `max_bytes`, or of a single larger array."""
    group: list[mx.array] = []
    size = 0
    for array in arrays:
        if group and size + array.nbytes > max_bytes:
            yield group
            group, size = [], 0
        group.append(array)
        size += array.nbytes
    if group:
        yield group
