"""The event log: one study's facts in order, on disk before anything else hears of them; the one source of truth.

home/events/000000.jsonl, 000001.jsonl ...   sealed segments, never written again (object stores cannot append)
home/events/tail.jsonl                       what came after the last seal; every decision and every end is fsynced
home/events/lock, writer.json                one writer at a time, and who it is

A line is an event and its number. A last line that is not whole was being written when its writer died, and is
dropped; anything else that is damaged is an error. A sealed segment ends in a line with its own checksum. Sealed
segments may be copied to an address (`mirror`), and are restored from there.
"""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from spaces.errors import UserError
from tracking.events import Event
from tracking.mirror import Mirror
from tracking.segments import line_of, recover, segment_of, segment_path, tail_path, write_durably

SEGMENT = 512  # events per sealed segment
PASSING = frozenset({"started", "reported"})
"""Facts that a killed process leaves behind, but that a power cut may take with it: their trials repeat them."""
UNCOPIED = 600.0  # seconds after which a copied log seals what there is


class EventLog:
    """The log of one study, open for writing. `open` it; closing lets go of the lock.

    A fact is kept once: `append` of a fact with a known identity changes nothing, so that retries and replays are
    harmless. `warnings` says what was dropped when it was opened.
    """

    def __init__(self, folder: Path, lock: FileLock, segment: int, mirror: Mirror | None) -> None:
        self._folder = folder
        self._lock = lock
        self._segment = segment
        self._mirror = mirror
        restored = () if mirror is None else mirror.pull(folder)
        recovered = recover(folder)
        self.warnings: tuple[str, ...] = (*restored, *recovered.warnings)
        self._events = recovered.events
        self._sealed = recovered.sealed
        self._segments = recovered.segments
        self._known = {identity for event in self._events if (identity := identity_of(event))}
        # Written anew: neither a half-written last line nor lines that a seal already holds may precede new ones.
        unsealed = enumerate(self._events[self._sealed :], start=self._sealed)
        self._unsealed = [line_of(event, number) for number, event in unsealed]
        write_durably(tail_path(folder), b"".join(self._unsealed))
        self._tail = tail_path(folder).open("ab", buffering=0)
        self._sealed_at = time.monotonic()

    @classmethod
    def open(cls, home: Path, *, segment: int = SEGMENT, address: str | None = None) -> Self:
        """The log in `home`, made if it is not there; its sealed segments are copied to `address`.

        Raises UserError when another process writes it, when the folder cannot be written, when the log is damaged.
        """
        folder = home / "events"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock")
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"{_writer(folder)} is already searching in {home}; wait for it or stop it first"
            ) from error
        except OSError as error:
            raise UserError(f"cannot write to {home}: {error.strerror or error}") from error
        mirror = None
        try:
            if address is not None:
                mirror = Mirror(f"{address}/events")
                mirror.hold()
            log = cls(folder, lock, segment, mirror)
            me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            (folder / "writer.json").write_text(json.dumps(me))
            return log
        except BaseException as error:
            if mirror is not None:
                mirror.close()
            lock.release()
            if isinstance(error, OSError):
                raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
            raise

    def append(self, event: Event) -> bool:
        """Write a fact down; False: it was there already. On disk when this returns, unless it is a passing one.

        Raises UserError where it cannot be written; what was written before stays as it is.
        """
        identity = identity_of(event)
        if identity is not None and identity in self._known:
            return False
        line = line_of(event, len(self._events))
        self._write(line, sync=event.kind not in PASSING)
        self._events.append(event)
        self._unsealed.append(line)
        if identity is not None:
            self._known.add(identity)
        is_due = self._mirror is not None and time.monotonic() - self._sealed_at >= UNCOPIED
        if is_due or len(self._events) - self._sealed >= self._segment:
            self._seal()
        return True

    def events(self) -> tuple[Event, ...]:
        """Every fact so far, in the order they were written."""
        return tuple(self._events)

    def close(self) -> None:
        """Let the next writer in; a copied log is sealed and copied to its last fact, once there are trials in it."""
        try:
            if self._mirror is not None:
                if any(event.kind == "proposed" for event in self._events[self._sealed :]) or self._sealed:
                    self._seal()
                self._mirror.close()
        finally:
            self._tail.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: bytes, *, sync: bool) -> None:
        """To the end of the tail: all of it, or an error and none of it."""
        end = self._tail.tell()
        try:
            written = 0
            while written < len(line):
                written += self._tail.write(line[written:]) or 0
            if sync:
                os.fsync(self._tail.fileno())
        except OSError as error:
            with suppress(OSError):
                self._tail.truncate(end)
            reason = error.strerror or error
            raise UserError(f"cannot write the event log: {reason}; --resume goes on", file=self._tail.name) from error

    def _seal(self) -> None:
        """Tail to segment. Dying in between leaves the lines in both; their numbers tell, when next opened."""
        self._sealed_at = time.monotonic()
        if len(self._events) == self._sealed:
            return
        path = segment_path(self._folder, self._segments)
        try:
            write_durably(path, segment_of(self._unsealed, self._sealed))
            write_durably(tail_path(self._folder), b"")
        except OSError:
            return  # the facts are in the tail, and the next event tries again
        self._tail.close()
        self._tail = tail_path(self._folder).open("ab", buffering=0)
        self._sealed = len(self._events)
        self._unsealed.clear()
        self._segments += 1
        if self._mirror is not None:
            self._mirror.push(path)


def read_events(home: Path) -> tuple[Event, ...]:
    """The facts in `home`, without becoming their writer. Raises UserError when there is no log, or a damaged one."""
    folder = home / "events"
    if not folder.is_dir():
        raise UserError(f"no event log in {home}")
    return tuple(recover(folder).events)


def identity_of(event: Event) -> tuple[object, ...] | None:
    """What makes two events the same fact; None for what may happen again and again (a search is opened, closed)."""
    match event.kind:
        case "opened" | "closed":
            return None
        case "warmed":
            return (event.kind, event.body.get("source"))
        case "started":
            return (event.kind, event.trial, event.body.get("attempt"))
        case "reported" | "failed" | "paused" | "stopped":
            return (event.kind, event.trial, event.body.get("epoch"))
        case _:
            return (event.kind, event.trial)


def _writer(folder: Path) -> str:
    try:
        writer = json.loads((folder / "writer.json").read_text())
        since = time.strftime("%H:%M on %Y-%m-%d", time.localtime(writer["since"]))
        return f"process {writer['pid']} on {writer['host']} (since {since})"
    except (OSError, ValueError, KeyError):
        return "another process"
