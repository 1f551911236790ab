"""The stage store: checkpoints by boundary key in one folder that every worker sees.

An entry appears whole or not at all: it is written beside its place and renamed. Equal keys mean equal content,
so that two writers of one key agree, and the second one's work is thrown away.
"""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from spaces.errors import UserError


class StageStore:
    """Checkpoints by key under `root`, a folder (on a cluster: one that all nodes share)."""

    def __init__(self, root: str | Path) -> None:
        if "://" in str(root):
            raise UserError(f"a stage store needs a folder that every worker sees; got the address '{root}'")
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write the stage store at {self.root}: {error.strerror}") from error

    def has(self, key: str) -> bool:
        """Whether the boundary is stored."""
        return self._place(key).is_dir()

    def fetch(self, key: str) -> Path | None:
        """The folder of the boundary's checkpoint, or None."""
        place = self._place(key)
        return place if place.is_dir() else None

    def put(self, key: str, write: Callable[[Path], None]) -> Path:
        """Store what `write` puts into the folder it is given; returns where it lies. A stored key is left as it is."""
        place = self._place(key)
        if place.is_dir():
            return place
        draft = self.root / "drafts" / f"{key[:16]}-{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        try:
            write(draft)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(draft, place)
            except OSError:
                if not place.is_dir():  # another writer was first: fine; anything else is not
                    raise
            _sync_folder(place.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return place

    def discard(self, key: str) -> None:
        """Take out an entry that proved damaged; it will be computed again."""
        shutil.rmtree(self._place(key), ignore_errors=True)

    def _place(self, key: str) -> Path:
        return self.root / key[:2] / key


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
