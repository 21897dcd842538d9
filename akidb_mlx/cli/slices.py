"""Work on many texts, some at a time, with a progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from akidb_mlx.cli.inputs import TextSource
from akidb_mlx.errors import AkidbMlxError

_Result = TypeVar("_Result")


def map_slices(
    work: Callable[[list[str]], _Result], source: TextSource, bar_label: str | None
) -> Iterator[tuple[list[str], _Result]]:
    """Yield each slice of the texts with the result of `work` on it, as soon as it is there.

    Args:
        work: called with one slice at a time.
        source: the texts.
        bar_label: label of a progress bar, which is shown on a terminal if there is more than one slice; None for
            no bar.

    Raises:
        AkidbMlxError: as `work` raises. Where the error names a text, the texts of the slice before it are worked on
            and yielded first, and the message names the text's place among all.
    """
    done = 0
    with ExitStack() as shown:
        progress: Callable[[int, int | None], None] | None = None
        for texts in source.slices:
            if done and bar_label and progress is None:
                progress = shown.enter_context(progress_bar(bar_label))
            if progress is not None:
                progress(done, source.total)
            failure: AkidbMlxError | None = None
            while texts:
                try:
                    result = work(texts)
                except AkidbMlxError as error:
                    if error.index is None:
                        raise
                    failure, texts = error, texts[: error.index]
                else:
                    yield texts, result
                    break
            if failure is not None:
                raise _with_place(failure, source, done) from failure
            done += len(texts)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show a progress bar if standard error is a terminal.

    Yields:
        A function to call with the number of steps done and their total, if it is known; None without a terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    # What the command writes to standard output meanwhile stays there: rich would move it to the bar's terminal.
    with Progress(*columns, console=Console(file=sys.stderr), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _with_place(error: AkidbMlxError, source: TextSource, first: int) -> AkidbMlxError:
    """Return the error with the place of its text among all; its message counts from the slice's first text."""
    message = str(error).replace(f"text {error.index}", source.name_text(first + (error.index or 0)), 1)
    return type(error)(message, first + (error.index or 0))
