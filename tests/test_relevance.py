"""Feature relevance scores against a loop-by-loop computation, and the rules one by one."""

import gc
import itertools
import math
import weakref
from collections.abc import Callable
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.errors import UserError
from tests.probing import Residual, chain, probed, settled
from trainables.criteria import CRITERIA
from trainables.criteria.relevance import class_weights, layer_score
from trainables.criteria.relevance_rules import Mode, added, average, maximum, split_for, weighted
from trainables.criteria.relevance_tape import RelevanceTape

MODES = ("paper", "stable")


def eps(z: float, mode: str) -> float:
    return z + 1e-9 if mode == "paper" or z >= 0 else z - 1e-9


def naive_weighted(a: Tensor, w: Tensor, relevance: Tensor, mode: str, stride: int = 1, padding: int = 0) -> Tensor:
    """The alpha-beta rule of one sample, term by term: a [in, h, w], w [out, in, k, k], relevance [out, h', w']."""
    out = torch.zeros_like(a)
    inputs, height, width = a.shape
    kernel = w.shape[2]
    margin = 1e-9 if mode == "paper" and kernel_is_spatial(w) else 0.0
    for j, y, x in itertools.product(*map(range, relevance.shape)):
        terms = []
        for i, u, v in itertools.product(range(inputs), range(kernel), range(kernel)):
            row, column = y * stride + u - padding, x * stride + v - padding
            if 0 <= row < height and 0 <= column < width:
                terms.append((i, row, column, float(a[i, row, column]), float(w[j, i, u, v])))
        if mode == "paper" or min(term[3] for term in terms) >= 0:
            up = [(i, r, c, value * max(weight, margin)) for i, r, c, value, weight in terms]
            down = [(i, r, c, value * min(weight, -margin)) for i, r, c, value, weight in terms]
        else:
            up = [(i, r, c, max(value * weight, 0.0)) for i, r, c, value, weight in terms]
            down = [(i, r, c, min(value * weight, 0.0)) for i, r, c, value, weight in terms]
        own = float(relevance[j, y, x])
        excited = eps(sum(part[3] for part in up), mode)
        inhibited = eps(sum(part[3] for part in down), mode)
        for i, r, c, product in up:
            out[i, r, c] += 2.0 * own * product / excited
        for i, r, c, product in down:
            out[i, r, c] -= 1.0 * own * product / inhibited
    return out


def kernel_is_spatial(weight: Tensor) -> bool:
    return not getattr(weight, "is_linear", False)


def naive_linear(a: Tensor, w: Tensor, relevance: Tensor, mode: str) -> Tensor:
    as_convolution = w[:, :, None, None]
    as_convolution.is_linear = True
    return naive_weighted(a[:, None, None], as_convolution, relevance[:, None, None], mode)[:, 0, 0]


def naive_max_pool(a: Tensor, size: int, relevance: Tensor, mode: str) -> Tensor:
    out = torch.zeros_like(a)
    for c, y, x in itertools.product(*map(range, relevance.shape)):
        window = [(size * y + u, size * x + v) for u in range(size) for v in range(size)]
        row, column = max(window, key=lambda place: float(a[c, place[0], place[1]]))
        best = float(a[c, row, column])
        out[c, row, column] += best * float(relevance[c, y, x]) / eps(best, mode)
    return out


def naive_global_average(a: Tensor, relevance: Tensor, mode: str) -> Tensor:
    out = torch.zeros_like(a)
    positions = a[0].numel()
    for c in range(a.shape[0]):
        mean = sum(float(value) for value in a[c].flatten()) / positions
        share = float(relevance[c]) / eps(mean, mode)
        for y, x in itertools.product(range(a.shape[1]), range(a.shape[2])):
            out[c, y, x] = float(a[c, y, x]) * share * (1.0 if mode == "paper" else 1.0 / positions)
    return out


