"""Pruning single weights: criteria, allocations, selection, patterns, and masks that hold through training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.errors import TrialFailed
from spaces.plan import Plan
from tests.probing import Residual, chain, probed, settled
from tests.test_trial import a_plan, measured, run, same_weights
from trainables.allocations import ALLOCATIONS
from trainables.costing import Costing
from trainables.criteria import CRITERIA
from trainables.pruning.groups import Groups, Scores
from trainables.pruning.probe import Probe
from trainables.pruning.selection import Order
from trainables.pruning.weights import Masks, Pattern, enforce, fewest_left, select_weights, weight_groups
from trainables.store import StageStore
from trainables.trial import Trial

OF_WEIGHTS = [name for name in CRITERIA if getattr(CRITERIA[name], "weights", False)]
ALLOCATING_WEIGHTS = [name for name in ALLOCATIONS if getattr(ALLOCATIONS[name], "weights", False)]
NEEDED: dict[str, dict[str, Any]] = {"given": {"keeps": (0.5, 1.0, 0.25)}}


def weights_probed(model: nn.Module, masks: Masks | None = None) -> Probe:
    _, probe = probed(model)
    probe.groups = weight_groups(model, masks or {})
    return probe


def chosen(
    probe: Probe, keep: float, *, allocation: str = "global", scores: Scores | None = None, pattern: str | None = None
) -> Masks:
    """The masks that leave `keep` of all weights, by magnitude where no scores are given."""
    bound = ALLOCATIONS.bind(allocation, NEEDED.get(allocation, {}))
    total = sum(group.dense_channels for group in probe.groups.values())

    def allocate(scores: Scores, groups: Groups) -> Order:
        return bound(scores, groups, probe)

    return select_weights(
        probe.model,
        probe.groups,
        CRITERIA["magnitude"](probe.groups, probe) if scores is None else scores,
        allocate,
        most=int(keep * total),
        pattern=None if pattern is None else Pattern.read(pattern),
    )


def alive(masks: Mapping[str, Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def total(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.dim() > 1)


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_weights_get_one_finite_score_each_and_the_same_again(name: str) -> None:
    model = settled(Residual())
    masks = chosen(weights_probed(model), 0.6)
    first, again = (
        CRITERIA[name](probe.groups, probe) for probe in (weights_probed(model, masks), weights_probed(model, masks))
    )
    assert set(first) == set(masks)
    for group, scores in first.items():
        assert tuple(scores.shape) == (int(masks[group].sum()),)
        assert bool(scores.isfinite().all())
        assert torch.equal(scores, again[group])


def test_magnitude_is_the_size_of_each_weight_still_alive() -> None:
    model = settled(Residual())
    masks = chosen(weights_probed(model), 0.5)
    probe = weights_probed(model, masks)
    for name, scores in CRITERIA["magnitude"](probe.groups, probe).items():
        assert torch.equal(scores, model.get_parameter(name).detach().abs()[masks[name]])


@pytest.mark.parametrize("loss", ["cross_entropy", "raw_logits"])
def test_snip_is_the_weight_times_its_gradient(loss: str) -> None:
    model = settled(Residual()).eval()
    probe = weights_probed(model)
    scores = CRITERIA.bind("snip", {"loss": loss, "batch_size": 5})(probe.groups, probe)
    images, labels = next(probe.sample(0, 100))
    logits = model(images)
    value = F.cross_entropy(logits, labels) if loss == "cross_entropy" else F.nll_loss(logits, labels)
    value.backward()
    for name, own in scores.items():
        weight = model.get_parameter(name)
        assert weight.grad is not None
        assert torch.allclose(own, (weight * weight.grad).abs().flatten().double(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("allocation", ALLOCATING_WEIGHTS)
@pytest.mark.parametrize("keep", [0.9, 0.5, 0.05])
def test_as_many_weights_stay_as_asked_for_and_no_layer_empties(allocation: str, keep: float) -> None:
    probe = weights_probed(settled(Residual()))
    masks = chosen(probe, keep, allocation=allocation)
    assert alive(masks) == int(keep * total(probe.model))
    assert all(bool(mask.any()) for mask in masks.values())


def test_an_amount_below_one_weight_per_layer_leaves_one_per_layer() -> None:
    probe = weights_probed(settled(Residual()))
    assert {int(mask.sum()) for mask in chosen(probe, 0.0).values()} == {1}


def test_a_global_threshold_keeps_the_largest_weights_of_the_network() -> None:
    model = settled(Residual())
    masks = chosen(weights_probed(model), 0.3)
    kept = torch.cat([model.get_parameter(name).detach()[mask].abs() for name, mask in masks.items()])
    gone = torch.cat([model.get_parameter(name).detach()[~mask].abs() for name, mask in masks.items()])
    assert float(kept.min()) >= float(gone.max())


def test_uniform_keeps_the_same_fraction_of_every_layer() -> None:
    probe = weights_probed(settled(Residual()))
    for name, mask in chosen(probe, 0.4, allocation="uniform").items():
        assert abs(int(mask.sum()) - 0.4 * probe.groups[name].dense_channels) <= 1.0


def erk_densities(shapes: dict[str, torch.Size], keep: float) -> dict[str, float]:
    """The recipe as published: raise dense layers one by one until no density is above one."""
    dense: set[str] = set()
    while True:
        left = keep * sum(s.numel() for s in shapes.values()) - sum(shapes[name].numel() for name in dense)
        raw = {name: sum(s) / s.numel() for name, s in shapes.items() if name not in dense}
        factor = left / sum(raw[name] * shapes[name].numel() for name in raw)
        above = {name for name in raw if factor * raw[name] > 1.0}
        if not above:
            return dict.fromkeys(dense, 1.0) | {name: factor * own for name, own in raw.items()}
        dense.add(max(above, key=lambda name: raw[name]))


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.6])
def test_erk_gives_the_published_densities_and_they_sum_to_the_target(keep: float) -> None:
    model = settled(chain([16, 32, 8]))
    masks = chosen(weights_probed(model), keep, allocation="erk")
    shapes = {name: mask.shape for name, mask in masks.items()}
    for name, density in erk_densities(shapes, keep).items():
        assert abs(int(masks[name].sum()) - density * shapes[name].numel()) <= 1.5, name
    assert alive(masks) == int(keep * total(model))


def test_what_is_gone_stays_gone_and_does_not_count_again() -> None:
    model = settled(Residual())
    first = chosen(weights_probed(model), 0.6, allocation="uniform")
    second = chosen(weights_probed(model, first), 0.3, allocation="global")
    assert all(not bool((second[name] & ~first[name]).any()) for name in first)
    assert alive(second) == int(0.3 * total(model))


@pytest.mark.parametrize(("pattern", "keep"), [("2:4", 0.5), ("1:4", 0.25), ("2:4", 0.75), ("1:2", 0.8)])
def test_a_pattern_keeps_the_largest_n_of_each_m_inputs(pattern: str, keep: float) -> None:
    model = settled(nn.Sequential(nn.Conv2d(8, 12, 3), nn.Flatten(), nn.Linear(12 * 4 * 4, 4, bias=False)))
    probe = Probe(model, weight_groups(model, {}), F.cross_entropy, 4, lambda a, b: iter(()), torch.Generator(), 1)
    masks = chosen(probe, keep, pattern=pattern)
    stay, of = map(int, pattern.split(":"))
    assert keep * total(model) - of <= alive(masks) <= keep * total(model)
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        blocks = mask.movedim(1, -1).reshape(-1, of)
        sizes = weight.detach().abs().movedim(1, -1).reshape(-1, of)
        assert set(blocks.sum(1).tolist()) <= {stay, of}
        for block, size in zip(blocks, sizes, strict=True):
            assert bool(block.all()) or float(size[block].min()) >= float(size[~block].max())


def test_layers_whose_inputs_do_not_come_in_blocks_stay_whole() -> None:
    model = settled(nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 3)))
    probe = Probe(model, weight_groups(model, {}), F.cross_entropy, 3, lambda a, b: iter(()), torch.Generator(), 1)
    masks = chosen(probe, 0.0, pattern="2:4")
    assert bool(masks["1.weight"].all())
    assert alive(masks) == 20 + 15 == fewest_left(model, probe.groups, Pattern(2, 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1e-2),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
        lambda p: torch.optim.Adagrad(p, lr=0.01),
    ],
)
def test_masked_weights_are_zero_after_every_step_and_so_are_their_moments(make: Any) -> None:
    model = settled(Residual()).train()
    optimizer = make(model.parameters())
    images, labels = torch.randn(8, 2, 6, 6), torch.arange(8) % 3

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    step()
    masks = chosen(weights_probed(model), 0.4)
    enforce(model, masks, optimizer)
    for _ in range(3):
        before = {name: model.get_parameter(name).detach().clone() for name in masks}
        step()
        enforce(model, masks, optimizer)
        for name, mask in masks.items():
            weight = model.get_parameter(name)
            assert bool((weight[~mask] == 0).all())
            assert bool((weight[mask] != before[name][mask]).any())
            for value in optimizer.state[weight].values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    assert bool((value[~mask] == 0).all())


def sparse_plan(**changes: Any) -> Plan:
    prune = {
        "granularity": "weights",
        "criterion": "snip",
        "allocation": "erk",
        "schedule": {"name": "every", "interval": 2, "until": 4},
        "amount": {"keep_weights": 0.1},
    }
    return a_plan(prune={**prune, **changes.pop("prune", {})}, **changes)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_trial_of_masks_reports_them_as_such_and_no_speed_up(optimizer: str) -> None:
    train = {
        "epochs": 6,
        "batch_size": 32,
        "learning_rate": 0.05 if optimizer == "sgd" else 0.01,
        "optimizer": optimizer,
        "clip_norm": 1.0,
    }
    trial, heard = run(sparse_plan(train=train, prune={"amount": {"keep_weights": 0.4}}), None)
    last = heard[-1]
    weights = total(trial.model)
    assert heard[0]["keep_weights"] == 1.0
    assert last["keep_weights"] == int(0.4 * weights) / weights
    assert last["keep_macs"] == last["keep_params"] == 1.0
    zeros = sum(int((p == 0).sum()) for p in trial.model.parameters() if p.dim() > 1)
    assert zeros == last["params"] - last["nonzero_params"]
    assert last["events"] == 2
    assert last["accuracy"] > 0.3


@pytest.mark.parametrize("prune", [{}, {"pattern": "2:4", "amount": {"keep_weights": 0.55}}])
def test_a_masked_trial_resumed_from_any_boundary_equals_one_run_straight(tmp_path: Path, prune: Any) -> None:
    train = {"epochs": 6, "batch_size": 32, "learning_rate": 0.05, "checkpoint_minutes": 0.0}
    plan = sparse_plan(prune=prune, train=train)
    straight, heard = run(plan, None)
    interrupted = Trial(plan, store=StageStore(tmp_path))
    for _ in range(5):
        interrupted.step()
    resumed, again = run(plan, tmp_path)
    assert resumed.inherited_epochs == 5
    assert same_weights(straight, resumed)
    assert measured(again[-1]) == measured(heard[-1])


def test_a_checkpoint_whose_masks_are_damaged_is_computed_again(tmp_path: Path) -> None:
    straight, heard = run(sparse_plan(), tmp_path)
    for path in tmp_path.rglob("acting.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    again, reported = run(sparse_plan(), tmp_path)
    assert same_weights(straight, again)
    assert measured(reported[-1]) == measured(heard[-1])


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"criterion": "frs"}, "criterion 'frs' is for channels; for granularity 'weights': magnitude, random, snip"),
        ({"allocation": "fur"}, "allocation 'fur' is for channels"),
        ({"amount": {"keep_macs": 0.5}}, "needs its amount as keep_weights"),
        ({"granularity": "channels"}, "granularity 'channels' needs its amount as keep_macs"),
        ({"width_multiple": 8}, "width_multiple needs granularity 'channels'"),
        ({"pattern": "4:4"}, "pattern '4:4' keeps every weight"),
        ({"pattern": "some"}, "pattern"),
    ],
)
def test_what_fits_only_channels_is_refused_for_weights(prune: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparse_plan(prune=prune)


def test_amounts_out_of_reach_are_known_before_training() -> None:
    costing = Costing()
    assert costing.problem(sparse_plan()) is None
    assert costing.problem(sparse_plan(prune={"pattern": "2:4", "amount": {"keep_weights": 0.6}})) is None
    assert "out of reach" in str(costing.problem(sparse_plan(prune={"pattern": "2:4"})))
    whole = sum(step.macs for step in costing.path(sparse_plan()))
    assert whole == sum(step.macs for step in costing.path(sparse_plan().dense()))


def not_a_number(groups: Groups, probe: Probe, /) -> Scores:
    """Somebody's own criterion, with a fault."""
    return {name: torch.full((group.channels,), torch.nan) for name, group in groups.items()}


def test_a_criterion_of_weights_that_answers_nonsense_fails_by_the_name_of_the_layer() -> None:
    own = {"criterion": "tests.test_weights:not_a_number", "schedule": {"name": "once", "after": -1}}
    trial = Trial(sparse_plan(prune=own))
    with pytest.raises(TrialFailed, match=r"not finite for conv1\.weight"):
        trial.step()
    assert all(bool((p != 0).any()) for p in trial.model.parameters() if p.dim() > 1)
