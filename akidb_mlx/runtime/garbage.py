"""Pauses the garbage collector where a program begins."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage meanwhile, and leave what exists at the end out of later collections.

    For the imports of a program: they make thousands of objects that stay, and looking through them again and again
    takes a tenth of their time. The collector runs for the whole process, so no library may use this.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
