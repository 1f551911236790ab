"""Compensations: what holds for every row of the table, and each against a plain computation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spaces.errors import TrialFailed
from tests.probing import Residual, chain, probed, settled
from tests.test_trial import a_plan, measured, run, same_weights
from trainables.compensations import COMPENSATIONS, Adjustments
from trainables.compensations.folding import taken_up
from trainables.pruning.graph import trace
from trainables.pruning.groups import Groups
from trainables.pruning.masking import answers
from trainables.pruning.probe import Probe
from trainables.pruning.removal import remove
from trainables.store import StageStore
from trainables.trial import Trial

Kept = dict[str, Tensor]


def grouped() -> nn.Module:
    """A grouped and a depthwise convolution between others, unpadded, and a transposed one."""
    return nn.Sequential(
        nn.Conv2d(2, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 2, groups=2, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 12, 1, groups=12),
        nn.Conv2d(12, 6, 1, bias=False),
        nn.ConvTranspose2d(6, 5, 2),
        nn.Flatten(),
        nn.Linear(5 * 36, 3),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "chain": lambda: chain([5, 7, 4]),
    "grouped": grouped,
    "no norm": lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5), nn.Linear(5, 3)),
}


def half(probe: Probe) -> Kept:
    """Every other channel of each group, the first one always."""
    return {name: torch.arange(0, group.channels, 2) for name, group in probe.groups.items()}


def compensated(name: str, probe: Probe, kept: Kept, **settings: Any) -> Adjustments:
    return COMPENSATIONS.bind(name, settings)(probe.groups, kept, probe)


def logits_after(
    name: str | None, make: Callable[[], nn.Module], kept: Callable[[Probe], Kept], **settings: Any
) -> tuple[Tensor, Tensor]:
    """(before, after) the removal of what is not kept, in float64, on the probe's images."""
    model = make().double()
    _, probe = probed(model, dtype=torch.float64, images=40)
    images = torch.cat([batch for batch, _ in probe.sample(0, 40)])
    before, stays = answers(model, (images,))[0], kept(probe)
    adjustments = {} if name is None else compensated(name, probe, stays, **settings)
    with taken_up(model, adjustments):
        remove(model, probe.groups, stays, None, images[:1])
    return before, answers(model, (images,))[0]


@pytest.mark.parametrize("name", list(COMPENSATIONS))
@pytest.mark.parametrize("network", list(NETWORKS))
def test_the_network_is_left_as_found_and_new_values_fit(name: str, network: str) -> None:
    model = settled(NETWORKS[network]()).train()
    _, probe = probed(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    first = compensated(name, probe, half(probe))
    again = compensated(name, probe, half(probe))
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.training
    assert probe.charged_macs > 0
    assert first
    for key, value in first.items():
        assert value.shape == state[key].shape
        assert bool(value.isfinite().all())
        assert torch.equal(value, again[key])


@pytest.mark.parametrize("name", list(COMPENSATIONS))
@pytest.mark.parametrize("network", list(NETWORKS))
def test_what_is_compensated_can_be_removed_and_masked_equals_removed(name: str, network: str) -> None:
    before, after = logits_after(name, lambda: settled(NETWORKS[network]()), half)
    assert before.shape == after.shape
    assert bool(after.isfinite().all())


@pytest.mark.parametrize("name", list(COMPENSATIONS))
def test_nothing_removed_is_nothing_compensated(name: str) -> None:
    _, probe = probed(settled(Residual()))
    everything = {group: torch.arange(own.channels) for group, own in probe.groups.items()}
    assert compensated(name, probe, everything) == {}


def with_constant_channels(network: str) -> nn.Module:
    """Every other channel of each norm scaled to nothing, and no zeros padded around what is convolved."""
    model = settled(NETWORKS[network]())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[1::2] = 0.0
        if isinstance(module, nn.Conv2d):
            module.padding = (0, 0)
    return model


@pytest.mark.parametrize("name", list(COMPENSATIONS))
def test_constant_channels_are_folded_exactly(name: str) -> None:
    def make() -> nn.Module:
        layers = with_constant_channels("chain")
        assert isinstance(layers, nn.Sequential)
        return nn.Sequential(*layers[:6], nn.AdaptiveAvgPool2d(1), nn.Flatten(), settled(nn.Linear(7, 3)))

    before, after = logits_after(name, make, half)
    assert torch.allclose(before, after, rtol=1e-9, atol=1e-9)
    _, plain = logits_after(None, make, half)
    assert not torch.allclose(before, plain, rtol=1e-2)


@pytest.mark.parametrize("name", list(COMPENSATIONS))
def test_a_constant_goes_into_the_running_mean_of_the_norm_behind_a_consumer_without_bias(name: str) -> None:
    def make() -> nn.Module:
        model = nn.Sequential(
            *[nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU()],
            *[nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)],
        )
        settled(model)
        model[1].weight.data[1::2] = 0.0
        return model

    def first_only(probe: Probe) -> Kept:
        return half(probe) | {"3": torch.arange(4)}

    before, after = logits_after(name, make, first_only)
    assert torch.allclose(before, after, rtol=1e-9, atol=1e-9)


def test_a_constant_is_not_folded_where_the_norm_is_not_alone_behind_the_consumer() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(2, 6, 1), nn.BatchNorm2d(6)
            self.second, self.after = nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4)
            self.fc = nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            y = self.second(torch.relu(self.norm(self.first(images))))
            y = self.after(y) + y
            out: Tensor = self.fc(y.mean((2, 3)))
            return out

    _, probe = probed(settled(Forked()))
    assert "after.running_mean" not in compensated("fold_beta", probe, half(probe))


