"""Entities: where they are, exactly, and that nothing but speed differs from spaCy's full pipeline."""

import itertools
import json
import os
import signal
import threading
import time
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from akidb_mlx.deadline import NEVER
from akidb_mlx.entities import Entity, EntityExtractor, MergedEntity, count_labels, merge_entities
from akidb_mlx.entities.entity import Span, make_entities
from akidb_mlx.entities.pipeline import Pipeline, make_plan
from akidb_mlx.entities.windows import LONGEST, batches, windows
from akidb_mlx.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ReentrantCallError,
    ServiceClosedError,
)
from akidb_mlx.runtime.locks import FairLock
from tests.clocks import FakeClock
from tests.ner import CROSSING, PEOPLE, PLACES
from tests.support import run_python, sts_pairs

spacy = pytest.importorskip("spacy")

SENTENCE = "Alice met Bob in Paris"


@pytest.fixture(scope="module")
def tiny(tiny_ner):
    with EntityExtractor(tiny_ner) as extractor:
        yield extractor


@pytest.fixture(scope="module")
def full(tiny_ner):
    return spacy.load(tiny_ner)


def offsets(entities):
    return [(entity.start, entity.end, entity.label) for entity in entities]


def spacy_offsets(doc):
    return [(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents]


def check_exact(text, entities):
    position = 0
    for entity in entities:
        assert position <= entity.start < entity.end
        assert text[entity.start : entity.end] == entity.text
        assert text.encode()[entity.start_byte : entity.end_byte].decode() == entity.text
        position = entity.end


def test_the_contract_with_the_real_model(english):
    assert [entity.to_dict() for entity in english.extract(SENTENCE)] == [
        {"text": "Alice", "label": "PERSON", "start": 0, "end": 5},
        {"text": "Bob", "label": "PERSON", "start": 10, "end": 13},
        {"text": "Paris", "label": "GPE", "start": 17, "end": 22},
    ]


@pytest.mark.slow
def test_the_real_model_finds_what_its_full_pipeline_finds(english):
    """Also in texts of several sentences; all 2 758 are in benchmarks/entities.py."""
    first, second, _ = sts_pairs()
    texts = [*first[::8], *(" ".join(second[start : start + 6]) for start in range(0, 600, 12))]
    full = spacy.load(english.get_model_info()["models"][0]["path"])
    assert english.get_model_info()["models"][0]["components"] == ["tok2vec", "parser", "ner"]
    assert [offsets(found) for found in english.extract_batch(texts)] == [spacy_offsets(full(text)) for text in texts]


def test_an_entity_is_a_frozen_record(tiny):
    found = tiny.extract("😀 Čapek met Bob in Köln")
    assert found[::2] == [Entity("Čapek", "PERSON", 2, 7, 5, 11), Entity("Köln", "GPE", 19, 23, 23, 28)]
    with pytest.raises(FrozenInstanceError):
        found[0].start = 1


noise = st.text(
    st.sampled_from("aZß éñ\u0301\u0308 ⁠😀👩\u200d👧🏽ก็नि日本語،مرحبا\x00\t\n\U0001d4b3\u202e\ufe0f.!?-")
    | st.characters(codec="utf-8")
)
mixtures = st.lists(noise | st.sampled_from([*PEOPLE, *PLACES, " in ", " met ", " "]), max_size=30).map("".join)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(mixtures, max_size=4))
def test_offsets_are_exact_in_any_mixture_of_scripts(tiny, full, texts):
    for text, found in zip(texts, tiny.extract_batch(texts), strict=True):
        check_exact(text, found)
        expected = spacy_offsets(full(text)) if text.strip() else []
        assert offsets(found) == expected


@given(text=st.text(st.characters(codec="utf-8"), max_size=200), data=st.data())
def test_bytes_are_counted_exactly(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12, unique=True)))
    spans = [Span(start, end, "X") for start, end in zip(cuts[::2], cuts[1::2], strict=False)]
    found = make_entities(text, spans)
    assert len(found) == len(spans)
    check_exact(text, found)


def test_sentences_are_told_only_where_they_matter(tiny, full):
    texts = [f"He works at {CROSSING} now", SENTENCE, f"Alice met Bob at {CROSSING} now. In Paris"]
    alone = [spacy_offsets(doc) for doc in full.pipe(texts, disable=["sentencizer"])]
    expected = [spacy_offsets(full(text)) for text in texts]
    assert (12, 12 + len(CROSSING), "ORG") in alone[0]
    assert alone[0] != expected[0]  # or this would show nothing
    assert [offsets(found) for found in tiny.extract_batch(texts)] == expected


