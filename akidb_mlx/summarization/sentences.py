"""Splitting of texts into sentences, each verbatim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from akidb_mlx.errors import ConfigurationError

# Characters that the splitter is given at once: its time grows with the square of them in some scripts.
_SPAN = 8192


@dataclass(frozen=True)
class Sentence:
    """The place of a sentence in its text, without the white space around it."""

    start: int
    end: int


class SentenceSplitter:
    """Sentence boundaries for some three hundred languages (sentencex); safe to use from any thread."""

    def __init__(self, language: str = "en") -> None:
        """Load the splitter.

        Args:
            language: code of the language whose abbreviations are known; the marks that end sentences are those of
                all languages.

        Raises:
            ConfigurationError: sentencex is not installed.
        """
        try:
            from sentencex import segment
        except ImportError as error:
            raise ConfigurationError("summaries need an extra: run `pip install 'akidb-mlx[summarize]'`") from error
        self._segment = segment
        self._language = language

    def __call__(self, text: str) -> Iterator[Sentence]:
        """Yield the sentences of a text, in order; only white space lies between them.

        A run of 8 192 characters in which no sentence ends is cut at its last white space.
        """
        start = 0
        while start < len(text):
            span = text[start : start + _SPAN]
            ends = self._ends(span)
            if start + _SPAN < len(text):  # the last sentence of this span may go on in the next
                ends = ends[:-1] or [_last_space(span)]
            begin = 0
            for end in ends:
                sentence = span[begin:end]
                stripped = sentence.strip()
                if stripped:
                    offset = start + begin + sentence.index(stripped)
                    yield Sentence(offset, offset + len(stripped))
                begin = end
            start += begin

    def _ends(self, text: str) -> list[int]:
        """Return where sentences end; the last is the end of the text."""
        ends, position = [], 0
        for sentence in self._segment(self._language, text):
            # Found and not counted: some versions leave out white space between sentences.
            found = text.find(stripped, position) if (stripped := sentence.strip()) else -1
            if found >= 0:
                position = found + len(stripped)
                ends.append(position)
        if ends:
            ends.pop()
        return [*ends, len(text)]


def _last_space(text: str) -> int:
    """Return where the last white space of a text ends; the text's end where it has none."""
    words = text.rsplit(None, 1)
    return len(text) - len(words[1]) if len(words) == 2 and not text[-1].isspace() else len(text)
