"""What passes over a network found, kept in the stage store under the boundary where it was found.

Whoever comes by the same boundary and asks the same question is told the same, and need not pass again. Does NOT
cover what is asked (`pruning.utilization`).
"""

import json
import os
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from spaces.plan import digest
from trainables.store import StageStore, Worth

FILE = "finding.json"


@dataclass(frozen=True)
class Finding:
    """Numbers by name, and the training MACs of the passes that found them."""

    values: dict[str, float]
    macs: int


@dataclass(frozen=True)
class Findings:
    """What is known of the network at one place of a trial.

    `place`, a JSON value, must hold everything that the network and the passes over it depend on beside the question:
    the key of the boundary above all. Without a store nothing is ever known.
    """

    store: StageStore | None = None
    place: Any = None

    def after(self, change: Any) -> "Findings":
        """Of the network that `change` made of this one; a JSON value too."""
        return Findings(self.store, [self.place, change])

    def recall(self, question: Any) -> Finding | None:
        """The answer that was kept, None where there is none. One that cannot be read is thrown away."""
        key, store = self._key(question), self._opened()
        folder = None if store is None or not store.has(key) else store.fetch(key)
        if store is None or folder is None:
            return None
        try:
            written = json.loads((folder / FILE).read_text())
            values = {str(name): float(value) for name, value in written["values"].items()}
            return Finding(values, int(written["macs"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            store.discard(key)
            return None

    def keep(self, question: Any, finding: Finding) -> None:
        """Write an answer down, unless it is no number: JSON has none of those."""
        store = self._opened()
        if store is None or not all(isfinite(value) for value in finding.values.values()):
            return

        def write(folder: Path) -> None:
            with (folder / FILE).open("w") as file:
                json.dump(asdict(finding), file, allow_nan=False)  # written so that every bit comes back
                file.flush()
                os.fsync(file.fileno())

        store.put(self._key(question), write, worth=Worth(macs=finding.macs))

    def _opened(self) -> StageStore | None:
        """The same place by a way of its own: the trial's holds the boundary that it would begin at again."""
        return None if self.store is None else StageStore(self.store.root, limit=self.store.limit)

    def _key(self, question: Any) -> str:
        return digest(["finding", self.place, question])
