"""Writes `spaces/plugins.json`: every plug-in of every table, so that a study is checked without importing torch.

Run `python -m trainables.catalogue` after a table changes; a test keeps the file current.
"""

import json
from pathlib import Path
from typing import Any

from trainables.allocations import ALLOCATIONS
from trainables.compensations import COMPENSATIONS
from trainables.criteria import CRITERIA
from trainables.data import DATASETS
from trainables.gates import GATES
from trainables.models import MODELS
from trainables.recoveries import RECOVERIES
from trainables.regrowths import REGROWTHS
from trainables.regularizers import REGULARIZERS
from trainables.schedules import SCHEDULES
from trainables.table import Table, describe
from trainables.training import DECAYS, LOSSES, OPTIMIZERS

TABLES: dict[str, Table[Any]] = {
    table.kind: table
    for table in (
        DATASETS,
        MODELS,
        OPTIMIZERS,
        DECAYS,
        LOSSES,
        CRITERIA,
        ALLOCATIONS,
        SCHEDULES,
        REGULARIZERS,
        GATES,
        REGROWTHS,
        COMPENSATIONS,
        RECOVERIES,
    )
}
FILE = Path(__file__).parent.parent / "spaces" / "plugins.json"


def text() -> str:
    """The catalogue as it should stand in the file."""
    return json.dumps({kind: describe(table) for kind, table in TABLES.items()}, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