def naive_split(u: Tensor, y: Tensor, relevance: Tensor, mode: str) -> Tensor:
    out = torch.zeros_like(u)
    for c, row, column in itertools.product(*map(range, u.shape)):
        own = float(y[c, row, column])
        out[c, row, column] = float(u[c, row, column]) * float(relevance[c, row, column]) / eps(own, mode)
    return out


def naive_relevances(net: Residual, image: Tensor, label: int, mode: str) -> tuple[dict[str, Tensor], int]:
    """Relevance [channels] of each layer of `Residual` for one image, and the predicted class."""
    with torch.no_grad():
        x0 = F.relu(net.bn(net.conv(image[None])))[0]
        h1 = F.relu(net.bn1(net.conv1(x0[None])))[0]
        v1 = net.bn2(net.conv2(h1[None]))[0]
        y1 = v1 + x0
        x1 = F.relu(y1)
        h2 = F.relu(net.bn3(net.conv3(x1[None])))[0]
        v2 = net.bn4(net.conv4(h2[None]))[0]
        s2 = net.bn5(net.shortcut(x1[None]))[0]
        y2 = v2 + s2
        x2 = F.relu(y2)
        pooled = F.max_pool2d(x2[None], 3)[0]
        features = pooled.mean((1, 2))
        predicted = int(net.fc(features).argmax())
    start = torch.zeros(net.fc.out_features, dtype=image.dtype)
    start[label] = 1.0
    r_features = naive_linear(features, net.fc.weight.detach(), start, mode)
    r_pooled = naive_global_average(pooled, r_features, mode)
    r_y2 = naive_max_pool(x2, 3, r_pooled, mode)
    r_v2, r_s2 = naive_split(v2, y2, r_y2, mode), naive_split(s2, y2, r_y2, mode)
    r_h2 = naive_weighted(h2, net.conv4.weight.detach(), r_v2, mode, padding=1)
    r_y1 = naive_weighted(x1, net.conv3.weight.detach(), r_h2, mode, stride=2, padding=1)
    r_y1 = r_y1 + naive_weighted(x1, net.shortcut.weight.detach(), r_s2, mode, stride=2)
    r_v1, r_skip = naive_split(v1, y1, r_y1, mode), naive_split(x0, y1, r_y1, mode)
    r_h1 = naive_weighted(h1, net.conv2.weight.detach(), r_v1, mode, padding=1)
    r_x0 = r_skip + naive_weighted(x0, net.conv1.weight.detach(), r_h1, mode, padding=1)
    read = {
        "conv": r_x0,
        "conv1": r_h1,
        "conv2": r_y1,  # the last convolution of a block: after the addition
        "conv3": r_h2,
        "conv4": r_y2,
        "shortcut": r_y2,
    }
    return {name: relevance.mean((1, 2)) for name, relevance in read.items()}, predicted


