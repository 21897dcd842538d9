"""Check the eviction planner over random caches: the models that it may and may not delete."""

from hypothesis import given
from hypothesis import strategies as st

from model_cache.eviction import Candidate, plan_eviction

SIZES = st.integers(0, 1000)


@st.composite
def caches(draw):
    ages = draw(st.lists(st.floats(0, 1e9), max_size=12))
    flags = st.booleans()
    return [Candidate(f"m{i}", draw(SIZES), age, draw(flags), draw(flags)) for i, age in enumerate(ages)]


@given(caches(), st.integers(0, 5000), SIZES)
def test_what_a_plan_keeps_fits_or_must_stay(models, max_bytes, incoming):
    plan = plan_eviction(models, max_bytes, incoming)
    gone = {removal.name for removal in plan.removals}
    kept = [model for model in models if model.name not in gone]
    held = sum(model.size for model in kept) + incoming
    assert held <= max_bytes + plan.short
    assert plan.freed == sum(removal.size for removal in plan.removals)
    if plan.short:
        assert held == max_bytes + plan.short
        assert all(model.pinned or model.in_use for model in kept)


@given(caches(), st.integers(0, 5000), SIZES)
def test_nothing_pinned_or_in_use_goes(models, max_bytes, incoming):
    gone = {removal.name for removal in plan_eviction(models, max_bytes, incoming).removals}
    assert not any(model.name in gone for model in models if model.pinned or model.in_use)


@given(caches(), st.integers(0, 5000), SIZES)
def test_the_least_recently_used_go_first_and_no_more_than_needed(models, max_bytes, incoming):
    plan = plan_eviction(models, max_bytes, incoming)
    gone = [removal.name for removal in plan.removals]
    free = sorted((m for m in models if not (m.pinned or m.in_use)), key=lambda m: (m.last_used, m.name))
    assert gone == [model.name for model in free[: len(gone)]]
    if plan.removals:
        assert sum(model.size for model in models) + incoming - plan.freed + plan.removals[-1].size > max_bytes


@given(caches(), SIZES)
def test_without_a_bound_nothing_goes(models, incoming):
    assert plan_eviction(models, None, incoming).removals == ()


def test_a_plan_says_why():
    plan = plan_eviction([Candidate("old", 60, 1.0), Candidate("new", 60, 2.0)], 100)
    assert [(removal.name, removal.reason) for removal in plan.removals] == [
        ("old", "least recently used, 20 bytes over the limit")
    ]