def test_only_what_entities_need_is_loaded(tiny):
    assert tiny.get_model_info()["models"][0]["components"] == ["tok2vec", "sentencizer", "ner"]


def plan(disabled=(), **components):
    pipeline = {name: part if isinstance(part, dict) else {"factory": part} for name, part in components.items()}
    return make_plan({"nlp": {"pipeline": list(pipeline), "disabled": list(disabled)}, "components": pipeline})


def test_plans():
    def listening(factory, upstream):
        return {"factory": factory, "model": {"tok2vec": {"upstream": upstream}}}

    apart = plan(
        words="tok2vec",
        other="tok2vec",
        tagger="tagger",
        parser=listening("parser", "words"),
        senter="senter",
        ner="ner",
        late="sentencizer",
        disabled=["senter"],
    )
    assert (apart.recogniser, apart.first, apart.sentences) == ("ner", {"ner"}, {"parser", "words"})
    assert set(apart.excluded) == {"other", "tagger", "senter", "late"}
    shared = plan(words="tok2vec", parser=listening("parser", "words"), ner=listening("ner", "*"))
    assert (shared.first, shared.sentences) == ({"words", "ner"}, {"parser"})
    for whole in (
        plan(tagger="tagger", ner="ner", ruler="entity_ruler"),
        plan(ner="beam_ner", tagger="tagger"),
        plan(ner="ner", theirs="somebody.elses"),
        plan(ner="ner", other="ner"),
    ):
        assert whole.recogniser is None
        assert whole.excluded == ()


def test_a_pipeline_with_rules_runs_whole(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "FRUIT", "pattern": "apple"}])
    nlp.to_disk(tmp_path / "rules")
    with EntityExtractor(tmp_path / "rules") as extractor:
        assert offsets(extractor.extract("an apple 🍎 apple")) == [(3, 8, "FRUIT"), (11, 16, "FRUIT")]
        assert extractor.get_model_info()["labels"] == ["FRUIT"]


def test_blank_texts_have_no_entities(tiny):
    assert tiny.extract("") == []
    assert tiny.extract_batch([]) == []
    assert tiny.extract_batch(["", " \n\u2003", "\x00"]) == [[], [], []]


@pytest.mark.parametrize("bad", ["\ud800", b"bytes", None, 7])
def test_a_bad_text_is_named(tiny, bad):
    with pytest.raises(InvalidInputError, match="text 1") as caught:
        tiny.extract_batch([SENTENCE, bad])
    assert caught.value.index == 1
    with pytest.raises(InvalidInputError):
        tiny.extract(bad)


@pytest.mark.parametrize("texts", ["one text", b"bytes", None, {"a": 1}])
def test_a_batch_is_a_list(tiny, texts):
    with pytest.raises(InvalidInputError, match="texts must be a list of strings"):
        tiny.extract_batch(texts)


def test_labels(tiny_ner):
    with EntityExtractor(tiny_ner, labels=["GPE"]) as extractor:
        assert [entity.text for entity in extractor.extract(SENTENCE)] == ["Paris"]
    with pytest.raises(InvalidInputError, match=r"en_tiny has no label 'LOC'; it has GPE, ORG, PERSON"):
        EntityExtractor(tiny_ner, labels=["GPE", "LOC"])
    for labels in ([], [7]):
        with pytest.raises(InvalidInputError, match="labels must be"):
            EntityExtractor(tiny_ner, labels=labels)