def naive_frs(net: Residual, images: Tensor, labels: Tensor, mode: str) -> dict[str, list[float]]:
    classes = net.fc.out_features
    by_class: dict[str, list[list[Tensor]]] = {}
    hits, counts = [0] * classes, [0] * classes
    for image, label in zip(images, labels.tolist(), strict=True):
        relevances, predicted = naive_relevances(net, image, label, mode)
        counts[label] += 1
        hits[label] += predicted == label
        for name, relevance in relevances.items():
            by_class.setdefault(name, [[] for _ in range(classes)])[label].append(relevance)
    accuracies = [hit / count for hit, count in zip(hits, counts, strict=True)]
    weights = []
    for accuracy in accuracies:
        inverse = max(accuracies) / accuracy if accuracy > 0 else math.inf
        weights.append(1.0 / (1.0 + math.exp(-inverse)))
    layers = {}
    for name, found in by_class.items():
        channels = len(found[0][0])
        values = [
            abs(
                sum(weights[k] * sum(float(relevance[c]) for relevance in found[k]) / counts[k] for k in range(classes))
                / classes
            )
            for c in range(channels)
        ]
        norm = math.sqrt(sum(value**2 for value in values)) + 1e-9
        layers[name] = [value / norm for value in values]
    members = {
        "conv": ("conv", "conv2"),
        "conv1": ("conv1",),
        "conv3": ("conv3",),
        "conv4": ("conv4", "shortcut"),
    }
    return {
        group: [sum(parts) / len(parts) for parts in zip(*(layers[name] for name in names), strict=True)]
        for group, names in members.items()
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_scores_equal_a_loop_by_loop_computation(mode: str, dtype: torch.dtype, tolerance: float) -> None:
    net = settled(Residual()).to(dtype).eval()
    _, probe = probed(net, images=9, dtype=dtype)
    images, labels = next(probe.sample(0, 100))
    expected = naive_frs(settled(Residual()).double().eval(), images.double(), labels, mode)
    scores = CRITERIA["frs"](probe.groups, probe, mode=mode, batch_size=4)
    assert set(scores) == set(expected)
    for name, score in scores.items():
        assert torch.allclose(score.double(), torch.tensor(expected[name], dtype=torch.float64), rtol=0, atol=tolerance)


def test_a_weighted_layer_conserves_relevance_where_every_output_has_both_signs() -> None:
    generator = torch.Generator().manual_seed(0)
    for least in (0.0, -1.0):
        signal = torch.rand(5, 6, 4, 4, generator=generator, dtype=torch.float64) * 2 + least
        weight = torch.randn(7, 6, 3, 3, generator=generator, dtype=torch.float64)
        relevance = torch.randn(5, 7, 2, 2, generator=generator, dtype=torch.float64)
        split = split_for(signal, "stable")
        sent = weighted(signal, weight, F.conv2d, relevance, "stable", split)
        assert split == ("products" if least < 0 else "weights")
        assert torch.allclose(sent.sum((1, 2, 3)), relevance.sum((1, 2, 3)), atol=1e-6)


LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[[Tensor, Tensor], Tensor], Literal[0, 1]]] = {
    "linear": ((3, 6), (4, 6), F.linear, 0),
    "linear on tokens": ((2, 5, 6), (4, 6), F.linear, 0),
    "convolution": ((2, 6, 5, 5), (8, 6, 3, 3), lambda a, w: F.conv2d(a, w, stride=2, padding=1), 0),
    "grouped": ((2, 6, 5, 5), (8, 3, 3, 3), lambda a, w: F.conv2d(a, w, groups=2), 0),
    "depthwise": ((2, 6, 5, 5), (12, 1, 3, 3), lambda a, w: F.conv2d(a, w, groups=6), 0),
    "1d": ((2, 6, 7), (4, 6, 3), F.conv1d, 0),
    "transposed": ((2, 6, 4, 4), (6, 8, 3, 3), lambda a, w: F.conv_transpose2d(a, w, stride=2), 1),
    "transposed grouped": ((2, 6, 4, 4), (6, 4, 3, 3), lambda a, w: F.conv_transpose2d(a, w, groups=3), 1),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(LAYERS))
