"""The study's constraints before a trial's end: what its plan says beforehand, and what its final widths say."""

from collections.abc import Mapping

from spaces.plan import Plan
from spaces.study import Study

WIDTHS = ("macs", "keep_macs", "params", "keep_params", "nonzero_params", "keep_weights")
"""Metrics that follow from a network's widths and masks: they stay as they are after the last event."""


def plan_problem(study: Study, plan: Plan) -> str | None:
    """Why the plan cannot meet a constraint, whatever training brings; None where it may.

    An event ends at or under its amount, so that an amount says what the trial will cost.
    """
    if plan.prune is None:
        return None
    for unit, amount in plan.prune.amount:
        bounds = study.constraints.get(unit, {})
        if amount is None or unit == "filters_per_event":
            continue
        if amount > bounds.get("max", amount):
            return f"amount {unit} {amount:g} is above the constraint's max {bounds['max']:g}"
        if amount < bounds.get("min", amount):
            return f"amount {unit} {amount:g} is under the constraint's min {bounds['min']:g}"
    return None


def excess(value: float, side: str, bound: float) -> float:
    """How far `value` lies beyond a bound, as a fraction of it; 0 or less is within. `side`: "max" or "min"."""
    beyond = value - bound if side == "max" else bound - value
    return beyond / max(abs(bound), 1e-12)


def broken(study: Study, metrics: Mapping[str, float]) -> str | None:
    """The constraint on a network's cost that its widths break; None where all hold or none is known yet."""
    for metric in (*WIDTHS, "latency_ms"):
        value = metrics.get(metric)
        if value is None:
            continue
        for side, bound in study.constraints.get(metric, {}).items():
            if excess(value, side, bound) > 0.0:
                where = "above" if side == "max" else "under"
                return f"{metric} {value:g} is {where} the constraint's {side} {bound:g}"
    return None
