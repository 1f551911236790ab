"""What a finished network says of its channel groups: what the MACs of each are worth, and how many they are.

Numbers only, so that whoever adjusts widths needs neither the network nor torch. Does NOT cover how widths are
adjusted.
"""

from typing import Any

from spaces.plan import Utilization
from trainables.pruning.graph import Traced
from trainables.pruning.probe import Probe
from trainables.pruning.utilization import utilization
from trainables.training.loop import EVALUATION_BATCH, require_finite


def ratios_of(probe: Probe, network: Traced, wanted: Utilization, *, epoch: int) -> dict[str, float]:
    """{group: FLOPs utilization ratio} on what the probe samples. Raises TrialFailed where one is no number."""
    ratios = utilization(
        probe,
        network.graph.groups,
        network.costs,
        drop=wanted.drop,
        repeats=wanted.repeats,
        samples=wanted.samples,
        batch_size=EVALUATION_BATCH,
    )
    for name, ratio in ratios.items():
        require_finite(ratio, f"the utilization ratio of '{name}'", epoch=epoch)
    return ratios


def described(network: Traced, ratios: dict[str, float]) -> dict[str, Any]:
    """A JSON value: `groups`, [name, width, ratio] in network order, and `terms`, whose sum is the network's MACs.

    A term is a factor and the sides it is multiplied by; a side is a fixed length and what each group adds per
    channel.
    """
    terms = [
        [term.factor, [[side.fixed, dict(side.per_channel)] for side in term.sides]] for term in network.costs.mac_terms
    ]
    widths = network.costs.traced_widths
    # A group that costs nothing has no ratio: nothing is worth nothing.
    return {"groups": [[name, width, ratios.get(name, 0.0)] for name, width in widths.items()], "terms": terms}
