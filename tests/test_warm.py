"""A warm start: what another search found teaches the sampler, and nothing else."""

from pathlib import Path

import pytest

from search.driver import Driver
from search.warm import fitted, warmth_from
from spaces.errors import UserError
from tests.standin import StandInOutlook, search, stand_in_study
from tests.test_search_ray import undisturbed
from tracking.log import EventLog, read_events
from tracking.standing import Standing

OTHER = "name=other"


def test_trials_of_a_log_and_of_an_experiment_are_the_same_warm_start(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = stand_in_study(tmp_path)
    search(first, uri=uri)
    of_log = warmth_from(str(tmp_path / "standin"), first, uri=uri)
    of_experiment = warmth_from("standin", first, uri=uri)
    assert of_log.seen == 11, "the baseline made no choice"
    assert [one.choices for one in of_log.trials] == [one.choices for one in of_experiment.trials]
    for one, other in zip(of_log.trials, of_experiment.trials, strict=True):
        assert one.metrics == pytest.approx(other.metrics)


def test_a_warm_start_changes_what_is_proposed_and_is_repeated_by_a_resumed_search(tmp_path: Path) -> None:
    undisturbed(stand_in_study(tmp_path), tmp_path / "standin")
    study = stand_in_study(tmp_path, OTHER)
    warmth = warmth_from(str(tmp_path / "standin"), study, uri="")

    def first_plan(home: Path, **options: object) -> str | None:
        with EventLog.open(home) as log:
            driver = Driver(study, log, outlook=StandInOutlook(), trials=12)
            driver.open(**options)  # type: ignore[arg-type]
            while not any(event.trial == 1 for event in log.events()):
                driver.next_trial(2)
            return next(event.plan_hash for event in log.events() if event.trial == 1)

    cold, warm = first_plan(tmp_path / "cold"), first_plan(tmp_path / "warm", warmth=warmth)
    assert cold != warm
    events = read_events(tmp_path / "warm")
    assert sum(event.kind == "warmed" for event in events) == 1
    with EventLog.open(tmp_path / "warm") as log:
        driver = Driver(study, log, outlook=StandInOutlook(), trials=12)
        driver.open(warmth=warmth)
        assert sum(event.kind == "warmed" for event in log.events()) == 1, "once is enough"
    standing = Standing()
    for event in events:
        standing.hear(event)
    assert not standing.points, "they are no trials of this search"


def test_a_trial_of_another_space_fits_where_every_choice_its_plan_takes_up_is_possible_here(tmp_path: Path) -> None:
    study = stand_in_study(tmp_path, "prune.criterion={choices: [l1, taylor]}")
    choices = {**study.defaults(), "prune.criterion": "l1", "recover": "continue", "gone": 3}
    del choices["recover[cosine].peak"]
    assert fitted(choices, study) == {**study.defaults(), "prune.criterion": "l1", "recover": "continue"}
    assert fitted({**choices, "recover": "cosine"}, study) is None, "its peak is not told"
    assert fitted({**choices, "prune.criterion": "l2"}, study) is None, "it is no choice here"


def test_a_warm_start_from_nothing_that_fits_is_refused(tmp_path: Path) -> None:
    undisturbed(stand_in_study(tmp_path), tmp_path / "standin")
    study = stand_in_study(tmp_path, OTHER, "prune.criterion={choices: [taylor, snap]}")
    with pytest.raises(UserError, match=r"none of the 11 finished trials of .* fits study 'other'"):
        warmth_from(str(tmp_path / "standin"), study, uri="")
