"""Regrowth: what holds for every row of the table, and each against a plain computation."""

from math import cos, pi
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spaces.errors import TrialFailed
from spaces.plan import Plan, Plugin
from tests.probing import Residual, settled
from tests.test_trial import _killed_until_done, measured, run, same_weights
from tests.test_weights import chosen, sparse_plan, weights_probed
from trainables.keys import by_value
from trainables.pruning.probe import Probe
from trainables.pruning.weights import Masks, enforce
from trainables.regrowths import REGROWTHS
from trainables.store import StageStore
from trainables.trial import Trial


def masked(keep: float = 0.4) -> tuple[Probe, Masks]:
    """A network with some of its weights masked, and what looks at it."""
    model = settled(Residual())
    masks = chosen(weights_probed(model), keep)
    enforce(model, masks, torch.optim.SGD(model.parameters(), lr=0.1))
    return weights_probed(model, masks), masks


@pytest.mark.parametrize("name", list(REGROWTHS))
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_each_layer_keeps_its_number_and_the_network_is_left_as_found(name: str, progress: float) -> None:
    probe, masks = masked()
    state = {key: value.clone() for key, value in probe.model.state_dict().items()}
    generator = torch.get_rng_state()
    renewed, again = (REGROWTHS[name](masks, probe, progress) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[key]) for key, value in probe.model.state_dict().items())
    assert set(renewed) == set(masks)
    for key, mask in renewed.items():
        assert (mask.dtype, mask.shape) == (torch.bool, masks[key].shape)
        assert int(mask.sum()) == int(masks[key].sum())
        assert torch.equal(mask, again[key])
    assert probe.charged_macs > 0


@pytest.mark.parametrize("name", list(REGROWTHS))
def test_a_network_without_masks_stays_as_it_is(name: str) -> None:
    probe, masks = masked(keep=1.0)
    assert all(bool(mask.all()) for mask in REGROWTHS[name](masks, probe, 0.3).values())


@pytest.mark.parametrize("progress", [0.0, 0.3])
def test_the_smallest_go_and_the_largest_dense_gradients_come(progress: float) -> None:
    probe, masks = masked()
    renewed = REGROWTHS.bind("gradient", {"fraction": 0.6, "final": 0.1, "batch_size": 5})(masks, probe, progress)
    images, labels = next(probe.sample(0, 100))
    model = probe.model.eval()
    F.cross_entropy(model(images), labels).backward()
    rate = 0.1 + 0.5 * (1 + cos(pi * progress)) / 2
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert weight.grad is not None
        alive = [index for index, own in enumerate(mask.flatten().tolist()) if own]
        sizes, slopes = weight.detach().abs().flatten().tolist(), weight.grad.abs().flatten().tolist()
        count = min(int(rate * len(alive)), len(sizes) - len(alive))
        stays = set(sorted(alive, key=lambda index: sizes[index])[count:])
        others = [index for index in range(len(sizes)) if index not in stays]
        comes = set(sorted(others, key=lambda index: -slopes[index])[:count])
        found = {index for index, own in enumerate(renewed[name].flatten().tolist()) if own}
        assert found == stays | comes, name


def regrowing_plan(**prune: object) -> Plan:
    train = {"epochs": 6, "batch_size": 32, "learning_rate": 0.05, "checkpoint_minutes": 0.0}
    return sparse_plan(
        prune={"criterion": "magnitude", "allocation": "global", "regrowth": "gradient", **prune}, train=train
    )


def test_revived_weights_begin_at_zero_and_are_trained() -> None:
    plan = regrowing_plan(amount={"keep_weights": 0.3})
    trial = Trial(plan)
    trial.step()
    masks = []
    for _ in range(3):
        trial.step()
        masks.append({name: mask.clone() for name, mask in trial._acting.masks.items()})
    revived = {name: masks[-1][name] & ~masks[0][name] for name in masks[0]}
    assert any(bool(own.any()) for own in revived.values())
    last = trial.step()
    for name, own in revived.items():
        weight = trial.model.get_parameter(name)
        assert bool((weight[~masks[-1][name]] == 0).all())
        assert not bool(own.any()) or bool((weight[own] != 0).any())
    assert last["keep_weights"] <= 0.3


def test_a_trial_with_regrowth_resumed_equals_one_run_straight(tmp_path: Path) -> None:
    plan = regrowing_plan()
    straight, heard = run(plan, None)
    assert _killed_until_done(plan, tmp_path, kills=2, longest=0.3) == 2
    resumed = Trial(plan, store=StageStore(tmp_path / "store"))
    assert same_weights(straight, resumed)
    assert measured(resumed.step()) == measured(heard[-1])


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"pattern": "2:4"}, "regrowth does not keep to a pattern"),
        ({"granularity": "channels", "amount": {"keep_macs": 0.5}}, "regrowth needs granularity 'weights'"),
    ],
)
def test_regrowth_where_it_makes_no_sense_is_refused(prune: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regrowing_plan(**prune)


def greedy(masks: Masks, probe: Probe, progress: float, /) -> Masks:
    """Somebody's own regrowth, with a fault: it lets everything come back."""
    return {name: torch.ones_like(mask) for name, mask in masks.items()}


def test_a_regrowth_that_misses_the_amount_fails_by_the_name_of_the_layer() -> None:
    trial = Trial(regrowing_plan(regrowth="tests.test_regrowths:greedy", schedule={"name": "once", "after": -1}))
    with pytest.raises(TrialFailed, match=r"greedy' left \d+ weights alive in conv1\.weight"):
        trial.step()


def test_the_source_of_somebodys_own_plug_in_is_in_the_key_of_what_it_shaped() -> None:
    assert by_value(Plugin(name="tests.test_regrowths:greedy"))[1] is not None
    assert by_value(Plugin(name="gradient"))[1] is None