def test_fold_beta_is_the_activation_of_beta_times_the_columns_that_go() -> None:
    model = settled(chain([6]))
    assert isinstance(model, nn.Sequential)
    norm, linear = model[1], model[5]
    _, probe = probed(model)
    adjustments = compensated("fold_beta", probe, {"0": torch.tensor([0, 2, 5])})
    expected = linear.bias.detach().clone()
    for channel in (1, 3, 4):
        columns = linear.weight.detach()[:, channel * 4 : channel * 4 + 4].sum(1)
        expected += torch.relu(norm.bias.detach()[channel]) * columns
    assert set(adjustments) == {"5.weight", "5.bias"}
    assert torch.allclose(adjustments["5.bias"], expected, atol=1e-6)
    assert torch.equal(adjustments["5.weight"], linear.weight)


def test_least_squares_is_the_regression_of_what_the_consumer_reads() -> None:
    model = settled(nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 3))).double()
    images = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    _, template = probed(settled(chain([4])))
    groups = trace(model, images[:1]).graph.groups
    probe = Probe(model, groups, template.loss, 3, lambda a, b: iter([(images, torch.zeros(50))]), torch.Generator(), 1)
    kept, gone = torch.tensor([0, 1, 4, 6]), [2, 3, 5]
    adjustments = compensated("least_squares", probe, {"0": kept}, ridge=0.0)
    with torch.no_grad():
        read = model[:2](images)
        design = torch.cat([read[:, kept], torch.ones(50, 1, dtype=torch.float64)], 1)
        found = torch.linalg.lstsq(design, read[:, gone]).solution
        weight, bias = model[2].weight, model[2].bias
        assert torch.allclose(
            adjustments["2.weight"][:, kept], weight[:, kept] + weight[:, gone] @ found[:4].T, atol=1e-6
        )
        assert torch.allclose(adjustments["2.bias"], bias + weight[:, gone] @ found[4], atol=1e-6)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_least_squares_answers_nearer_to_the_dense_network_than_plain_removal(network: str) -> None:
    def make() -> nn.Module:
        return settled(NETWORKS[network]())

    def one_group(probe: Probe) -> Kept:
        first = next(iter(probe.groups))
        return {name: torch.arange(group.channels)[name == first :] for name, group in probe.groups.items()}

    before, repaired = logits_after("least_squares", make, one_group)
    _, plain = logits_after(None, make, one_group)
    assert float((repaired - before).norm()) < 0.9 * float((plain - before).norm())


def test_a_copy_of_a_channel_that_stays_is_taken_over_exactly_padding_included() -> None:
    def make() -> nn.Module:
        model = settled(chain([6, 4]))
        assert isinstance(model, nn.Sequential)
        for tensor in (*model[0].parameters(), *model[1].parameters(), *model[1].buffers()):
            if tensor.dim():
                tensor.data[3:] = tensor.data[:3]
        return model

    def originals(probe: Probe) -> Kept:
        return {"0": torch.arange(3), "3": torch.arange(4)}

    before, after = logits_after("least_squares", make, originals, ridge=0.0)
    assert torch.allclose(before, after, rtol=1e-6, atol=1e-6)


def test_what_was_taken_up_comes_back_where_the_removal_is_refused() -> None:
    model = settled(chain([4]))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    zeros = {"0.weight": torch.zeros(4, 2, 3, 3)}

    def refused() -> None:
        with taken_up(model, zeros):
            assert torch.equal(model.state_dict()["0.weight"], zeros["0.weight"])
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refused()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", list(COMPENSATIONS))
def test_a_compensated_trial_resumed_equals_one_run_straight(tmp_path: Path, name: str) -> None:
    prune = {
        "criterion": "l1",
        "schedule": {"name": "every", "interval": 2, "until": 4},
        "amount": {"keep_macs": 0.4},
        "compensation": name,
    }
    train = {"epochs": 5, "batch_size": 32, "learning_rate": 0.1, "checkpoint_minutes": 0.0}
    plan = a_plan(prune=prune, train=train)
    straight, heard = run(plan, None)
    assert heard[-1]["keep_macs"] <= 0.4
    interrupted = Trial(plan, store=StageStore(tmp_path))
    for _ in range(3):
        interrupted.step()
    resumed, again = run(plan, tmp_path)
    assert same_weights(straight, resumed)
    assert measured(again[-1]) == measured(heard[-1])


def of_wrong_shape(groups: Groups, kept: Kept, probe: Probe, /) -> Adjustments:
    """Somebody's own compensation, with a fault."""
    return {"fc.bias": torch.zeros(3)}


def of_nothing_there(groups: Groups, kept: Kept, probe: Probe, /) -> Adjustments:
    """Somebody's own compensation, with a fault."""
    return {"fc.offset": torch.zeros(10)}


def not_finite(groups: Groups, kept: Kept, probe: Probe, /) -> Adjustments:
    """Somebody's own compensation, with a fault."""
    return {"fc.bias": torch.full((10,), torch.nan)}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("of_wrong_shape", r"gave \(3,\) for 'fc.bias'; there is \(10,\)"),
        ("of_nothing_there", "for 'fc.offset'; there is no such tensor"),
        ("not_finite", "not finite for 'fc.bias'"),
    ],
)
def test_a_compensation_that_answers_nonsense_fails_before_anything_is_changed(own: str, message: str) -> None:
    schedule = {"name": "once", "after": -1}
    prune = {"compensation": f"tests.test_compensations:{own}", "amount": {"keep_macs": 0.4}, "schedule": schedule}
    trial = Trial(a_plan(prune=prune))
    state = {key: value.clone() for key, value in trial.model.state_dict().items()}
    with pytest.raises(TrialFailed, match=message):
        trial.step()
    assert all(torch.equal(value, state[key]) for key, value in trial.model.state_dict().items())