def test_both_signs_at_once_are_the_rule_written_out_sign_by_sign(name: str, mode: Mode) -> None:
    of_signal, of_weight, operation, outputs = LAYERS[name]
    generator = torch.Generator().manual_seed(3)
    signal = torch.randn(of_signal, generator=generator, dtype=torch.float64)
    signal = signal.clamp(min=0) if mode == "paper" else signal  # which then splits products
    weight = torch.randn(of_weight, generator=generator, dtype=torch.float64)
    relevance = torch.randn(operation(signal, weight).shape, generator=generator, dtype=torch.float64)
    margin = 1e-9 if mode == "paper" and weight.dim() > 2 else 0.0
    up, down = weight.clamp(min=margin), weight.clamp(max=-margin)
    plus, minus = signal.clamp(min=0), signal.clamp(max=0)
    excited = operation(plus, up) + operation(minus, down)
    inhibited = operation(plus, down) + operation(minus, up)
    below = 1e-9 if mode == "paper" else -1e-9
    by_excited, by_inhibited = 2.0 * relevance / (excited + 1e-9), relevance / (inhibited + below)

    def back(source: Tensor, weights: Tensor, sent: Tensor) -> Tensor:
        source = source.clone().requires_grad_()
        return torch.autograd.grad(operation(source, weights), source, sent)[0]

    expected = plus * (back(plus, up, by_excited) - back(plus, down, by_inhibited))
    expected += minus * (back(minus, down, by_excited) - back(minus, up, by_inhibited))
    split = split_for(signal, mode)
    assert split == ("weights" if mode == "paper" else "products")
    for layout in ("rows", "channels last"):
        laid = (
            signal.contiguous(memory_format=torch.channels_last) if layout != "rows" and signal.dim() == 4 else signal
        )
        got = weighted(laid, weight, operation, relevance, mode, split, outputs=outputs)
        assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9)
    nothing = torch.zeros_like(signal)
    assert not bool(weighted(nothing, weight, operation, relevance, mode, "weights", outputs=outputs).any())


def test_a_sum_conserves_relevance() -> None:
    generator = torch.Generator().manual_seed(1)
    u, v, relevance = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    sent = added(u, u + v, relevance, "stable") + added(v, u + v, relevance, "stable")
    assert torch.allclose(sent, relevance, atol=1e-6)


def test_pooling_conserves_relevance_except_in_the_authors_average() -> None:
    signal = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.1
    relevance = torch.ones(2, 3, 2, 2, dtype=torch.float64)
    for pool, rule in ((F.max_pool2d, maximum), (F.avg_pool2d, average)):
        sent = rule(signal, lambda x, pool=pool: pool(x, 2), relevance, "stable")
        assert torch.allclose(sent.sum(), relevance.sum())
    grown = average(signal, lambda x: F.avg_pool2d(x, 2), relevance, "paper")
    assert torch.allclose(grown.sum(), 4 * relevance.sum())


def test_no_denominator_of_the_stable_mode_crosses_zero() -> None:
    signal = torch.tensor([[1.0]], dtype=torch.float64)
    weight = torch.tensor([[-1e-9]], dtype=torch.float64)
    relevance = torch.ones(1, 1, dtype=torch.float64)
    assert not weighted(signal, weight, F.linear, relevance, "paper", "weights").isfinite().all()
    assert weighted(signal, weight, F.linear, relevance, "stable", "weights").isfinite().all()


def test_the_paper_mode_leaves_out_samples_without_a_finite_relevance() -> None:
    net = settled(chain([4]))
    _, probe = probed(net, images=6)
    images, labels = next(probe.sample(0, 6))
    usual = CRITERIA["frs"](probe.groups, probe, mode="paper")
    spoilt = torch.cat([images, torch.full_like(images[:1], torch.nan)])
    probe.batches = lambda samples, size: iter([(spoilt, torch.cat([labels, labels[:1]]))])
    scores = CRITERIA["frs"](probe.groups, probe, mode="paper")
    assert all(score.isfinite().all() for score in scores.values())
    assert set(scores) == set(usual)


def test_class_weights_lie_between_0_731_and_1() -> None:
    weights = class_weights(torch.tensor([10.0, 5.0, 1.0, 0.0]).double(), torch.full((4,), 10.0).double())
    assert math.isclose(float(weights[0]), 1 / (1 + math.exp(-1)))
    assert bool((weights.diff() > 0).all())
    assert float(weights[-1]) == 1.0
    assert bool((class_weights(torch.zeros(3), torch.ones(3)) == 1).all())


def test_opposite_classes_cancel_before_the_absolute_value() -> None:
    score = layer_score(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), torch.ones(2), torch.ones(2))
    assert torch.allclose(score, torch.tensor([0.0, 1.0]))


