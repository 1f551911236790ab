"""Where a study's files lie: its log and what belongs to this machine, its stages, and the copy of its log.

With a folder as `resources.storage` all lies in STORAGE/NAME. With an address, sealed parts of the log and the stages
lie there, and what must be a folder (the log's tail, its lock, what waits to be written) in this machine's state
folder: $XDG_STATE_HOME/prunefront (~/.local/state/prunefront) / digest of the address / NAME.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spaces.remote import folder_of, is_address
from spaces.study import Study


@dataclass(frozen=True)
class Places:
    """The places of one study."""

    home: Path  # of the log; on a cluster without an address for the storage, all nodes must see it
    address: str | None  # to which sealed parts of the log are copied
    store: str  # folder or address of the stages
    store_bytes: int | None

    @property
    def stages(self) -> dict[str, Any]:
        """What a worker opens the stage store with: `StageStore(**stages)`."""
        return {"root": self.store, "limit": self.store_bytes}

    @property
    def shown(self) -> str:
        """Where the user finds the study."""
        return self.address or str(self.home)


def places_of(study: Study) -> Places:
    """The places that a study's resources name."""
    resources, name = study.resources, study.name
    if is_address(resources.storage):
        address = f"{resources.storage.rstrip('/')}/{name}"
        home = _state(resources.storage.rstrip("/")) / name
        store = f"{address}/store"
    else:
        home = Path(os.path.abspath(folder_of(resources.storage))) / name
        address, store = None, str(home / "store")
    if resources.store is not None:
        store = resources.store if is_address(resources.store) else os.path.abspath(folder_of(resources.store))
    return Places(home, address, store, resources.store_bytes)


def _state(storage: str) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    return state / "prunefront" / hashlib.sha256(storage.encode()).hexdigest()[:12]
