"""Entries as folders on a disk or a network file system: written beside their place, then renamed.

root/ab/abcdef.../    an entry: its files, and manifest.json
root/drafts/          entries that are being written or erased
root/leases/ ...      marks: empty files
"""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trainables.store import eviction
from trainables.store.entries import Mark
from trainables.store.manifest import MANIFEST, Manifest, read_manifest

ABANDONED = 24 * 3600.0  # seconds after which a draft of another machine, or files without a manifest, are nobody's


class Folder:
    """Entries under `root`, which is made where it is not there (OSError where it cannot be)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def all_keys(self) -> set[str]:
        """Of every entry, and of those that are just being evicted: a look at each manifest would be dear over NFS."""
        shelves = [shelf.name for shelf in os.scandir(self.root) if len(shelf.name) == 2]
        return {entry.name for shelf in shelves for entry in os.scandir(self.root / shelf)}

    def present(self, keys: Iterable[str]) -> set[str]:
        """Those that are there."""
        return {key for key in keys if (self._place(key) / MANIFEST).is_file()}

    def manifest(self, key: str) -> Manifest | None:
        """What the entry consists of; None where there is none. Raises Damaged."""
        path = self._place(key) / MANIFEST
        try:
            return read_manifest(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None

    def folder(self, key: str, manifest: Manifest) -> Path:
        """Its files, checked. Raises Damaged."""
        manifest.check(self._place(key))
        return self._place(key)

    def draft(self, key: str) -> Path:
        """A new folder to write an entry in; its name says who writes."""
        draft = self.root / "drafts" / f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}-{key[:16]}"
        draft.mkdir(parents=True)
        return draft

    def publish(self, key: str, draft: Path, manifest: Manifest) -> Path:
        """Rename a draft to its place; one that is there stays, for equal keys mean equal content.

        Nothing is synced here: what a power cut tears, its checksums tell, and it is computed again.
        """
        place = self._place(key)
        (draft / MANIFEST).write_bytes(manifest.written())
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(draft, place)
        except OSError:
            if (place / MANIFEST).is_file():  # another writer was first
                return place
            if not place.is_dir():
                raise
            self._throw_away(place)  # left by an eviction that died
            os.rename(draft, place)
        return place

    def withdraw(self, key: str) -> bytes | None:
        """Take the manifest away; the files stay."""
        path = self._place(key) / MANIFEST
        try:
            content = path.read_bytes()
            path.unlink()
        except FileNotFoundError:
            return None
        return content

    def reinstate(self, key: str, withdrawn: bytes) -> None:
        """Put the manifest back."""
        place = self._place(key)
        draft = place / f"{MANIFEST}.{uuid.uuid4().hex}"
        draft.write_bytes(withdrawn)
        draft.rename(place / MANIFEST)

    def erase(self, key: str, withdrawn: bytes) -> None:
        """Delete the files, out of sight first."""
        self._throw_away(self._place(key))

    def mark(self, kind: Mark, name: str) -> None:
        """Leave a mark."""
        path = self.root / kind / name
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def unmark(self, kind: Mark, name: str) -> None:
        """Take a mark away, where it is there."""
        (self.root / kind / name).unlink(missing_ok=True)

    def marks(self, kind: Mark) -> list[str]:
        """The names of all marks of a kind."""
        try:
            return os.listdir(self.root / kind)
        except FileNotFoundError:
            return []

    def tidy(self) -> None:
        """Delete the drafts of writers that died, and entries whose eviction was cut short."""
        for draft in (self.root / "drafts").glob("*"):
            if _is_abandoned(draft):
                shutil.rmtree(draft, ignore_errors=True)
        for place in self.root.glob("??/*"):
            if not (place / MANIFEST).exists() and _age(place) > ABANDONED:
                self._throw_away(place)

    def free_some(self) -> bool:
        """Evict what is worth least, about as much as the largest entry takes."""
        held = eviction.look(self, {})
        wanted = max((manifest.size for manifest in held.manifests.values()), default=0)
        return eviction.make_room(self, held, held.size - wanted).size < held.size

    def _throw_away(self, place: Path) -> None:
        gone = self.draft(place.name)
        try:
            os.rename(place, gone)  # an empty folder may be renamed over
        except OSError:
            gone.rmdir()
            return
        if (gone / MANIFEST).exists():  # published anew in this moment
            with suppress(OSError):
                os.rename(gone, place)
                return
        shutil.rmtree(gone, ignore_errors=True)

    def _place(self, key: str) -> Path:
        return self.root / key[:2] / key


def _is_abandoned(draft: Path) -> bool:
    """Whether its writer is dead: known for this machine's processes, guessed by age for others."""
    host, _, rest = draft.name.rpartition("-")[0].rpartition(".")[0].rpartition(".")
    if host == socket.gethostname() and rest.isdigit():
        try:
            os.kill(int(rest), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    return _age(draft) > ABANDONED


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
