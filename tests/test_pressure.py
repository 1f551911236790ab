"""Regularizers and gates: what holds for every row of their tables, and each against a plain computation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from search.stages import shared
from spaces.plan import Prune
from tests.probing import Residual, chain, probed, settled
from tests.test_trial import _killed_until_done, a_plan, measured, run, same_weights
from trainables.checkpoint import ACTING, STATE, acting_tensors, read
from trainables.foresight import foreseen
from trainables.gates import GATES
from trainables.pruning.gates import gated
from trainables.pruning.goal import Left, keep_after, left_of
from trainables.pruning.groups import Groups
from trainables.pruning.masking import answers
from trainables.pruning.pressure import Kept, View, cut_state
from trainables.pruning.removal import remove
from trainables.pruning.size import measure_dense
from trainables.regularizers import REGULARIZERS
from trainables.schedules import Moment, Standing
from trainables.schedules.waiting import when_finished
from trainables.store import StageStore
from trainables.trial import Trial

NETWORKS: dict[str, Callable[[], nn.Module]] = {"residual": Residual, "chain": lambda: chain([5, 7, 4])}
SOON: dict[str, dict[str, Any]] = {"greg": {"increase": 0.5, "interval": 2, "hold": 2}}
"""Settings with which a row's work is done within a few steps."""


