"""Compare EntityExtractor with spaCy's full pipeline, the figures of "Speed and memory" in docs/entities.md.

python -m benchmarks.entities [--only sentences,memory] [--json FILE]

Each scenario runs in a process of its own, on the installed en_core_web_sm. A time counts only after the entities have
been compared.
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
from benchmarks.rows import Row, run, sample_resident_memory
from benchmarks.workloads import sentences as sts_sentences

_ROUNDS = 3
Offsets = list[tuple[int, int, str]]


def sentences() -> list[Row]:
    """Compare on the sentences of the STS benchmark."""
    return _compare("STS sentences", sts_sentences(), "≥ 3", 3)


def paragraphs() -> list[Row]:
    """Compare on texts of eight sentences, in which the beginnings of sentences affect the entities."""
    texts = sts_sentences()
    random.Random(0).shuffle(texts)
    joined = [" ".join(texts[start : start + 8]) for start in range(0, len(texts), 8)]
    return _compare("paragraphs of eight", joined, "≥ 1", 1)


def long() -> list[Row]:
    """Compare on a text of many windows, for which spaCy needs some hundred times the memory."""
    texts = sts_sentences()
    random.Random(0).shuffle(texts)
    text = " ".join(texts)[:160_000]
    with EntityExtractor() as extractor:
        extractor.extract(text[:20_000])
        before = psutil.Process().memory_info().rss
        with sample_resident_memory(skip_s=0) as samples:
            found = _offsets(extractor.extract(text))
        grown = max(samples) - before
        expected = _spacy_offsets(_load_full_pipeline(extractor)(text))
    different = len({*expected} ^ {*found})
    return [
        Row("160 000 characters: entities other than spaCy's", "0", f"{different} of {len(expected)}", not different),
        Row(
            "160 000 characters: growth of the resident memory", "< 100 MB", f"{grown / 1e6:.0f} MB more", grown < 100e6
        ),
    ]


def memory(texts: int = 50_000, call: int = 1_000) -> list[Row]:
    """Measure the memory while every text brings new words."""
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
    return [
        Row(f"{texts} texts: growth of the resident memory in the last four fifths", "< 2 %", measured, growth < 0.02)
    ]


def batch_size() -> list[Row]:
    """Measure texts per second for each size of a batch, without a bound; `BATCH_TEXTS` was chosen by this."""
    texts = sts_sentences()
    chosen, seconds = windows.BATCH_TEXTS, {}
    with EntityExtractor() as extractor:
        for size in (8, 32, 64, 128, 256, 512):
            windows.BATCH_TEXTS = size
            seconds[size] = statistics.median(
                _measure_seconds(lambda: extractor.extract_batch(texts)) for _ in range(_ROUNDS)
            )
    measured = ", ".join(f"{size}: {len(texts) / taken:.0f}" for size, taken in seconds.items())
    return [Row(f"throughput in texts/s for each batch size (chosen: {chosen})", "", measured, True)]


def _compare(name: str, texts: list[str], bound: str, least: float) -> list[Row]:
    """Compare both on the same texts, in alternating rounds."""
    with EntityExtractor() as extractor:
        full = _load_full_pipeline(extractor)
        expected = [_spacy_offsets(full(text)) for text in texts]
        found = [_offsets(entities) for entities in extractor.extract_batch(texts)]
        different = sum(one != other for one, other in zip(found, expected, strict=True))
        ours, theirs, piped = [], [], []
        for _ in range(_ROUNDS):
            theirs.append(_measure_seconds(lambda: [full(text) for text in texts]))
            piped.append(_measure_seconds(lambda: list(full.pipe(texts))))
            ours.append(_measure_seconds(lambda: extractor.extract_batch(texts)))
    rate, one_by_one, pipe = (len(texts) / statistics.median(seconds) for seconds in (ours, theirs, piped))
    speeds = f"{rate / one_by_one:.2f} ({rate:.0f} and {one_by_one:.0f} texts/s; spaCy's pipe() {pipe:.0f})"
    return [
        Row(f"{name}: texts with entities other than spaCy's", "0", f"{different} of {len(texts)}", not different),
        Row(
            f"{name}: throughput divided by the full pipeline's, text by text",
            bound,
            speeds,
            rate / one_by_one >= least,
        ),
    ]


def _load_full_pipeline(extractor: EntityExtractor) -> spacy.Language:
    return spacy.load(extractor.get_model_info()["models"][0]["path"])


def _spacy_offsets(doc: Doc) -> Offsets:
    return [(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents]


def _offsets(entities: list[Entity]) -> Offsets:
    return [(entity.start, entity.end, entity.label) for entity in entities]


def _measure_seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


SCENARIOS: dict[str, Callable[[], list[Row]]] = {
    scenario.__name__: scenario for scenario in (sentences, paragraphs, long, memory, batch_size)
}


if __name__ == "__main__":
    run(SCENARIOS, "Measure the speed and the memory of finding entities.")
