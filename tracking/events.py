"""What happens in a search, as facts: the one vocabulary that the event log keeps and MLflow is written from."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["opened", "proposed", "started", "reported", "finished", "stopped", "failed", "closed"]


@dataclass(frozen=True)
class Event:
    """One fact. `trial` is the proposal's number (0: the dense baseline); None for the search itself.

    body by kind:
      opened    {"study", "fingerprint", "objectives": {metric: "maximize" | "minimize"}, "constraints", "seed"}
      proposed  {"plan": the whole plan, "choices": {path: value} of what the study varies}
      started   {"attempt": from 1, "node": host name, "from_epoch": epochs inherited from a stored boundary}
      reported  {"epoch": epochs completed, ...metrics}
      finished  {"epoch", ...metrics, "checkpoint": key of the last boundary}
      stopped   {"epoch", ...metrics, "reason"}
      failed    {"epoch", "reason"}
      closed    {"reason": "budget spent" | "interrupted"}
    """

    kind: Kind
    trial: int | None = None
    plan_hash: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)  # seconds since 1970