def test_counts_and_merging():
    found = make_entities(
        "Ann, ANN and  Al\tBo, Al Bo; \uff21\uff4e\uff4e",
        [
            Span(0, 3, "P"),
            Span(5, 8, "P"),
            Span(14, 19, "O"),
            Span(21, 26, "O"),
            Span(28, 31, "P"),
        ],
    )
    assert count_labels(found) == {"P": 3, "O": 2}
    assert list(count_labels(found)) == ["P", "O"]
    assert merge_entities(found) == [
        MergedEntity("Ann", "P", (found[0], found[1], found[4])),
        MergedEntity("Al\tBo", "O", (found[2], found[3])),
    ]


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(st.sampled_from("ab  .\n。e\u0301\u200d😀"), max_size=400),
    longest=st.integers(30, 90),
    margin=st.integers(0, 12),
)
def test_windows_answer_for_every_character_once(text, longest, margin):
    parts = list(windows([(7, text)], longest, margin))
    if not text.strip():
        assert parts == []
        return
    assert [part.index for part in parts] == [7] * len(parts)
    assert parts[0].first == parts[0].start == 0
    assert parts[-1].last == parts[-1].stop == len(text)
    for before, after in itertools.pairwise(parts):
        assert before.last == after.first
    for part in parts:
        assert part.start <= part.first < part.last <= part.stop <= part.start + longest


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("word " * 30 + "End. " + "word " * 30, ". "),
        ("word " * 30 + "终。" + "字" * 200, "。"),
        ("word " * 60, " "),
        ("e\u0301" * 150, "\u0301"),
        ("👩\u200d" * 150, None),
    ],
)
def test_where_windows_are_cut(text, end):
    first = next(windows([(0, text)], 200, 20))
    cut = first.last
    if end is None:
        assert "\u200d" not in text[cut - 1 : cut + 1] or cut > 130
    else:
        assert text[:cut].endswith(end)
        assert not text[cut : cut + 1].startswith("\u0301")


@pytest.mark.parametrize("longest", [60, 200])
def test_windows_change_no_entity(tiny, full, monkeypatch, longest):
    """Entities around every possible cut: what is found is what is found in the whole."""
    text = " ".join(f"{'x' * (n % 7)} {PEOPLE[n % 4]} met {PEOPLE[n % 3]} in {PLACES[n % 3]}" for n in range(200))
    small = lambda texts: windows(texts, longest, longest // 4)  # noqa: E731
    monkeypatch.setattr("akidb_mlx.entities.extractor.windows", small)
    found = tiny.extract(text)
    assert len(found) >= 550
    assert offsets(found) == spacy_offsets(full(text))


def test_an_entity_is_not_taken_twice():
    """Two windows that disagree about where an entity at their cut begins."""
    parts = list(windows([(0, "word " * 20)], 60, 20))
    found = [Span(0, parts[0].last + 3, "X")]
    parts[1].take([Span(parts[0].last + 1 - parts[1].start, parts[0].last + 4 - parts[1].start, "Y")], found)
    assert found == [Span(0, parts[0].last + 3, "X")]


@pytest.mark.slow
@pytest.mark.parametrize("filler", ["x" * 57 + " ", "x" * 58, "字" * 29 + "。" + "é\u0301" * 14])
def test_a_text_of_three_megabytes(tiny, full, filler):
    """Names wherever a window may be cut, in words, without white space, and in a script that has none."""
    names = [f" {PEOPLE[n % 4]} met {PEOPLE[n % 3]} in Paris " for n in range(100)]
    text = "".join(filler * 520 + name for name in names)
    assert len(text) > 3_000_000
    assert len(text) > full.max_length
    found = tiny.extract(text)
    check_exact(text, found)
    assert sum(entity.text == "Paris" for entity in found) == 100


def test_batches_are_bounded():
    parts = list(windows(enumerate(["a " * 100] * 300 + ["b " * 30_000] + ["c"] * 300)))
    packed = list(batches(parts))
    assert [part for batch in packed for part in batch] == parts
    assert all(len(batch) <= 128 and sum(part.stop - part.start for part in batch) <= LONGEST for batch in packed)
    assert len(packed) < 20


def test_threads_get_what_one_gets(tiny):
    texts = [f"{PEOPLE[n % 4]} number {n} met Bob in {PLACES[n % 3]}" for n in range(300)]
    expected = tiny.extract_batch(texts)
    results = {}

    def ask(number):
        results[number] = [tiny.extract_batch(texts), [tiny.extract(text) for text in texts[:20]]]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert list(results.values()) == [[expected, expected[:20]]] * 8


def test_a_wait_that_is_interrupted_leaves_no_turn_behind():
    turns = FairLock()
    held, release = threading.Event(), threading.Event()

    def hold():
        with turns:
            held.set()
            release.wait(10)

    def interrupt(*_):
        raise KeyboardInterrupt

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt), turns:
            pass
    finally:
        signal.signal(signal.SIGALRM, before)
    release.set()
    holder.join(10)
    taken = threading.Thread(target=lambda: turns.__enter__(), daemon=True)
    taken.start()
    taken.join(5)
    assert not taken.is_alive()