def test_classes_without_samples_are_left_out() -> None:
    with_empty = layer_score(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]), torch.ones(2))
    assert torch.allclose(with_empty, layer_score(torch.tensor([[1.0, 2.0]]), torch.ones(1), torch.ones(1)))


def test_the_tape_computes_what_the_network_computes() -> None:
    net = settled(Residual()).eval()
    images = torch.randn(3, 2, 6, 6)
    with RelevanceTape(net, "stable").recording(images):
        taped = net(images)
    assert torch.equal(taped, net(images))


def test_macs_are_counted_there_and_four_times_back_but_not_into_the_images() -> None:
    net = settled(chain([4, 6])).eval()
    traced, probe = probed(net, images=8)
    CRITERIA["frs"](probe.groups, probe)
    macs = traced.costs.layer_macs()
    assert probe.charged_macs == 8 * (5 * traced.costs.macs() - 4 * macs["0"])


class Gated(nn.Module):
    """Squeeze-and-excitation, a depthwise convolution, concatenation, dropout: what real networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.squeeze = nn.Conv2d(6, 2, 1)
        self.excite = nn.Conv2d(2, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.side = nn.Conv2d(6, 3, 1)
        self.fc = nn.Linear(9, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = F.hardswish(self.bn(self.conv(images)))
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        x = F.silu(self.depthwise(x * gate))
        x = torch.cat([x, self.side(x).relu_()], 1)
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 2)
        return self.fc(F.dropout(x.mean((2, 3)), training=self.training))


@pytest.mark.parametrize("mode", MODES)
def test_relevance_follows_the_signal_through_gates_depthwise_and_concatenation(mode: str) -> None:
    _, probe = probed(settled(Gated()), images=6)
    scores = CRITERIA["frs"](probe.groups, probe, mode=mode)
    assert {name: tuple(score.shape) for name, score in scores.items()} == {
        name: (group.channels,) for name, group in probe.groups.items()
    }
    assert float(scores["conv"].abs().sum()) > 0
    assert float(scores["side"].abs().sum()) > 0


def test_a_layer_without_a_rule_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 3))
    _, probe = probed(settled(net), images=2)
    with pytest.raises(UserError, match=r"criterion 'frs' has no rule for 'group_norm' in layer '1'"):
        CRITERIA["frs"]({}, probe)


def test_activations_are_let_go_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the whole sample's activations are held at once, gigabytes of them, until Python looks for circles."""
    tapes: list[weakref.ref[RelevanceTape]] = []
    activations: list[weakref.ref[Tensor]] = []

    class Watched(RelevanceTape):
        def forget(self) -> None:
            tapes.append(weakref.ref(self))
            activations.extend(weakref.ref(made) for calls in self.made.values() for made in calls)
            super().forget()

    monkeypatch.setattr("trainables.criteria.relevance.RelevanceTape", Watched)
    _, probe = probed(settled(Residual()).eval(), images=9)
    gc.collect()
    gc.disable()
    try:
        CRITERIA["frs"](probe.groups, probe, batch_size=3)
        assert len(tapes) == 3
        assert len(activations) == 3 * 7
        assert not any(held() is not None for held in (*tapes, *activations))
    finally:
        gc.enable()


def test_in_place_layers_do_not_spoil_what_the_rules_need() -> None:
    class InPlace(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.conv, self.again = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.fc, self.inplace = nn.Linear(4, 3), inplace

        def forward(self, images: Tensor) -> Tensor:
            x = self.conv(images).relu()
            out = self.again(x)
            if self.inplace:
                out.add_(x)
                out.relu_()
            else:
                out = (out + x).relu()
            return self.fc(out.mean((2, 3)))

    scores = []
    for inplace in (True, False):
        _, probe = probed(settled(InPlace(inplace)), images=5)
        scores.append(CRITERIA["frs"](probe.groups, probe))
    assert scores[0].keys() == scores[1].keys()
    for name, score in scores[0].items():
        assert torch.equal(score, scores[1][name])
