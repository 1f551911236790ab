"""Where a search stands follows from its events alone."""

import math

from tests.tracked import EPOCHS, metrics, opened, plan, plan_hash, search, trial
from tracking.events import Event
from tracking.names import flat_params, trial_name
from tracking.standing import Standing


def heard(events: list[Event]) -> Standing:
    standing = Standing()
    for event in events:
        standing.hear(event)
    return standing


def test_the_front_and_its_hypervolume_grow_with_the_trials() -> None:
    standing = Standing()
    volumes = []
    for event in search(8):
        changed = standing.hear(event)
        assert not changed or event.kind == "finished"
        if event.kind == "finished":
            volumes.append(standing.hypervolume)
    assert volumes[0] == 0.0
    assert volumes == sorted(volumes)
    assert volumes[-1] > 0
    assert [point.trial for point in standing.front] == [7, 5, 3, 1, 0]
    assert standing.counts == {"finished": 8, "stopped": 0, "failed": 0}


def test_only_full_length_results_enter_the_front() -> None:
    assert heard([opened(), *trial(1, ends="failed")]).front == []
    assert heard([opened(), *trial(1, ends="stopped")]).points == {}


def test_hearing_everything_twice_changes_nothing() -> None:
    events = search(5)
    once, twice = heard(events), heard([*events, *events])
    assert twice.front == once.front
    assert twice.counts == once.counts
    assert twice.hypervolume == once.hypervolume


def test_without_a_baseline_there_is_no_hypervolume() -> None:
    assert heard([opened(), *trial(1)]).hypervolume is None


def test_a_trial_that_failed_and_was_tried_again_counts_as_finished() -> None:
    standing = heard([opened(), *trial(1, ends="failed")])
    assert standing.reasons == {"the loss is not a number": 1}
    for event in trial(1):
        standing.hear(event)
    assert standing.counts == {"finished": 1, "stopped": 0, "failed": 0}
    assert not standing.reasons


def test_a_result_that_is_not_a_number_is_no_point() -> None:
    body = {"epoch": EPOCHS, **metrics(1, EPOCHS), "accuracy": math.nan}
    standing = heard([opened(), Event("finished", 1, plan_hash(1), body)])
    assert standing.points == {}
    assert standing.counts["finished"] == 1


def test_a_run_is_called_by_what_it_does() -> None:
    assert trial_name(0, plan(0)) == "#000 dense"
    assert trial_name(7, plan(7)) == "#007 frs·every·given keep 0.11"
    own = {"prune": {"criterion": {"name": "mine.scores:norm"}, "amount": {"filters_per_event": 12}}}
    assert trial_name(3, own) == "#003 norm 12 filters per event"
    masked = {"prune": {"criterion": {"name": "snip"}, "amount": {"keep_weights": 0.05}}}
    assert trial_name(4, masked) == "#004 snip keep 0.05 of weights"


def test_parameters_are_flat_and_readable() -> None:
    params = flat_params(plan(1))
    assert params["prune.criterion"] == "frs"
    assert params["prune.criterion.mode"] == "stable"
    assert params["prune.allocation.keeps.1"] == "0.251"
    assert params["prune.amount.keep_macs"] == "0.45"
    assert params["data.augment"] == "flip"
    assert "model.weights" not in params
    assert flat_params(plan(0))["prune"] == "none"


def test_every_parameter_has_a_name_and_a_value_that_mlflow_takes() -> None:
    own = {"model": {"name": "mine:net", "keeps": {"layer1/conv [a]": 0.5}, "note": "x" * 9000}, "prune": None}
    params = flat_params(own)
    assert params["model.keeps.layer1_conv _a_"] == "0.5"
    assert len(params["model.note"]) == 6000