def test_a_component_that_fails(tiny_ner, monkeypatch):
    with EntityExtractor(tiny_ner) as extractor:
        pipeline = extractor._pipeline(str(tiny_ner), NEVER)
        monkeypatch.setattr(pipeline, "_annotate", lambda _: 1 / 0)
        with pytest.raises(InferenceError, match="en_tiny failed on a batch of 1 texts: ZeroDivisionError"):
            extractor.extract(SENTENCE)
        monkeypatch.undo()
        assert len(extractor.extract(SENTENCE)) == 3


def test_closing(tiny_ner):
    extractor = EntityExtractor(tiny_ner)
    assert extractor.health_check() == {"status": "ok", "reason": ""}
    assert extractor.get_model_info()["status"] == "ready"
    extractor.close()
    extractor.close()
    assert extractor.health_check()["status"] == "failed"
    assert extractor.get_model_info()["status"] == "closed"
    with pytest.raises(ServiceClosedError, match="is closed"):
        extractor.extract(SENTENCE)


def test_a_representation_is_short(tiny_ner):
    with EntityExtractor(tiny_ner) as extractor:
        assert repr(extractor).startswith("<EntityExtractor '")
        assert repr(extractor).endswith("': 1 loaded, ready>")
        assert len(repr(extractor)) < 100
    assert repr(extractor).endswith(": 0 loaded, closed>")


# Deadlines


@pytest.mark.parametrize("timeout", [0, -1, "1", True, float("nan")])
def test_a_timeout_that_is_refused(tiny, timeout):
    with pytest.raises(InvalidInputError, match="timeout must be a number of seconds above 0"):
        tiny.extract(SENTENCE, timeout=timeout)


@pytest.mark.parametrize("timeout", [None, 60, 1e300, float("inf")])
def test_a_timeout_that_is_long_enough(tiny, timeout):
    assert len(tiny.extract(SENTENCE, timeout=timeout)) == 3


def test_the_batch_of_another_caller_is_not_waited_for_longer(tiny_ner, monkeypatch):
    begun, go_on, found = threading.Event(), threading.Event(), []
    with EntityExtractor(tiny_ner) as extractor:
        pipeline = extractor._pipeline(str(tiny_ner), NEVER)
        annotate = pipeline._annotate

        def hang(texts):
            begun.set()
            assert go_on.wait(60)
            return annotate(texts)

        monkeypatch.setattr(pipeline, "_annotate", hang)
        other = threading.Thread(target=lambda: found.append(extractor.extract(SENTENCE)))
        other.start()
        assert begun.wait(60)
        with pytest.raises(DeadlineExceededError, match="not done within the call's timeout"):
            extractor.extract(SENTENCE, timeout=0.05)
        go_on.set()
        other.join(60)
        assert len(found[0]) == 3
        assert len(extractor.extract(SENTENCE, timeout=60)) == 3


def test_the_deadline_is_looked_at_before_each_batch(tiny_ner, monkeypatch):
    clock = FakeClock(monkeypatch)
    batches_run = []
    with EntityExtractor(tiny_ner) as extractor:
        pipeline = extractor._pipeline(str(tiny_ner), NEVER)
        annotate = pipeline._annotate

        def slow(texts):
            batches_run.append(len(texts))
            clock.advance(1)
            return annotate(texts)

        monkeypatch.setattr(pipeline, "_annotate", slow)
        texts = [SENTENCE + " " * 10_000] * 5
        with pytest.raises(DeadlineExceededError):
            extractor.extract_batch(texts, timeout=2.5)
        assert batches_run == [1, 1, 1]
        assert len(extractor.extract_batch(texts, timeout=5.5)) == 5


@pytest.fixture
def slow_loading(tiny_ner, monkeypatch):
    """An extractor whose models load only when told; with the event and what was loaded."""
    go_on, loads = threading.Event(), []

    class SlowPipeline(Pipeline):
        def __init__(self, directory):
            loads.append(directory)
            assert go_on.wait(60)
            super().__init__(directory)

    extractor = EntityExtractor(tiny_ner)
    extractor._loaded.clear()
    monkeypatch.setattr("akidb_mlx.entities.extractor.Pipeline", SlowPipeline)
    yield extractor, go_on, loads
    go_on.set()
    extractor.close()


