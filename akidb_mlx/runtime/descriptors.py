"""The standard descriptors 0, 1 and 2, which MLX and C libraries expect to be open."""

from __future__ import annotations

import os

_STANDARD = (0, 1, 2)


def open_standard_descriptors() -> None:
    """Open the null device as each standard descriptor that is closed, as a daemon's may be.

    The next file to be opened would take its number otherwise. MLX cannot read a file whose descriptor is 0, and what
    a C library writes to descriptor 1 or 2 would end up in that file.
    """
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            if opened in _STANDARD:
                os.set_inheritable(opened, True)
            else:  # another thread took it meanwhile
                os.close(opened)
