"""What is stored, what is coming, and what the rest of a plan's way costs."""

from search.stages import Path, Stages, Step, lowest, shared


def way(*keys: str, macs: int = 10) -> Path:
    """Epoch after epoch; a key in capitals is an event at the epoch before it."""
    steps, epochs, events = [], 0, 0
    for key in keys:
        if key.isupper():
            events += 1
        else:
            epochs += 1
        steps.append(Step(key, epochs, events, 0 if key.isupper() else macs))
    return tuple(steps)


TRUNK = way("a", "b", "c", "d")
PRUNED = way("a", "b", "X", "y", "z")
OTHER = way("a", "b", "X", "y'", "z'")


def test_what_two_ways_share_is_where_their_keys_agree() -> None:
    assert (shared(TRUNK, PRUNED), shared(PRUNED, OTHER), shared(TRUNK, TRUNK), shared(TRUNK, way("q"))) == (2, 3, 4, 0)


def test_the_least_that_several_ways_take_counts_every_boundary_once() -> None:
    assert lowest([TRUNK, PRUNED, OTHER, PRUNED]) == 10 * len({"a", "b", "c", "d", "y", "z", "y'", "z'"})


def test_only_what_a_trial_saves_can_be_started_from() -> None:
    stages = Stages()
    stages.begin(0, TRUNK, {2})
    stages.reach(0, 1)
    assert stages.start(PRUNED) == 0, "nothing is saved after one epoch"
    stages.reach(0, 3)
    assert stages.start(PRUNED) == 2
    stages.begin(1, PRUNED, ())
    stages.reach(1, 2)
    assert stages.start(OTHER) == 3, "every event is saved"
    stages.reach(0, 4)
    assert stages.start(TRUNK) == 4, "and so is every end"


def test_what_a_trial_will_save_counts_as_there_for_the_cost_but_is_worth_waiting_for() -> None:
    stages = Stages()
    assert stages.remaining(OTHER) == 40
    assert stages.awaited(OTHER) is None
    stages.begin(1, PRUNED, ())
    assert stages.remaining(OTHER) == 20
    assert stages.awaited(OTHER) == (1, 20, 20)
    stages.reach(1, 1)
    assert stages.awaited(OTHER) == (1, 10, 20)
    stages.end(1)
    assert stages.awaited(OTHER) is None, "a trial that died saves nothing more"
    assert stages.remaining(OTHER) == 40


def test_nobody_waits_for_a_trial_that_is_behind() -> None:
    stages = Stages()
    stages.begin(0, TRUNK, {1})
    stages.reach(0, 1)
    stages.end(0)
    stages.begin(1, PRUNED, ())
    assert stages.awaited(OTHER) == (1, 10, 10), "both set out from the same boundary"
    stages.begin(2, way("a", "b", "X"), ())
    stages.reach(2, 2)
    assert stages.awaited(OTHER) is None
    assert stages.start(OTHER) == 3
