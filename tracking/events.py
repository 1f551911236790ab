"""What happens in a search, as facts: the one vocabulary that the event log keeps and MLflow is written from."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "opened", "warmed", "proposed", "started", "reported", "paused", "finished", "stopped", "failed", "closed"
]


@dataclass(frozen=True)
class Event:
    """One fact. `trial` is the proposal's number (0: the dense baseline); None for the search itself.

    body by kind:
      opened    {"study", "fingerprint", "objectives": {metric: "maximize" | "minimize"}, "constraints", "seed"}
      warmed    {"source", "trials": [{"choices", "metrics"}]}: what another search found, for the sampler
      proposed  {"plan": the whole plan, "choices": {path: value} of what the study varies}
      started   {"attempt": from 1, "node": host name, "from_epoch": epochs inherited from a stored boundary,
                 "saves": epochs after which it saves its boundary for others}
      reported  {"epoch": epochs completed, ...metrics}
      finished  {"epoch", ...metrics, "checkpoint": key of the last boundary}
      paused    {"epoch", "reason"}: it goes on later from its boundary
      stopped   {"epoch", ...metrics, "by": "constraint" | "rank", "reason"}
      failed    {"epoch", "reason"}
      closed    {"reason": "budget spent" | "interrupted"}
    """

    kind: Kind
    trial: int | None = None
    plan_hash: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)  # seconds since 1970