def test_a_call_leaves_a_model_that_loads_and_the_next_finds_it(slow_loading):
    extractor, go_on, loads = slow_loading
    for _ in range(3):
        with pytest.raises(DeadlineExceededError):
            extractor.extract(SENTENCE, timeout=0.05)
    go_on.set()
    assert len(extractor.extract(SENTENCE)) == 3
    assert len(loads) == 1


def test_a_model_that_is_loaded_after_closing_is_not_kept(slow_loading):
    extractor, go_on, _ = slow_loading
    found = []
    caller = threading.Thread(target=lambda: found.append(extractor.extract(SENTENCE)))
    caller.start()
    while not extractor._loading._entered:
        time.sleep(0.001)
    extractor.close()
    go_on.set()
    caller.join(60)
    assert len(found[0]) == 3
    assert extractor.get_model_info()["models"] == []


def test_a_call_from_a_handler_that_interrupts_loading_gets_an_error(slow_loading, monkeypatch):
    extractor, go_on, _ = slow_loading
    go_on.set()
    errors = []

    def interrupted(directory):
        with pytest.raises(ReentrantCallError) as caught:
            extractor.extract(SENTENCE)
        errors.append(caught.value)
        return Pipeline(directory)

    monkeypatch.setattr("akidb_mlx.entities.extractor.Pipeline", interrupted)
    assert len(extractor.extract(SENTENCE)) == 3
    assert len(errors) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_told(tiny_ner):
    done = run_python(
        "import os, sys\n"
        "from akidb_mlx.entities import EntityExtractor\n"
        "from akidb_mlx.errors import ServiceClosedError\n"
        "extractor = EntityExtractor(sys.argv[1])\n"
        "if not os.fork():\n"
        "    try: extractor.extract('a')\n"
        "    except ServiceClosedError: os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))",
        60,
        str(tiny_ner),
    )
    assert done.stdout == "7\n", done.stderr


def test_model_info_is_plain(tiny, tiny_ner):
    info = tiny.get_model_info()
    assert json.loads(json.dumps(info)) == info
    assert (info["model_name"], info["language"], info["backend"]) == (str(tiny_ner), "en", "spacy")
    assert info["labels"] == ["GPE", "ORG", "PERSON"]
    assert (info["models"][0]["name"], info["models"][0]["licence"]) == ("en_tiny", "MIT")


def test_spacy_is_imported_when_an_extractor_is_made():
    heavy = ("spacy", "py3langid", "mlx")
    done = run_python(
        f"import sys, akidb_mlx.entities, akidb_mlx.cli.entities; print({{*{heavy!r}}} & {{*sys.modules}})"
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(("package", "language"), [("spacy", "None"), ("py3langid", "'auto'")])
def test_a_missing_extra_is_named(package, language):
    done = run_python(
        f"import sys; sys.modules[{package!r}] = None\n"
        "from akidb_mlx.entities import EntityExtractor\n"
        "from akidb_mlx.errors import ConfigurationError\n"
        f"try: EntityExtractor(language={language})\n"
        "except ConfigurationError as error: print(error)"
    )
    assert done.stdout.startswith(f"entities need {package}")
    assert done.stdout.endswith("run `pip install 'akidb-mlx[ner]'`\n")


def test_mlx_is_not_involved(tiny_ner):
    done = run_python(
        "import sys; sys.modules['mlx'] = None\n"
        "from akidb_mlx.entities import EntityExtractor\n"
        "print(len(EntityExtractor(sys.argv[1]).extract(sys.argv[2])))",
        60,
        str(tiny_ner),
        SENTENCE,
    )
    assert done.stdout == "3\n", done.stderr


@pytest.mark.load
@pytest.mark.usefixtures("english")
def test_memory_stays_flat():
    from benchmarks.entities import memory

    assert all(row.met for row in memory(texts=20_000))


def test_settings_choose_what_no_call_names(tiny_ner, monkeypatch):
    monkeypatch.setenv("AKIDB_NER_MODEL", str(tiny_ner))
    with EntityExtractor() as extractor:
        assert extractor.get_model_info()["model_name"] == str(tiny_ner)
    monkeypatch.setenv("AKIDB_NER_LANGUAGE", "cs")
    with pytest.raises(ConfigurationError, match="is a model for 'en', found language='cs'"):
        EntityExtractor()
    with pytest.raises(ConfigurationError, match="leave out model="):
        EntityExtractor(tiny_ner, language="auto")
