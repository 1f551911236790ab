"""The criterion that asks the gate which has learned with the network."""

from spaces.errors import UserError
from trainables.pruning.groups import Groups, Scores
from trainables.pruning.probe import Probe


def gate(groups: Groups, probe: Probe, /) -> Scores:
    """Channels that the plan's gate holds most firmly shut matter least."""
    missing = [name for name in groups if name not in probe.gates]
    if missing:
        raise UserError(f"criterion 'gate' needs a gate that acts before the event; there is none on '{missing[0]}'")
    return {name: probe.gates[name] for name in groups}
