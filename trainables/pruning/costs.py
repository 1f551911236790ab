"""What a network costs at any widths: multiply-adds (MACs) of one sample, and parameters, both exact.

A convolution or linear layer does (positions x kernel) multiply-adds per element of its weight, and a weight's sides
are linear in the widths of the groups that touch them. Layers without weights (attention products) are constants.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from trainables.pruning.groups import Group
from trainables.pruning.ledger import Ledger


@dataclass(frozen=True)
class Side:
    """One dimension's length: what is fixed, and what each group adds per channel."""

    fixed: int
    per_channel: tuple[tuple[str, int], ...] = ()

    def length(self, widths: Mapping[str, int]) -> int:
        """The length at the given widths."""
        return self.fixed + sum(each * widths[name] for name, each in self.per_channel)


@dataclass(frozen=True)
class Term:
    """factor x the product of the sides."""

    module: str
    factor: int
    sides: tuple[Side, ...] = ()

    def value(self, widths: Mapping[str, int]) -> int:
        """The term at the given widths."""
        total = self.factor
        for side in self.sides:
            total *= side.length(widths)
        return total


@dataclass(frozen=True)
class Costs:
    """MACs and parameters as functions of the widths, {group: channels}; groups not named stay as traced."""

    traced_widths: Mapping[str, int]
    mac_terms: tuple[Term, ...]
    parameter_terms: tuple[Term, ...] = field(repr=False)

    def macs(self, widths: Mapping[str, int] = {}) -> int:
        """Multiply-adds of one sample's forward pass."""
        full = {**self.traced_widths, **widths}
        return sum(term.value(full) for term in self.mac_terms)

    def params(self, widths: Mapping[str, int] = {}) -> int:
        """Elements of all parameters; shared ones once."""
        full = {**self.traced_widths, **widths}
        return sum(term.value(full) for term in self.parameter_terms)

    def layer_macs(self, widths: Mapping[str, int] = {}) -> dict[str, int]:
        """Multiply-adds by module, in network order."""
        full = {**self.traced_widths, **widths}
        layers: dict[str, int] = {}
        for term in self.mac_terms:
            layers[term.module] = layers.get(term.module, 0) + term.value(full)
        return layers


def costs_of(
    model: nn.Module,
    ledger: Ledger,
    groups: Mapping[str, Group],
    counted: list[tuple[str, int]],
    constant: list[tuple[str, int]],
) -> Costs:
    """Costs from a trace: `counted` holds (weight, MACs per element), `constant` (module, MACs)."""
    each: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for group in groups.values():
        for part in group.slices:
            each.setdefault((part.tensor, part.dim), []).append((group.name, part.positions.shape[1]))
    widths = {name: group.channels for name, group in groups.items()}
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}

    def sides(tensor: str) -> tuple[int, tuple[Side, ...]]:
        factor, found = 1, []
        for dim, size in enumerate(shapes[tensor]):
            parts = tuple(each.get((tensor, dim), ()))
            if parts:
                found.append(Side(size - sum(widths[name] * n for name, n in parts), parts))
            else:
                factor *= size
        return factor, tuple(found)

    parameter_terms = []
    for name in shapes:
        factor, found = sides(name)
        parameter_terms.append(Term(name.rpartition(".")[0], factor, found))
    mac_terms = []
    for weight, factor in counted:
        _, found = sides(weight)
        kernel = 1
        for dim, size in enumerate(shapes[weight][:2]):
            if (weight, dim) not in each:
                kernel *= size
        mac_terms.append(Term(weight.rpartition(".")[0], factor * kernel, found))
    mac_terms += [Term(module, macs) for module, macs in constant]
    return Costs(widths, tuple(mac_terms), tuple(parameter_terms))
