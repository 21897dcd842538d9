"""`akidb-mlx stdio`, which AkiDB starts and talks to."""

from __future__ import annotations


def stdio() -> None:
    """Serve AkiDB's protocol over the standard streams, for a program that starts this one.

    Each line of standard input is a JSON request: ping, load_model or embed_batch. Each has a JSON answer on a line of
    standard output, in the order of the requests. Ends when standard input or the program that started it does.
    """
    from akidb_mlx.stdio.server import serve  # other commands need not wait for it

    serve()
