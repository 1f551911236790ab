"""The FLOPs utilization ratio of channel groups: how much the loss rises when channels drop out at equal cost.

Network Adjustment (Chen et al., CVPR 2020). Does NOT cover what is made of the ratios: an allocation (`fur`), or a
search over widths.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.pruning.costs import Costs
from trainables.pruning.gates import gated
from trainables.pruning.groups import Groups
from trainables.pruning.probe import Probe

LARGEST_DROP = 0.5  # the authors' rates can pass 1 for a cheap layer


def utilization(
    probe: Probe, groups: Groups, costs: Costs, *, drop: float, repeats: int, samples: int, batch_size: int
) -> dict[str, float]:
    """{group: mean loss increase} while the group's channels drop out with a probability that removes equal MACs.

    `drop` is that of the mean group; a mean of `repeats` draws over `samples` images (0: all). A group too cheap for
    its rate drops at 0.5, and its increase is scaled to equal MACs. Groups that cost nothing are left out. Draws do
    not depend on what else the event draws, so that trials with different criteria find the same.
    """
    macs = {name: costs.macs() - costs.macs({name: 0}) for name in groups}
    worth = {name: own for name, own in macs.items() if own > 0}  # an auxiliary head costs nothing to evaluate
    if not worth:
        return {}
    rates, scales = drop_rates(worth, drop)

    def measured() -> dict[str, float]:
        return _increases(probe, groups, rates, scales, repeats=repeats, samples=samples, batch_size=batch_size)

    question = {"drop": drop, "repeats": repeats, "samples": samples, "batch_size": batch_size, "groups": list(worth)}
    return probe.once(["utilization", question], measured)


def drop_rates(macs: Mapping[str, int], drop: float) -> tuple[dict[str, float], dict[str, float]]:
    """Per group the probability that removes `drop` of the mean group's MACs, at most 0.5; and what scales the loss
    increase of a group that this bound keeps from removing as much. `macs`: what goes when the group is gone."""
    mean = sum(macs.values()) / len(macs)
    wanted = {name: drop * mean / max(share, 1) for name, share in macs.items()}
    rates = {name: min(rate, LARGEST_DROP) for name, rate in wanted.items()}
    return rates, {name: wanted[name] / rates[name] for name in macs}


def _increases(
    probe: Probe,
    groups: Groups,
    rates: Mapping[str, float],
    scales: Mapping[str, float],
    *,
    repeats: int,
    samples: int,
    batch_size: int,
) -> dict[str, float]:
    increases = dict.fromkeys(rates, 0.0)
    generator = probe.fresh_generator()
    counted = 0
    with probe.undisturbed(), torch.no_grad():
        for images, labels in probe.sample(samples, batch_size):
            counted += len(labels)
            intact = float(probe.loss(probe.model(images), labels))
            for name, rate in rates.items():
                for _ in range(repeats):
                    gates = {name: _dropout(rate, (len(labels), groups[name].channels), images, generator)}
                    with gated(probe.model, groups, gates, where="read"):
                        dropped = float(probe.loss(probe.model(images), labels))
                    increases[name] += scales[name] * (dropped - intact) / repeats * len(labels)
            probe.charge(forward=len(labels) * (1 + repeats * len(rates)))
    return {name: increase / max(counted, 1) for name, increase in increases.items()}


def _dropout(rate: float, shape: tuple[int, int], like: Tensor, generator: torch.Generator) -> Tensor:
    """A gate per sample and channel: 0 with probability `rate`, else what keeps the mean."""
    kept = torch.rand(shape, generator=generator, dtype=torch.float64) >= rate
    return (kept / (1.0 - rate)).to(like)
