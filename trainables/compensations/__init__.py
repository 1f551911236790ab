"""What is repaired at an event: consumers take over what the channels that go would have told them."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from trainables.compensations.constants import fold_beta
from trainables.compensations.folding import Adjustments
from trainables.compensations.reconstruction import least_squares
from trainables.pruning.groups import Groups
from trainables.pruning.probe import Probe
from trainables.table import Table


class Compensation(Protocol):
    """New values for what stays, worked out while the channels that go are still there; no setting left open."""

    def __call__(self, groups: Groups, kept: Mapping[str, Tensor], probe: Probe, /) -> Adjustments:
        """{parameter or buffer: value of the same shape}, to be taken up before the channels go.

        `kept`: {group: int64 indices of the channels that stay}. The network itself is left as it was found.
        """
        ...


COMPENSATIONS: Table[Compensation] = Table("compensation", least_squares, fold_beta)

__all__ = ["COMPENSATIONS", "Adjustments", "Compensation"]
