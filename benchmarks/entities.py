"""EntityExtractor beside spaCy's full pipeline: "Speed and memory" in docs/entities.md.

python -m benchmarks.entities [--only sentences,memory] [--json FILE]

Every row runs in a process of its own, on the installed en_core_web_sm, and compares the entities before a time counts.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import psutil
import spacy
from spacy.tokens import Doc

from akidb_mlx.entities import Entity, EntityExtractor, windows
from benchmarks.rows import Row, resident, run
from benchmarks.workloads import sentences as sts_sentences

_ROUNDS = 3
Offsets = list[tuple[int, int, str]]


def sentences() -> list[Row]:
    """The sentences of the STS benchmark."""
    return _beside_spacy("STS sentences", sts_sentences(), "≥ 3", 3)


def paragraphs() -> list[Row]:
    """Eight sentences in a text, so that where a sentence begins matters to the entities."""
    texts = sts_sentences()
    random.Random(0).shuffle(texts)
    joined = [" ".join(texts[start : start + 8]) for start in range(0, len(texts), 8)]
    return _beside_spacy("paragraphs of eight", joined, "≥ 1", 1)


def long() -> list[Row]:
    """A text of many windows, in which spaCy finds the same with some hundred times the memory."""
    texts = sts_sentences()
    random.Random(0).shuffle(texts)
    text = " ".join(texts)[:160_000]
    with EntityExtractor() as extractor:
        extractor.extract(text[:20_000])
        before = psutil.Process().memory_info().rss
        with resident(skip=0) as samples:
            found = _offsets(extractor.extract(text))
        grown = max(samples) - before
        expected = _plain(_full(extractor)(text))
    different = len({*expected} ^ {*found})
    return [
        Row("160 000 characters: entities other than spaCy's", "0", f"{different} of {len(expected)}", not different),
        Row("160 000 characters: memory", "< 100 MB", f"{grown / 1e6:.0f} MB more", grown < 100e6),
    ]


def memory(texts: int = 50_000, call: int = 1_000) -> list[Row]:
    """Texts that never stop bringing new words."""
    known = sts_sentences()
    process = psutil.Process()
    samples = []
    with EntityExtractor() as extractor:
        for start in range(0, texts, call):
            numbers = range(start, start + call)
            extractor.extract_batch([f"{known[number % len(known)]} word{number}x" for number in numbers])
            samples.append(process.memory_info().rss)
    settled = samples[len(samples) // 5 :]
    growth = settled[-1] / settled[0] - 1
    measured = f"{growth:+.2%} of {settled[0] / 1e6:.0f} MB"
    return [Row(f"{texts} texts: memory, last four fifths", "< 2 %", measured, growth < 0.02)]


def batch_size() -> list[Row]:
    """Texts per second by the most texts in a batch; no bound, the figures behind `BATCH_TEXTS`."""
    texts = sts_sentences()
    chosen, seconds = windows.BATCH_TEXTS, {}
    with EntityExtractor() as extractor:
        for size in (8, 32, 64, 128, 256, 512):
            windows.BATCH_TEXTS = size
            seconds[size] = statistics.median(_seconds(lambda: extractor.extract_batch(texts)) for _ in range(_ROUNDS))
    measured = ", ".join(f"{size}: {len(texts) / taken:.0f}" for size, taken in seconds.items())
    return [Row(f"texts/s by batch size (chosen: {chosen})", "", measured, True)]


def _beside_spacy(name: str, texts: list[str], bound: str, least: float) -> list[Row]:
    """Alternating rounds of both on the same texts."""
    with EntityExtractor() as extractor:
        full = _full(extractor)
        expected = [_plain(full(text)) for text in texts]
        found = [_offsets(entities) for entities in extractor.extract_batch(texts)]
        different = sum(one != other for one, other in zip(found, expected, strict=True))
        ours, theirs, piped = [], [], []
        for _ in range(_ROUNDS):
            theirs.append(_seconds(lambda: [full(text) for text in texts]))
            piped.append(_seconds(lambda: list(full.pipe(texts))))
            ours.append(_seconds(lambda: extractor.extract_batch(texts)))
    rate, one_by_one, pipe = (len(texts) / statistics.median(seconds) for seconds in (ours, theirs, piped))
    speeds = f"{rate / one_by_one:.2f} ({rate:.0f} and {one_by_one:.0f} texts/s; its own pipe {pipe:.0f})"
    return [
        Row(f"{name}: texts with entities other than spaCy's", "0", f"{different} of {len(texts)}", not different),
        Row(f"{name}: times the full pipeline's speed, text by text", bound, speeds, rate / one_by_one >= least),
    ]


def _full(extractor: EntityExtractor) -> spacy.Language:
    return spacy.load(extractor.get_model_info()["models"][0]["path"])


def _plain(doc: Doc) -> Offsets:
    return [(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents]


def _offsets(entities: list[Entity]) -> Offsets:
    return [(entity.start, entity.end, entity.label) for entity in entities]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


ROWS: dict[str, Callable[[], list[Row]]] = {
    row.__name__: row for row in (sentences, paragraphs, long, memory, batch_size)
}


if __name__ == "__main__":
    run(ROWS, "Measure what finding entities costs.")
