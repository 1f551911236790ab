"""The stage store: checkpoints by boundary key, at one place that every worker sees.

An entry appears whole or not at all, is checked byte for byte when it is fetched, and is computed again rather than
trusted when it is not what was written. Equal keys mean equal content: of two writers of one key the second one's work
is thrown away, and studies may share a store. A store that is full or cannot be written stops no trial: it goes on
without saving, and `problem` says why.
"""

import errno
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from safetensors import SafetensorError

from spaces.errors import UserError
from spaces.remote import folder_of, is_address
from trainables.store import eviction
from trainables.store.entries import Entries
from trainables.store.folder import Folder
from trainables.store.leases import Lease, note_use
from trainables.store.manifest import Damaged, Manifest, Worth, manifest_of
from trainables.store.objects import Objects

Write = Callable[[Path], None]

NOTHING_SAID = Worth()
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StageStore:
    """One trial's way into the store at `root`; it holds the entry that the trial would begin at again.

    `limit`: bytes that the store may hold; None: as many as there is room for. Raises UserError where the store cannot
    be had at all.
    """

    def __init__(self, root: str | Path, *, limit: int | None = None) -> None:
        self.root, self.limit = str(root), limit
        self.problem: str | None = None  # why the last boundary was not saved; None where it was
        self._entries = entries_at(self.root)
        self._lease = Lease(self._entries)
        self._manifests = _seen(self.root)
        self._folders: dict[str, Path] = {}  # of entries that this object has put
        self._refused: set[str] = set()  # entries that proved damaged or out of reach

    def has(self, key: str) -> bool:
        """Whether the boundary is stored."""
        return self.deepest([key]) is not None

    def deepest(self, keys: Iterable[str]) -> str | None:
        """The last of these boundaries, given in the order of their chain, that is stored."""
        asked = [key for key in keys if key not in self._refused]
        try:
            found = self._entries.present(asked)
        except OSError as error:
            self.problem = self._said(error)
            return None
        return next((key for key in reversed(asked) if key in found), None)

    def fetch(self, key: str) -> Path | None:
        """The folder of the boundary's checkpoint, checked and from now on in use; None where it is not to be had.

        What proves damaged is taken out; what cannot be had is not asked for again: `has` says no from then on.
        """
        self._lease.take(key)
        try:
            manifest = self._entries.manifest(key)
            folder = None if manifest is None else self._entries.folder(key, manifest)
        except Damaged:
            self.discard(key)
            return None
        except OSError as error:
            self.problem = self._said(error)
            manifest = folder = None
        if manifest is None or folder is None:
            self._refused.add(key)
            self._lease.drop(key)
            return None
        self._lease.keep_only(key)
        self._manifests[key] = manifest
        return folder

    def began_at(self, key: str) -> None:
        """Note that a trial goes on from here: such entries are worth more than others."""
        note_use(self._entries, key)

    def put(self, key: str, write: Write, *, worth: Worth = NOTHING_SAID, after: str | None = None) -> Path | None:
        """Store what `write` puts into the folder it is given; returns where it lies, None where it is not stored.

        A stored key is left as it is. `after`: the boundary this one was computed from, stored still or not.
        """
        try:
            if key not in self._refused and self._entries.present([key]):
                self._hold(key, worth)
                return self._folders.get(key) or self.fetch(key)
            return self._put(key, write, worth, after)
        except (OSError, SafetensorError) as error:
            if not _is_full(error) or not self._frees_some():
                self._give_up(key, self._said(error))
                return None
        try:
            return self._put(key, write, worth, after)
        except (OSError, SafetensorError) as error:
            self._give_up(key, self._said(error))
            return None

    def discard(self, key: str) -> None:
        """Take out an entry that proved damaged; it will be computed again."""
        self._refused.add(key)
        self._folders.pop(key, None)
        self._lease.drop(key)
        try:
            eviction.remove(self._entries, key)
        except OSError as error:
            self.problem = self._said(error)

    def pin(self, key: str, owner: str) -> None:
        """Keep an entry from eviction until its owner lets go of it, also when this process is gone."""
        try:
            self._entries.mark("pins", f"{key}.{owner}")
        except OSError as error:
            self.problem = self._said(error)

    def unpin(self, key: str, owner: str) -> None:
        """Take the owner's pin away."""
        with suppress(OSError):
            self._entries.unmark("pins", f"{key}.{owner}")

    def pinned(self, owner: str) -> set[str]:
        """The keys that an owner has pinned."""
        try:
            return {name.partition(".")[0] for name in self._entries.marks("pins") if name.endswith(f".{owner}")}
        except OSError:
            return set()

    def open(self) -> None:
        """For whoever begins a search: raises UserError where the store cannot be written, and clears it up."""
        try:
            self._entries.mark("pins", "writable")
            self._entries.unmark("pins", "writable")
            self._entries.tidy()
            if self.limit is not None:
                eviction.make_room(self._entries, eviction.look(self._entries, {}), self.limit)
        except OSError as error:
            raise UserError(f"cannot write the stage store at {self.root}: {_reason(error)}") from error

    # ---- how ---------------------------------------------------------------------------------------------------

    def _put(self, key: str, write: Write, worth: Worth, after: str | None) -> Path | None:
        draft = self._entries.draft(key)
        try:
            write(draft)
            manifest = manifest_of(draft, worth, self._ancestors(after, worth))
            if self.limit is not None and manifest.size > self.limit:
                self._give_up(key, f"one boundary takes {manifest.size} bytes, the stage store may hold {self.limit}")
                return None
            self._lease.take(key)
            folder = self._entries.publish(key, draft, manifest)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._manifests[key] = manifest
        self._refused.discard(key)
        if not self._keeps_to_limit(key, after):
            self._give_up(key, f"the {self.limit} bytes of the stage store are all in use")
            return None
        self._hold(key, worth)
        self._folders[key] = folder
        self.problem = None
        return folder

    def _hold(self, key: str, worth: Worth) -> None:
        self._lease.take(key)
        self._lease.keep_only(key)
        if worth.is_end:
            self._lease.hand_over(key)

    def _ancestors(self, after: str | None, worth: Worth) -> dict[str, int]:
        """The stored boundaries on the way, as far as they are known: the last one's own, and itself."""
        before = None if after is None else self._manifests.get(after)
        if after is None or before is None:
            return {}
        return {**before.ancestors, after: before.worth.macs}

    def _keeps_to_limit(self, key: str, after: str | None) -> bool:
        """Evict down to the limit: last of all the trial's restart point so far, then `key` itself."""
        if self.limit is None:
            return True
        held = eviction.make_room(self._entries, self._look(), self.limit)
        if held.size > self.limit and after is not None:
            self._lease.keep_only(key)
            held = eviction.make_room(self._entries, held, self.limit)
        if held.size > self.limit:
            eviction.remove(self._entries, key)
            return False
        return True

    def _frees_some(self) -> bool:
        try:
            return self._entries.free_some()
        except OSError:
            return False

    def _look(self) -> eviction.Holding:
        held = eviction.look(self._entries, self._manifests)
        self._manifests.update(held.manifests)
        return held

    def _give_up(self, key: str, why: str) -> None:
        self._lease.drop(key)
        self.problem = why

    def _said(self, error: Exception) -> str:
        return f"the stage store at {self.root}: {_reason(error)}"


@cache
def _seen(root: str) -> dict[str, Manifest]:
    """Manifests by key that this process has seen in a store: they do not change, and trials come one after another."""
    return {}


def entries_at(root: str) -> Entries:
    """The place that a path or an address names."""
    try:
        return Objects(root) if is_address(root) else Folder(folder_of(root))
    except OSError as error:
        raise UserError(f"cannot write the stage store at {root}: {_reason(error)}") from error


def _is_full(error: Exception) -> bool:
    """Whether there was no room; safetensors says so in words only."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"(os error {number})" in str(error) for number in _FULL)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
