"""Who uses which entry: leases that lapse by themselves, pins that stay until they are taken away, and past uses.

All are marks whose names say everything, so that one listing answers for all entries:

leases/KEY.HOLDER.UNTIL    in use until then (seconds since 1970); renewed while its holder lives
pins/KEY.OWNER             not to be evicted, whatever it is worth
uses/KEY.WHEN.HOLDER       a trial began there

Clocks of machines that share a store may differ by seconds, not by minutes.
"""

import atexit
import os
import queue
import socket
import threading
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Set
from contextlib import suppress

from trainables.store.entries import Entries

RESTARTED = 900.0  # seconds in which a trial whose worker died begins again at its restart point
HANDED_OVER = 120.0  # seconds in which the search hears of a finished trial and pins its end if it is on the front


class Lease:
    """What one trial holds: its restart point, and for a moment the next one beside it.

    Let go of when the object goes or the process ends by itself. When the process is killed the lease lapses, and until
    then the trial, begun again, finds its restart point where it was.
    """

    def __init__(self, entries: Entries) -> None:
        self._held = _Held(entries)
        # A finalizer may run anywhere, inside a client of the store too: it only leaves word, the thread does the work.
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._renewer: threading.Thread | None = None
        weakref.finalize(self, self._over.put, None).atexit = False

    def take(self, key: str) -> None:
        """Hold this entry too. A store that cannot be written gives no leases."""
        self._held.take(key, RESTARTED)
        if self._renewer is None:
            self._renewer = threading.Thread(target=_renew, args=(self._held, self._over), daemon=True)
            self._renewer.start()

    def keep_only(self, key: str) -> None:
        """Hold no other entry any more."""
        for other in self._held.all_keys():
            if other != key:
                self._held.drop(other)

    def drop(self, key: str) -> None:
        """Hold this one no more."""
        self._held.drop(key)

    def hand_over(self, key: str) -> None:
        """The trial has ended here: its last entry is held for the moment that the search needs to hear of it."""
        self._held.take(key, HANDED_OVER)
        self._held.leave(key)


class _Held:
    """The marks of one holder; the trial's thread and the one that renews both come here."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._holder = f"{socket.gethostname().replace('.', '-')}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._marks: dict[str, str] = {}
        self._lock = threading.Lock()
        _HELD.add(self)

    def all_keys(self) -> list[str]:
        with self._lock:
            return list(self._marks)

    def take(self, key: str, seconds: float) -> None:
        with self._lock:
            self._write(key, seconds)

    def drop(self, key: str) -> None:
        with self._lock:
            self._unmark(self._marks.pop(key, None))

    def drop_all(self) -> None:
        for key in self.all_keys():
            self.drop(key)

    def leave(self, key: str) -> None:
        """Let the mark lapse by itself."""
        with self._lock:
            self._marks.pop(key, None)

    def renew(self) -> None:
        with self._lock:
            for key in self._marks:
                self._write(key, RESTARTED)

    def _write(self, key: str, seconds: float) -> None:
        before, mark = self._marks.get(key), f"{key}.{self._holder}.{time.time() + seconds:.0f}"
        with suppress(OSError):
            self._entries.mark("leases", mark)
            self._marks[key] = mark
            if before != mark:
                self._unmark(before)

    def _unmark(self, mark: str | None) -> None:
        if mark is not None:
            with suppress(OSError):
                self._entries.unmark("leases", mark)


def _renew(held: _Held, over: "queue.SimpleQueue[None]") -> None:
    while True:
        try:
            over.get(timeout=RESTARTED / 3)
        except queue.Empty:
            held.renew()
        else:
            held.drop_all()
            return


_HELD: "weakref.WeakSet[_Held]" = weakref.WeakSet()


@atexit.register
def _let_go() -> None:
    """A process that ends by itself leaves nothing in use."""
    for held in list(_HELD):
        held.drop_all()


def note_use(entries: Entries, key: str) -> None:
    """Write down that a trial began at this entry."""
    with suppress(OSError):
        entries.mark("uses", f"{key}.{time.time():.0f}.{uuid.uuid4().hex[:8]}")


def protected(entries: Entries) -> set[str]:
    """The keys that must not be evicted now: pinned ones, and those with a lease that has not lapsed."""
    keys = {name.partition(".")[0] for name in entries.marks("pins")}
    now = time.time()
    for name in entries.marks("leases"):
        key, _, until = name.partition(".")[0], *name.rpartition(".")[1:]
        if until.isdigit() and float(until) >= now:
            keys.add(key)
        else:
            with suppress(OSError):
                entries.unmark("leases", name)
    return keys


def uses(entries: Entries) -> Counter[str]:
    """How many trials began at each entry."""
    return Counter(name.partition(".")[0] for name in entries.marks("uses"))


def forget(entries: Entries, keys: Set[str]) -> None:
    """Take away the marks of past uses of entries that are gone."""
    for name in entries.marks("uses") if keys else ():
        if name.partition(".")[0] in keys:
            entries.unmark("uses", name)
