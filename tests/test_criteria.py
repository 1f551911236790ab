"""Criteria: what holds for every row of the table, and each against a plain computation."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.probing import Residual, chain, probed, settled
from trainables.criteria import CRITERIA
from trainables.pruning.groups import Scores
from trainables.pruning.probe import Probe


class Shared(nn.Module):
    """One convolution used twice, and another that holds the same weight under a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 5, 3, padding=1)
        self.twice = nn.Conv2d(5, 5, 3, padding=1)
        self.alias = nn.Conv2d(5, 5, 3, padding=1)
        self.alias.weight = self.twice.weight
        self.last = nn.Conv2d(5, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).relu()
        x = self.alias(self.twice(self.twice(x).relu()).relu()).relu()
        return self.fc(self.last(x).relu().mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "chain": lambda: chain([5, 7, 4]),
    "shared": lambda: Shared(),
    "no norm": lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5), nn.Linear(5, 3)),
}
WITHOUT_PASSES = {"l1", "l2", "magnitude", "random", "bn_scale", "gate"}


def score(name: str, probe: Probe, **settings: object) -> Scores:
    return CRITERIA.bind(name, settings)(probe.groups, probe)


@pytest.mark.parametrize("name", list(CRITERIA))
@pytest.mark.parametrize("network", list(NETWORKS))
def test_scores_are_finite_one_per_channel_and_the_same_again(name: str, network: str) -> None:
    model = settled(NETWORKS[network]())
    _, probe = probed(model)
    first = score(name, probe)
    _, again = probed(model)
    second = score(name, again)
    assert set(first) == set(probe.groups)
    for group, scores in first.items():
        assert tuple(scores.shape) == (probe.groups[group].channels,)
        assert scores.is_floating_point()
        assert bool(scores.isfinite().all())
        assert torch.equal(scores, second[group])


@pytest.mark.parametrize("name", list(CRITERIA))
def test_the_network_and_the_global_generator_are_left_as_found(name: str) -> None:
    model = settled(Residual()).train()
    model.fc.eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.conv.weight.requires_grad_(False)
    _, probe = probed(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    score(name, probe)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.training
    assert not model.fc.training
    assert not model.conv.weight.requires_grad


@pytest.mark.parametrize("name", list(CRITERIA))
def test_passes_are_charged_and_weights_cost_nothing(name: str) -> None:
    _, probe = probed(settled(Residual()))
    score(name, probe)
    assert (probe.charged_macs > 0) == (name not in WITHOUT_PASSES)


@pytest.mark.parametrize("name", ["taylor", "snap", "frs"])
def test_a_network_without_gradients_is_scored_too(name: str) -> None:
    model = settled(Residual()).requires_grad_(False)
    _, probe = probed(model)
    with torch.no_grad():
        scores = score(name, probe)
    assert all(float(found.abs().sum()) > 0 for found in scores.values())


def test_l1_and_l2_are_the_mean_over_members_of_filters_norms() -> None:
    model = settled(Residual())
    _, probe = probed(model)
    for name, order in (("l1", 1), ("l2", 2)):
        plain = score(name, probe, normalise="none")
        scaled = score(name, probe, normalise="mean", aggregate="sum")
        for channel in range(4):
            norms = [
                float(sum(w.abs() ** order for w in layer.weight.detach()[channel].flatten()) ** (1 / order))
                for layer in (model.conv, model.conv2)
            ]
            assert float(plain["conv"][channel]) == pytest.approx(sum(norms) / 2, rel=1e-5)
        assert float(scaled["conv"].mean()) == pytest.approx(2.0)  # two members, of mean one each


def test_bn_scale_is_the_size_of_gamma_and_the_filters_norm_where_there_is_no_norm() -> None:
    model = settled(Residual())
    _, probe = probed(model)
    assert torch.allclose(score("bn_scale", probe)["conv1"], model.bn1.weight.abs())
    plain = NETWORKS["no norm"]()
    _, probe = probed(plain)
    assert torch.allclose(score("bn_scale", probe)["0"], plain[0].weight.flatten(1).norm(dim=1))


def test_random_depends_on_the_generator_alone() -> None:
    _, probe = probed(settled(Residual()), seed=0)
    _, other = probed(settled(Residual()), seed=7)
    assert not torch.equal(score("random", probe)["conv"], score("random", other)["conv"])


def with_scaled(model: Residual, layers: list[tuple[nn.Module, int]], channel: int, factor: float) -> Residual:
    """The model with one channel of these layers' weights (and bias, for outputs) multiplied by `factor`."""
    with torch.no_grad():
        for layer, dim in layers:
            layer.weight.select(dim, channel).mul_(factor)
            if dim == 0 and layer.bias is not None:
                layer.bias[channel] *= factor
    return model


def derivative(
    loss: Callable[[Residual], Tensor], layers: Callable[[Residual], list[tuple[nn.Module, int]]], channel: int
) -> Tensor:
    """d loss / d gate of one channel by central differences, the gate being a factor on weights."""
    step = 1e-5
    values = []
    for factor in (1 + step, 1 - step):
        model = settled(Residual()).double().eval()
        assert isinstance(model, Residual)
        values.append(loss(with_scaled(model, layers(model), channel, factor)))
    return ((values[0] - values[1]) / (2 * step)).detach()


@pytest.mark.parametrize("loss", ["cross_entropy", "raw_logits"])
def test_snap_is_the_derivative_by_one_gate_on_all_tied_outputs(loss: str) -> None:
    _, probe = probed(settled(Residual()).double(), dtype=torch.float64)
    scores = score("snap", probe, loss=loss, batch_size=5)
    images, labels = next(probe.sample(0, 100))

    def value(model: Residual) -> Tensor:
        logits = model(images)
        return F.cross_entropy(logits, labels) if loss == "cross_entropy" else F.nll_loss(logits, labels)

    made: dict[str, Callable[[Residual], list[tuple[nn.Module, int]]]] = {
        "conv": lambda m: [(m.conv, 0), (m.conv2, 0)],
        "conv1": lambda m: [(m.conv1, 0)],
        "conv4": lambda m: [(m.conv4, 0), (m.shortcut, 0)],
    }
    for name, layers in made.items():
        for channel in range(3):
            expected = abs(float(derivative(value, layers, channel)))
            assert float(scores[name][channel]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_taylor_is_the_mean_size_per_image_of_the_derivative_where_channels_are_read() -> None:
    _, probe = probed(settled(Residual()).double(), dtype=torch.float64)
    scores = score("taylor", probe, normalise="none", batch_size=5)
    images, labels = next(probe.sample(0, 100))

    def losses(model: Residual) -> Tensor:
        return F.cross_entropy(model(images), labels, reduction="none")

    for channel in range(4):
        expected = derivative(losses, lambda m: [(m.conv3, 1), (m.shortcut, 1), (m.conv1, 1)], channel)
        # The stream is also read by the addition, whose sum conv3 and shortcut read: that is one signal, gated there.
        assert float(scores["conv"][channel]) == pytest.approx(float(expected.abs().mean()), rel=1e-5, abs=1e-9)


def test_a_channel_that_nothing_comes_from_scores_lowest() -> None:
    for name in ("l1", "taylor", "snap", "frs"):
        model = settled(Residual())
        with torch.no_grad():
            model.conv1.weight[2] = 0.0
            model.conv1.bias[2] = 0.0
            model.bn1.running_mean[2] = 0.0
            model.bn1.bias[2] = 0.0
        _, probe = probed(model)
        assert int(score(name, probe)["conv1"].argmin()) == 2, name
