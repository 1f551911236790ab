"""When events happen and how far each goes: every row of the table, and the papers' own numbers."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.plan import Plan
from trainables.schedules import SCHEDULES, Moment, moments_of

FIRST_EVENTS = {  # settings that let an event fit into few epochs
    "once": [{}, {"after": -1}, {"after": 2}],
    "every": [{}, {"interval": 1}, {"interval": 3, "until": 7}],
    "geometric": [{}, {"when": "before"}, {"steps": 2, "delay": 1, "interval": 2}],
    "when_finished": [{}, {"start": 2, "until": 5}],
    "when_stable": [{}, {"start": 2, "until": 5}, {"memory": 2, "threshold": 0.5}],
    "cubic": [{}, {"start": 2, "interval": 2, "until": 9}],
}
ROWS = [(name, settings) for name, rows in FIRST_EVENTS.items() for settings in rows]


def test_every_schedule_is_in_these_tests() -> None:
    assert set(FIRST_EVENTS) == set(SCHEDULES)


@pytest.mark.parametrize(("name", "settings"), ROWS)
@given(epochs=st.integers(1, 60), sparsity=st.floats(0.001, 0.999))
def test_sparsity_rises_strictly_to_the_target_and_an_epoch_follows_every_event(
    name: str, settings: dict[str, object], epochs: int, sparsity: float
) -> None:
    moments = SCHEDULES.bind(name, settings)(epochs, sparsity)
    levels = [moment.sparsity for moment in moments]
    at = [moment.epoch for moment in moments]
    assert all(before < after for before, after in zip([0.0, *levels], levels, strict=False))
    assert at == sorted(at)
    assert all(-1 <= epoch <= epochs - 2 for epoch in at)
    assert not levels or levels[-1] == sparsity


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_defaults_have_an_event_in_any_training_of_eight_epochs(name: str) -> None:
    assert SCHEDULES[name](8, 0.5)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_nothing_to_remove_is_no_event(name: str) -> None:
    assert SCHEDULES[name](30, 0.0) == ()


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_every_setting_has_a_default(name: str) -> None:
    parameters = inspect.signature(SCHEDULES[name]).parameters.values()
    assert all(p.default is not p.empty for p in parameters if p.kind is p.KEYWORD_ONLY)


def test_the_events_of_frs_on_resnet110_fall_where_the_authors_put_them() -> None:
    moments = SCHEDULES.bind("every", {"interval": 21, "until": 150})(200, 0.5)
    assert [moment.epoch for moment in moments] == [20, 41, 62, 83, 104, 125, 146]
    assert 120 * len(moments) == 840


def test_the_steps_of_snip_it_are_the_authors() -> None:
    moments = SCHEDULES.bind("geometric", {"when": "before"})(80, 0.98)
    assert [round(moment.sparsity, 3) for moment in moments] == [0.5, 0.74, 0.86, 0.92, 0.95, 0.965, 0.98]
    assert {moment.epoch for moment in moments} == {-1}


def test_snip_it_during_training_prunes_at_epochs_8_to_32() -> None:
    moments = SCHEDULES.bind("geometric", {"when": "during", "delay": 4, "interval": 4})(80, 0.98)
    assert [moment.epoch for moment in moments] == [8, 12, 16, 20, 24, 28, 32]


def test_geometric_does_not_overshoot_a_low_target_in_its_first_step() -> None:
    assert SCHEDULES["geometric"](30, 0.3)[0].sparsity == 0.15
    assert SCHEDULES["geometric"](30, 0.5)[0].sparsity == 0.25


def test_events_that_do_not_fit_are_made_up_for_by_the_last_that_does() -> None:
    moments = SCHEDULES.bind("geometric", {"delay": 0, "interval": 4})(10, 0.9)
    assert moments == (Moment(4, 0.5), Moment(8, 0.9))


def test_cubic_goes_by_the_formula() -> None:
    moments = SCHEDULES.bind("cubic", {"start": 0, "interval": 1, "until": 4})(20, 0.8)
    assert [moment.sparsity for moment in moments] == [0.8 * (1 - (1 - t / 4) ** 3) for t in (1, 2, 3, 4)]
    assert [moment.epoch for moment in moments] == [0, 1, 2, 3]


def plan(amount: dict[str, float]) -> Plan:
    return Plan.model_validate(
        {
            "data": "digits",
            "model": "resnet8",
            "train": {"epochs": 40},
            "prune": {"schedule": {"name": "every", "interval": 10}, "amount": amount},
        }
    )


def test_a_plan_ends_at_what_it_is_to_keep() -> None:
    assert moments_of(plan({"keep_macs": 0.25}))[-1].sparsity == 0.75
    assert moments_of(plan({"keep_channels": 0.5}))[-1].sparsity == 0.5
    assert [moment.epoch for moment in moments_of(plan({"filters_per_event": 7}))] == [9, 19, 29]


def test_a_dense_plan_has_no_event() -> None:
    assert moments_of(plan({"keep_macs": 0.25}).dense()) == ()
