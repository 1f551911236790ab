"""(a) Trace and removal of half the channels, against torch-pruning: both score by L2 norms, layer by layer."""

import copy
import importlib.util
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from benchmarks.engine.setting import Setting
from benchmarks.figures import Figure, Spread, Target, geometric_mean, ratio, spread
from benchmarks.timing import Prepare, Run, interleaved
from trainables.criteria.magnitude import l2
from trainables.pruning.graph import trace
from trainables.pruning.groups import Groups
from trainables.pruning.probe import Probe
from trainables.pruning.removal import apply, removal_of, remove

NETWORKS = ("resnet50", "densenet121", "mobilenet_v2", "efficientnet_b0", "vgg16_bn")
HALF = Target("at most", 0.5)
CPU = torch.device("cpu")
WHAT = "graph, L2 scores and removal of half the channels of every layer at 224x224, CPU, one thread"


def figures(setting: Setting) -> list[Figure]:
    torch.set_num_threads(1)
    against = has_opponent()
    names = NETWORKS[:-1] if setting.quick else NETWORKS
    rounds = 1 if setting.quick else 5
    unchecked, checked, rows = [], [], []
    for name in names:
        times, left = measure(name, rounds=rounds, against=against)
        if not against:
            rows.append(_alone(name, spread(times["ours"])))
            continue
        bare, whole = ratio(times["ours"], times["theirs"]), ratio(times["checked"], times["theirs"])
        unchecked.append(bare.middle)
        checked.append(whole.middle)
        seconds = f"{spread(times['ours']).middle:.2f} s against {spread(times['theirs']).middle:.2f} s"
        kept = f"parameters left {left['ours']:.1%} and {left['theirs']:.1%}"
        rows.append(Figure(f"(a) {name}: time / torch-pruning's", bare.middle, "x", f"{seconds}; {bare}; {kept}"))
        rows.append(Figure(f"(a) {name}: the same with our forward check", whole.middle, "x", str(whole)))
    return [*_means(unchecked, checked), *rows]


def has_opponent() -> bool:
    return importlib.util.find_spec("torch_pruning") is not None


def _means(unchecked: list[float], checked: list[float]) -> list[Figure]:
    named = {"trace and removal": unchecked, "trace, removal and forward check": checked}
    if not unchecked:
        reason = "torch-pruning is not installed (pip install prunefront[oracles])"
        return [Figure(f"(a) {what} / torch-pruning's", None, "x", reason, HALF) for what in named]
    return [
        Figure(
            f"(a) {what} / torch-pruning's, geometric mean",
            geometric_mean(values),
            "x",
            f"{WHAT}; over {len(values)} networks",
            HALF,
        )
        for what, values in named.items()
    ]


def _alone(name: str, seconds: Spread) -> Figure:
    return Figure(f"(a) {name}: trace and removal", seconds.middle, "s", f"{WHAT}; {seconds}; no opponent installed")


def measure(name: str, *, rounds: int, against: bool) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds per side, and the fraction of parameters that each side left."""
    network = torchvision.models.get_model(name, weights=None).eval()
    example = torch.randn(1, 3, 224, 224)
    left: dict[str, float] = {}

    def fresh(side: str) -> Run:
        model = copy.deepcopy(network)

        def run() -> None:
            SIDES[side](model, example)
            left[side] = _parameters(model) / _parameters(network)

        return run

    names = [side for side in SIDES if against or side != "theirs"]
    sides: dict[str, Prepare] = {side: partial(fresh, side) for side in names}
    return interleaved(sides, rounds=rounds, device=CPU), left


def _ours(model: nn.Module, example: Tensor) -> None:
    groups = trace(model, example).graph.groups
    apply(model, removal_of(groups, _halves(model, groups)))


def _checked(model: nn.Module, example: Tensor) -> None:
    groups = trace(model, example).graph.groups
    remove(model, groups, _halves(model, groups), None, example)


def _theirs(model: nn.Module, example: Tensor) -> None:
    import torch_pruning

    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    torch_pruning.pruner.MetaPruner(
        model,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[classifier],  # it does not protect outputs by itself
    ).step()


SIDES = {"ours": _ours, "checked": _checked, "theirs": _theirs}


def _halves(model: nn.Module, groups: Groups) -> dict[str, Tensor]:
    """Of each group the half with the larger L2 norms."""
    probe = Probe(
        model=model,
        groups=dict(groups),
        loss=F.cross_entropy,
        num_classes=1000,
        batches=_no_data,
        generator=torch.Generator(),
        forward_macs=0,
    )
    scores = l2(groups, probe)
    return {name: scores[name].topk(-(-group.channels // 2)).indices.sort().values for name, group in groups.items()}


def _no_data(samples: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return iter(())


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
