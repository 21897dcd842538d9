"""The fuzzing of model directories, without its reference: `make fuzz-reference` runs it with that."""

from functools import cache
from random import Random

import numpy as np
import pytest

from akidb_mlx import EmbeddingService
from akidb_mlx.errors import AkidbMlxError
from benchmarks.contestants import OURS, REFERENCE
from benchmarks.environments import find_python
from benchmarks.processes import WorkerError
from tests.fuzz import session
from tests.fuzz.architectures import NAMES
from tests.fuzz.cases import TEXTS, Case, draw_case
from tests.fuzz.changes import MODULE_LISTS, WEIGHT_FILES
from tests.fuzz.comparison import (
    DIFFERENT,
    EQUAL,
    FAILED,
    FAULTS,
    ORDINARY_REFUSED,
    REFERENCE_REFUSED,
    REFUSED,
    TEXTS_REFUSED,
    compare,
)
from tests.fuzz.edits import Edit, draw
from tests.fuzz.session import ProcessSide, Session

SEED = 21


@cache
def cases():
    return [draw_case(SEED, number) for number in range(80)]


def embed(directory):
    with EmbeddingService(str(directory), device="cpu") as service:
        return service.embed_array([text for text in TEXTS if text.strip()])


@pytest.mark.parametrize("number", range(12))
def test_an_ordinary_directory_loads(number, tmp_path):
    case = [case for case in cases() if case.ordinary][number]
    case.contents().write(tmp_path / "model")
    vectors = embed(tmp_path / "model")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_any_directory_loads_or_is_refused(tmp_path):
    loaded = 0
    others = [case for case in cases() if not case.ordinary]
    for number, case in enumerate(others[:30]):
        directory = tmp_path / str(number)
        case.contents().write(directory)
        try:
            vectors = embed(directory)
        except AkidbMlxError as error:
            assert str(error)
        else:
            assert np.isfinite(vectors).all()
            loaded += 1
    assert 4 < loaded < 28


def test_a_seed_always_gives_the_same_directories(tmp_path):
    for number in range(5):
        first, second = tmp_path / f"{number} first", tmp_path / f"{number} second"
        draw_case(SEED, number).contents().write(first)
        Case.from_json(cases()[number].to_json()).contents().write(second)
        files = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
        assert files
        assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_every_architecture_and_layout_is_drawn():
    assert {case.model.architecture for case in cases()} == set(NAMES)
    assert {case.community for case in cases()} == {False, True}
    assert 0.2 < np.mean([case.ordinary for case in cases()]) < 0.5


def test_every_change_is_drawn():
    rng, case = Random(SEED), cases()[0]
    contents = case.contents()
    drawn = [draw(rng, case.model, contents, ordinary) for ordinary in (False, True) for _ in range(2000)]
    changes = {(edit.kind, edit.value) for edit in drawn if edit.kind in ("modules", "weights")}
    assert changes == {("modules", name) for name in MODULE_LISTS} | {("weights", name) for name in WEIGHT_FILES}


def answer(*vectors):
    return {"vectors": {"None": list(vectors)}}


NOTHING = {"refused": "InvalidInputError: no token"}


@pytest.mark.parametrize(
    ("ours", "reference", "ordinary", "kind"),
    [
        (answer([0.6, 0.8]), answer([0.6, 0.80005]), True, EQUAL),
        (answer([0.6, 0.8]), answer([0.6, 0.8002]), True, DIFFERENT),
        (answer([0.6, 0.8]), answer([0.8, 0.6]), False, DIFFERENT),
        (answer([0.6, 0.8]), answer([0.6, 0.8, 0.0]), False, DIFFERENT),
        (answer([float("nan"), 0.8]), answer([0.6, 0.8]), False, DIFFERENT),
        (answer(NOTHING, [0.6, 0.8]), answer([0.6, 0.8], [0.8, 0.6]), False, DIFFERENT),
        (answer(NOTHING, [0.6, 0.8]), answer([0.6, 0.8], [0.6, 0.8]), False, TEXTS_REFUSED),
        (answer(NOTHING), answer([0.6, 0.8]), True, ORDINARY_REFUSED),
        (answer(NOTHING), answer(NOTHING), True, EQUAL),
        (answer([0.6, 0.8]), answer(NOTHING), True, REFERENCE_REFUSED),
        (answer([0.6, 0.8]), {"refused": "ValueError: …"}, False, REFERENCE_REFUSED),
        (answer([0.6, 0.8]), {"refused": "ValueError: …"}, True, FAILED),
    ],
)
def test_verdicts(ours, reference, ordinary, kind):
    assert compare(ours, reference, ordinary).kind == kind


class StandIn:
    """Answers by a function of the directory."""

    def __init__(self, embed):
        self.embed = embed

    def close(self):
        pass


def edit(key, value, ordinary=False):
    return Edit("set", "config.json", key, value, ordinary)


def test_the_edits_at_fault_are_found():
    def ours(directory):
        text = (directory / "config.json").read_text()
        return answer([0.0, 1.0]) if '"is_causal": true' in text and '"b": 1' in text else answer([1.0, 0.0])

    edits = (edit("a", 1), edit("is_causal", True), edit("c", 1), edit("b", 1))
    case = Case(cases()[0].model, 1, False, edits)
    with Session(StandIn(ours), StandIn(lambda _: answer([1.0, 0.0]))) as judge:
        assert judge.judge(case).kind == DIFFERENT
        assert judge.smallest(case, DIFFERENT).edits == (edits[1], edits[3])


def test_refusals_and_crashes():
    def crash(_):
        raise WorkerError("Segmentation fault")

    def refuse(_):
        return {"refused": "ModelLoadError: …"}

    ordinary, other = (Case(cases()[0].model, 1, False, (edit("a", 1, kind),)) for kind in (True, False))
    vectors = StandIn(lambda _: answer([1.0, 0.0]))
    for ours, reference, case, kind in [
        (StandIn(refuse), vectors, ordinary, ORDINARY_REFUSED),
        (StandIn(refuse), vectors, other, REFUSED),
        (StandIn(crash), vectors, other, FAILED),
        (vectors, StandIn(crash), other, REFERENCE_REFUSED),
    ]:
        with Session(ours, reference) as judge:
            assert judge.judge(case).kind == kind


def test_a_process_that_hangs_is_ended_and_replaced(monkeypatch, tmp_path):
    case = next(case for case in cases() if case.ordinary)
    case.contents().write(tmp_path / "model")
    side = ProcessSide(OURS)
    with monkeypatch.context() as patch:
        patch.setattr(session, "_TIMEOUT_S", 0.001)
        with pytest.raises(WorkerError):
            side.embed(tmp_path / "model")
    vectors = side.embed(tmp_path / "model")["vectors"]
    assert [len(texts) for texts in vectors.values()] == [len(texts) for _, texts in session.CALLS]
    side.close()


@pytest.mark.slow
@pytest.mark.skipif(find_python(REFERENCE) is None, reason="sentence-transformers is not installed: make bench-peers")
def test_some_directories_against_the_reference():
    with Session() as judge:
        verdicts = [judge.judge(case) for case in cases()[:50]]
    assert not [verdict for verdict in verdicts if verdict.kind in FAULTS]
    assert sum(verdict.kind == EQUAL for verdict in verdicts) > 15
