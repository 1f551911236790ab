"""A search's result as others take it: the front, the baseline and the counts, as JSON, CSV or a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracking.front import Objectives, Point, knee, recommended
from tracking.names import flat_params


@dataclass(frozen=True)
class Front:
    """The front of one search, cheapest first; `points` are all full-length trials, the front's among them."""

    experiment: str
    hypervolume: float | None
    baseline: Point | None
    front: Sequence[Point]
    points: Sequence[Point]
    trials: Mapping[str, int]  # finished, stopped, failed
    objectives: Objectives
    search_run_id: str | None = None

    @property
    def recommended(self) -> Point | None:
        """What `export` takes when no budget is given; None while nothing has finished."""
        return recommended(self.front, self.baseline) if self.front else None

    @property
    def knee(self) -> Point | None:
        """Where the front bends most; None while nothing has finished."""
        return knee(self.front) if self.front else None

    def to_json(self) -> dict[str, Any]:
        """What `front --json` prints."""
        return {
            "experiment": self.experiment,
            "hypervolume": self.hypervolume,
            "baseline": self.baseline.to_json() if self.baseline else None,
            "front": [point.to_json() for point in self.front],
            "trials": dict(self.trials),
        }

    def to_csv(self) -> str:
        """A row per point of the front: what it is, its metrics, every choice of its plan."""
        rows = []
        for point in self.front:
            row = point.to_json()
            plan = row.pop("plan")
            rows.append({**row, **flat_params(plan)})
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names or ["run_id", "accuracy", "keep_macs", "macs", "params"])
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