def viewed(model: nn.Module) -> View:
    traced, _ = probed(model)
    groups = traced.graph.groups

    def ahead() -> Kept:
        return {name: torch.arange(group.channels // 2, group.channels) for name, group in groups.items()}

    return View(model, groups, left=share_of(groups), keep=0.5, ahead=ahead)


def share_of(groups: Groups) -> Left:
    """The fraction of all channels."""
    return lambda widths: sum(widths.values(), torch.zeros(())) / sum(group.channels for group in groups.values())


def with_gradients(model: nn.Module) -> nn.Module:
    images, labels = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    return model


# ---- regularizers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(REGULARIZERS))
@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_regularizer_acts_on_gradients_alone_and_in_the_same_way_again(name: str, network: str) -> None:
    found = []
    for _ in range(2):
        model = with_gradients(settled(NETWORKS[network]()))
        plain = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        view, regularizer = viewed(model), REGULARIZERS.bind(name, SOON.get(name, {}))()
        state = regularizer.init(view)
        for _ in range(3):
            regularizer.step(view, state)
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
        changed = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        assert any(not torch.equal(changed[key], plain[key]) for key in plain)
        found.append((changed, state))
    (first, state), (again, other) = found
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("name", list(REGULARIZERS))
def test_a_regularizer_says_when_it_is_finished(name: str) -> None:
    view, regularizer = viewed(with_gradients(settled(Residual()))), REGULARIZERS.bind(name, SOON.get(name, {}))()
    state = regularizer.init(view)
    for _ in range(20):
        regularizer.step(view, state)
    assert regularizer.finished(state)


def test_bn_l1_adds_the_sign_of_gamma_to_its_gradient() -> None:
    model = with_gradients(settled(Residual()))
    with torch.no_grad():
        model.bn1.weight[1] = -0.3
        model.bn1.weight[2] = 0.0
    before = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    view = viewed(model)
    regularizer = REGULARIZERS.bind("bn_l1", {"strength": 0.01})()
    regularizer.step(view, regularizer.init(view))
    for key, p in model.named_parameters():
        assert p.grad is not None
        is_scale = "bn" in key and key.endswith("weight")
        expected = before[key] + 0.01 * p.detach().sign() if is_scale else before[key]
        assert torch.allclose(p.grad, expected), key


def test_greg_presses_the_chosen_filters_harder_and_harder_until_the_ratio_is_reached() -> None:
    model = with_gradients(settled(chain([6])))
    assert isinstance(model, nn.Sequential)
    weight = model[0].weight
    view = viewed(model)
    regularizer = REGULARIZERS.bind("greg", {"increase": 0.1, "interval": 3, "limit": 0.25, "hold": 4})()
    state = regularizer.init(view)
    strength = 0.0
    for number in range(1, 15):
        before = weight.grad.clone()
        regularizer.step(view, state)
        if number % 3 == 0 and strength <= 0.25:
            strength += 0.1
        expected = before + strength * weight.detach() * (torch.arange(6) < 3)[:, None, None, None]
        assert torch.allclose(weight.grad, expected)
        assert torch.allclose(model[5].weight.grad, with_gradients(settled(chain([6])))[5].weight.grad)
        assert regularizer.finished(state) == (number >= 9 + 4)
    assert regularizer.kept is not None
    assert regularizer.kept(state)["0"].tolist() == [3, 4, 5]
    with torch.no_grad():
        weight[:3] = 1e-9
    state = regularizer.init(view)
    for _ in range(3 + 4):  # the first look sees the ratio, and four steps more are held
        regularizer.step(view, state)
    assert regularizer.finished(state)


# ---- gates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(GATES))
@pytest.mark.parametrize("network", list(NETWORKS))
def test_the_network_behind_its_gates_answers_as_the_one_their_mask_leaves(name: str, network: str) -> None:
    model = settled(NETWORKS[network]()).double()
    traced, _ = probed(model, dtype=torch.float64)
    view = View(model, traced.graph.groups, share_of(traced.graph.groups), 0.5, dict)
    gate = GATES[name]()
    state = gate.init(view)
    for path, tensor in state.items():
        if path.startswith("logit/"):
            tensor.data.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(path))))
    images = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    with gated(model, view.groups, gate.factors(view, state), where="read"):
        expected = answers(model, (images,))[0]
    kept = gate.kept(view, state)
    assert any(len(own) < view.groups[group].channels for group, own in kept.items())
    assert all(len(own) for own in kept.values())
    remove(model, view.groups, kept, None, images[:1])
    assert torch.allclose(answers(model, (images,))[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(GATES))
def test_every_gate_begins_open_learns_from_loss_and_penalty_and_scores_each_channel(name: str) -> None:
    model = settled(Residual()).train()
    view, gate = viewed(model), GATES[name]()
    state = gate.init(view)
    images, labels = torch.randn(16, 2, 6, 6), torch.arange(16) % 3
    assert all(bool((factor == 1).all()) for factor in gate.factors(view, state).values())
    first = {group: score.clone() for group, score in gate.scores(view, state).items()}
    for _ in range(5):
        with gated(model, view.groups, gate.factors(view, state), where="read"):
            loss = F.cross_entropy(model(images), labels) + gate.penalty(view, state)
        loss.backward()
        gate.step(view, state)
    for group, score in gate.scores(view, state).items():
        assert tuple(score.shape) == (view.groups[group].channels,)
        assert not torch.equal(score, first[group])
    cut = cut_state(state, {"conv1": torch.tensor([0, 3])})
    assert torch.equal(cut["logit/conv1"], state["logit/conv1"].detach()[[0, 3]])
    assert torch.equal(cut["logit/conv"], state["logit/conv"])


def test_the_penalty_alone_brings_the_gates_to_their_target_and_to_a_decision() -> None:
    view = viewed(settled(chain([32, 32])))
    gate = GATES.bind("straight_through", {"keep": 0.25, "polarise": 1.0, "learning_rate": 0.02})()
    state = gate.init(view)
    spread = torch.Generator().manual_seed(0)
    for path, tensor in state.items():
        if path.startswith("logit/"):
            tensor.add_(torch.randn(tensor.shape, generator=spread) * 0.5)
    for _ in range(1000):
        gate.penalty(view, state).backward()
        gate.step(view, state)
    logits = torch.cat(list(gate.scores(view, state).values()))
    assert abs(float(logits.sigmoid().mean()) - 0.25) < 0.05
    assert float(((logits.sigmoid() - 0.5).abs() > 0.25).double().mean()) > 0.9


def test_the_penalty_is_the_polarisation_and_the_pull_to_the_target() -> None:
    view = viewed(settled(chain([4, 3])))
    gate = GATES.bind("straight_through", {"polarise": 2.0, "pull": 3.0})()
    state = gate.init(view)
    state["logit/0"].data.copy_(torch.tensor([0.3, -1.0, 2.0, 0.0]))
    g = [1 / (1 + torch.exp(-torch.tensor(x)).item()) for x in (0.3, -1.0, 2.0, 0.0, 1.0, 1.0, 1.0)]
    expected = 2.0 * sum(x * (1 - x) for x in g) / 7 + 3.0 * (sum(g) / 7 - 0.5) ** 2
    assert float(gate.penalty(view, state).detach()) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_a_gate_is_that_of_its_sigmoid_times_what_the_channel_does() -> None:
    model = settled(Residual()).double().eval()
    traced, _ = probed(model, dtype=torch.float64)
    view, gate = View(model, traced.graph.groups, share_of(traced.graph.groups), 0.5, dict), GATES["straight_through"]()
    state = gate.init(view)
    images, labels = torch.randn(6, 2, 6, 6, dtype=torch.float64), torch.arange(6) % 3
    with gated(model, view.groups, gate.factors(view, state), where="read"):
        F.cross_entropy(model(images), labels).backward()
    plain = {
        name: torch.ones(group.channels, dtype=torch.float64, requires_grad=True) for name, group in view.groups.items()
    }
    with gated(model, view.groups, plain, where="read"):
        F.cross_entropy(model(images), labels).backward()
    g = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    for name, factor in plain.items():
        assert torch.allclose(state[f"logit/{name}"].grad, factor.grad * g * (1 - g))


@pytest.mark.parametrize("unit", ["keep_macs", "keep_channels"])
def test_what_is_left_is_counted_in_the_unit_of_the_amount_and_passes_gradients(unit: str) -> None:
    prune = Prune.model_validate({"amount": {unit: 0.4}})
    model = settled(Residual())
    dense, costs = measure_dense(model, torch.zeros(1, 2, 6, 6), prune)
    traced, _ = probed(model)
    left = left_of(prune, dense, traced.graph.groups, costs)
    widths = {
        name: torch.tensor(group.channels - 1.0, requires_grad=True) for name, group in traced.graph.groups.items()
    }
    whole = {name: int(width.item()) for name, width in widths.items()}
    groups = traced.graph.groups.values()
    share = {
        "keep_macs": costs.macs(whole) / costs.macs(),
        "keep_channels": sum(g.filters * whole[g.name] for g in groups) / sum(g.filters * g.channels for g in groups),
    }
    found = left(widths)
    found.backward()
    assert float(found.detach()) == pytest.approx(share[unit], rel=1e-6)
    assert all(width.grad is not None and float(width.grad) > 0 for width in widths.values())
    assert keep_after(prune, Moment(3, 0.6), dense, traced.graph.groups) == pytest.approx(0.4)


def test_a_gate_comes_to_the_widths_that_the_event_leaves() -> None:
    epochs = {"epochs": 12, "batch_size": 32, "learning_rate": 0.05}
    schedule = {"name": "once", "after": 9}
    own = {"gate": {"name": "straight_through", "learning_rate": 0.3}, "criterion": "gate", "schedule": schedule}
    trial = Trial(a_plan(prune={"amount": {"keep_macs": 0.4}, **own}, train=epochs))
    for _ in range(9):
        trial.step()
    view = trial._view()
    assert view is not None
    gate, state = trial._acting._gate, trial._acting._openings
    assert gate is not None
    widths = {name: torch.tensor(float(len(own))) for name, own in gate.kept(view, state).items()}
    assert abs(float(view.left(widths)) - 0.4) < 0.1


# ---- trials ---------------------------------------------------------------------------------------------------------

EVENTS = {"name": "every", "interval": 2, "until": 4}
PRESSURES: dict[str, dict[str, Any]] = {
    "bn_l1": {"regularizer": {"name": "bn_l1", "strength": 0.001}, "criterion": "bn_scale", "schedule": EVENTS},
    "greg": {
        "regularizer": {"name": "greg", "increase": 0.2, "interval": 3, "hold": 5},
        "criterion": "l1",
        "schedule": {"name": "when_finished", "until": 4},
    },
    "greg twice": {
        "regularizer": {"name": "greg", "increase": 0.2, "interval": 3},
        "criterion": "random",
        "schedule": EVENTS,
    },
    "gate": {"gate": "straight_through", "criterion": "gate", "schedule": EVENTS, "recalibrate_batches": 2},
    "both": {
        "gate": "straight_through",
        "regularizer": "bn_l1",
        "criterion": "gate",
        "allocation": "fur",
        "schedule": EVENTS,
        "pressure_start": 1,
    },
}


def acting_plan(name: str, **train: Any) -> Any:
    recipe = {"epochs": 6, "batch_size": 32, "learning_rate": 0.05, "checkpoint_minutes": 0.0}
    return a_plan(prune={"amount": {"keep_macs": 0.4}, **PRESSURES[name]}, train={**recipe, **train})


@pytest.mark.parametrize("name", list(PRESSURES))
def test_a_trial_under_pressure_resumed_anywhere_equals_one_run_straight(tmp_path: Path, name: str) -> None:
    plan = acting_plan(name, optimizer="adamw", learning_rate=0.01)
    straight, heard = run(plan, None)
    assert heard[-1]["keep_macs"] <= 0.4
    for epochs in (1, 3, 4):
        store = tmp_path / str(epochs)
        interrupted = Trial(plan, store=StageStore(store))
        for _ in range(epochs):
            interrupted.step()
        resumed, again = run(plan, store)
        assert resumed.inherited_epochs == epochs
        assert same_weights(straight, resumed)
        assert measured(again[-1]) == measured(heard[-1])


@pytest.mark.parametrize("name", ["greg", "gate"])
def test_a_process_killed_under_pressure_resumes_to_the_same_numbers(tmp_path: Path, name: str) -> None:
    plan = acting_plan(name)
    straight, heard = run(plan, None)
    assert _killed_until_done(plan, tmp_path, kills=2, longest=0.5) == 2
    resumed = Trial(plan, store=StageStore(tmp_path / "store"))
    assert same_weights(straight, resumed)
    assert measured(resumed.step()) == measured(heard[-1])


def test_pressure_changes_training_and_so_the_keys_from_its_start_on(tmp_path: Path) -> None:
    plan = acting_plan("both")
    ways = (foreseen(plan, epoch_macs=1), foreseen(plan.dense(), epoch_macs=1))
    assert shared(*ways) == 1
    run(plan.dense(), tmp_path, saves=[1, 2])
    assert Trial(plan, store=StageStore(tmp_path)).progress.epochs == 1


def test_the_event_comes_when_the_regularizer_has_finished_and_takes_what_it_chose(tmp_path: Path) -> None:
    plan = acting_plan("greg")
    trial = Trial(plan, store=StageStore(tmp_path))
    trial.step()
    saved = read(tmp_path / trial.progress.key[:2] / trial.progress.key)
    goes = {path: value for path, value in acting_tensors(saved).items() if "goes/" in path}
    while not trial.done:
        last = trial.step()
    assert last["events"] == 1
    assert trial.progress.events_at == (4,)  # an epoch has 7 steps; 18 to pass the limit, and 5 held
    for path, own in goes.items():
        assert trial._widths[path.partition("goes/")[2]] == int((~own).sum())
    slow = a_plan(
        prune={"amount": {"keep_macs": 0.4}, **PRESSURES["greg"], "regularizer": "greg"},
        train={"epochs": 6, "batch_size": 32},
    )
    late, _ = run(slow, None)
    assert late.progress.events_at == (5,)


def test_a_schedule_that_asks_says_no_until_the_regularizer_is_done() -> None:
    (moment,) = when_finished(10, 0.5, start=2, until=6)
    assert (moment.epoch, moment.first_epoch) == (6, 1)
    assert [moment.may_come(epochs) for epochs in (1, 2, 7)] == [False, True, True]
    assert [moment.must_come(epochs) for epochs in (2, 6, 7)] == [False, False, True]
    assert moment.ready is not None
    view = viewed(settled(Residual()))
    answers_given = [moment.ready.step(Standing(3, finished, lambda: view), {}) for finished in (False, True)]
    assert answers_given == [False, True]


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"criterion": "gate"}, "criterion 'gate' needs a gate"),
        ({"schedule": "when_finished"}, "schedule 'when_finished' needs a regularizer"),
        ({"regularizer": "bn_l1", "pressure_start": 6}, "pressure_start 6 is not under the 6 epochs"),
        ({"regularizer": "bn_l2"}, "unknown regularizer 'bn_l2'; did you mean 'bn_l1'"),
        (
            {
                "granularity": "weights",
                "criterion": "snip",
                "amount": {"keep_weights": 0.5},
                "gate": "straight_through",
            },
            "gate needs granularity 'channels'",
        ),
    ],
)
def test_pressure_that_could_never_act_is_refused(prune: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a_plan(prune={"amount": {"keep_macs": 0.4}, **prune})


@pytest.mark.parametrize("damage", ["gone", "narrow", "of another kind"])
def test_a_state_that_does_not_fit_the_network_is_computed_again(tmp_path: Path, damage: str) -> None:
    plan = acting_plan("gate")
    straight, heard = run(plan, None)
    interrupted = Trial(plan, store=StageStore(tmp_path))
    interrupted.step()
    folder = tmp_path / interrupted.progress.key[:2] / interrupted.progress.key
    tensors = {name: value.clone() for name, value in acting_tensors(read(folder)).items()}
    first = next(name for name in tensors if "logit/" in name)
    if damage == "gone":
        tensors.pop(first)
    elif damage == "narrow":
        tensors[first] = tensors[first][1:].clone()
    else:
        tensors["somebody/" + first] = tensors.pop(first)
        state = json.loads((folder / STATE).read_text())
        (folder / STATE).write_text(json.dumps({**state, "acting": sorted(tensors)}))
    save_file(tensors, folder / ACTING)
    resumed, again = run(plan, tmp_path)
    assert resumed.inherited_epochs == 0
    assert same_weights(straight, resumed)
    assert measured(again[-1]) == measured(heard[-1])
