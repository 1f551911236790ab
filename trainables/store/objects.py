"""Entries behind an address, where nothing can be renamed: files first, the manifest last. Without it they are nothing.

manifests/KEY.json           one write, and the entry is there
files/KEY/GENERATION/...     each writer's own files; a manifest names the generation that counts
leases/, pins/, uses/        marks: empty files

Every machine keeps copies in a folder of its own, so that an entry is downloaded once; they are bounded too.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from spaces.remote import Remote
from trainables.store import eviction
from trainables.store.entries import Mark
from trainables.store.folder import ABANDONED, Folder
from trainables.store.manifest import Damaged, Manifest, read_manifest

COPIES = 20 * 10**9  # bytes of one store's copies on a machine
FEW = 4  # keys that are asked for one by one; for more, one listing is cheaper


class Objects:
    """Entries under an address; copies of them under `copies`."""

    def __init__(self, address: str, *, copies: Path | None = None) -> None:
        self._remote = Remote(address)
        self._copies = Folder(copies if copies is not None else copies_of(address))

    def all_keys(self) -> set[str]:
        """Of every entry."""
        return {name.removesuffix(".json") for name in self._remote.names("manifests")}

    def present(self, keys: Iterable[str]) -> set[str]:
        """Those that are there."""
        asked = set(keys)
        if len(asked) > FEW:
            return self.all_keys() & asked
        return {key for key in asked if self._remote.present([_manifest(key)])}

    def manifest(self, key: str) -> Manifest | None:
        """What the entry consists of; None where there is none. Raises Damaged."""
        content = self._remote.read(_manifest(key))
        return None if content is None else read_manifest(content, f"{self._remote.address}/{_manifest(key)}")

    def folder(self, key: str, manifest: Manifest) -> Path:
        """This machine's copy of the files, checked. Raises Damaged where what is stored is not what was written."""
        with suppress(Damaged, FileNotFoundError):
            copied = self._copies.manifest(key)
            if copied is not None and copied.files == manifest.files:
                return self._copies.folder(key, manifest)
        eviction.remove(self._copies, key)
        try:
            return self._downloaded(key, manifest)
        except FileNotFoundError as error:
            raise Damaged(f"{error} is missing") from error
        except OSError:
            self.free_some()  # there was no room for the copy, it may be
            return self._downloaded(key, manifest)

    def draft(self, key: str) -> Path:
        """A new folder of this machine to write an entry in."""
        return self._copies.draft(key)

    def publish(self, key: str, draft: Path, manifest: Manifest) -> Path:
        """Upload a draft and then its manifest. An entry that is there stays, for equal keys mean equal content."""
        generation = f"{time.time():.0f}-{uuid.uuid4().hex[:12]}"
        place = f"files/{key}/{generation}"
        manifest = replace(manifest, generation=generation)
        for name in manifest.files:
            self._remote.upload(draft / name, f"{place}/{name}")
        if not self._remote.create(_manifest(key), manifest.written()):
            self._remote.delete_folder(place)
        folder = self._copies.publish(key, draft, manifest)
        self._keep_copies(COPIES)
        return folder

    def withdraw(self, key: str) -> bytes | None:
        """Take the manifest away; the files stay."""
        content = self._remote.read(_manifest(key))
        if content is not None:
            self._remote.delete(_manifest(key))
        return content

    def reinstate(self, key: str, withdrawn: bytes) -> None:
        """Put the manifest back, unless a newer one came."""
        self._remote.create(_manifest(key), withdrawn)

    def erase(self, key: str, withdrawn: bytes) -> None:
        """Delete the files that a withdrawn manifest names, or all of the key where it names none."""
        try:
            place = f"files/{key}/{read_manifest(withdrawn, key).generation}"
        except Damaged:
            place = f"files/{key}"
        self._remote.delete_folder(place)

    def mark(self, kind: Mark, name: str) -> None:
        """Leave a mark; what is in use there is in use here."""
        if kind != "uses":
            self._copies.mark(kind, name)
        self._remote.write(f"{kind}/{name}", b"")

    def unmark(self, kind: Mark, name: str) -> None:
        """Take a mark away, where it is there."""
        self._copies.unmark(kind, name)
        self._remote.delete(f"{kind}/{name}")

    def marks(self, kind: Mark) -> list[str]:
        """The names of all marks of a kind."""
        return self._remote.names(kind)

    def tidy(self) -> None:
        """Delete files of uploads and evictions that were cut short a day ago or longer."""
        self._copies.tidy()
        for key in set(self._remote.names("files")) - self.all_keys():
            for generation in self._remote.names(f"files/{key}"):
                begun = generation.partition("-")[0]
                if begun.isdigit() and time.time() - float(begun) > ABANDONED:
                    self._remote.delete_folder(f"files/{key}/{generation}")

    def free_some(self) -> bool:
        """Give up copies: it is this machine that has no room."""
        held = eviction.look(self._copies, {})
        return eviction.make_room(self._copies, held, 0).size < held.size

    def _downloaded(self, key: str, manifest: Manifest) -> Path:
        draft = self._copies.draft(key)
        try:
            for name in manifest.files:
                self._remote.download(f"files/{key}/{manifest.generation}/{name}", draft / name)
            manifest.check(draft)
            folder = self._copies.publish(key, draft, manifest)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._keep_copies(COPIES)
        return folder

    def _keep_copies(self, limit: int) -> None:
        eviction.make_room(self._copies, eviction.look(self._copies, {}), limit)


def copies_of(address: str) -> Path:
    """The folder of this machine's copies of a store."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "prunefront" / "stages" / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


def _manifest(key: str) -> str:
    return f"manifests/{key}.json"
