"""How runs are called and what their parameters are: flat, readable, one column each in a table of runs."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST_VALUE = 6000  # characters; MLflow refuses more


def trial_name(trial: int, plan: Mapping[str, Any]) -> str:
    """`#007 frs·every·given keep 0.21`; the baseline is `#000 dense`, a network of other widths `#003 adjusted`."""
    prune = plan.get("prune")
    if not prune:
        return f"#{trial:03d} {'adjusted' if trial and plan.get('model', {}).get('widths') else 'dense'}"
    parts = "·".join(_short(prune[part]["name"]) for part in ("criterion", "schedule", "allocation") if part in prune)
    return f"#{trial:03d} {parts} {_amount(prune.get('amount') or {})}".rstrip()


def _amount(amount: Mapping[str, Any]) -> str:
    if amount.get("keep_macs") is not None:
        return f"keep {amount['keep_macs']:.2g}"
    if amount.get("keep_channels") is not None:
        return f"keep {amount['keep_channels']:.2g} of channels"
    if amount.get("keep_weights") is not None:
        return f"keep {amount['keep_weights']:.2g} of weights"
    if amount.get("filters_per_event") is not None:
        return f"{amount['filters_per_event']} filters per event"
    return ""


def _short(name: str) -> str:
    return name.rpartition(":")[2]  # a user's own plug-in by its function


def flat_params(plan: Mapping[str, Any]) -> dict[str, str]:
    """Every choice a plan made: `prune.criterion` = frs, `prune.criterion.mode` = stable, `train.epochs` = 30.

    A plug-in stands under its own path by name, its settings below it; what is null is left out.
    """
    params = dict(_leaves("", plan))
    if not plan.get("prune"):
        params["prune"] = "none"
    return params


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            below = path if name == "name" and path else f"{path}.{name}" if path else str(name)
            yield from _leaves(below, item)
    elif isinstance(value, list | tuple) and any(isinstance(item, int | float | Mapping | list) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}.{index}", item)
    elif isinstance(value, list | tuple):
        yield _key(path), ", ".join(map(str, value)) or "none"
    elif value is not None:
        yield _key(path), f"{value:g}" if isinstance(value, float) else str(value)[:LONGEST_VALUE]


def _key(path: str) -> str:
    return re.sub(r"[^\w.\- ]", "_", path)[:250]  # what MLflow allows in a name
