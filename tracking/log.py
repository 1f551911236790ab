"""The event log: one study's facts in order, on disk before anything else hears of them; the one source of truth.

home/events/000000.jsonl, 000001.jsonl ...   sealed segments, never written again (object stores cannot append)
home/events/tail.jsonl                       what came after the last seal; every line is fsynced
home/events/lock, writer.json                one writer at a time, and who it is

A line is an event and its number. A last line that is not whole was being written when its writer died, and is
dropped; anything else that is damaged is an error. A sealed segment ends in a line with its own checksum.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from filelock import FileLock, Timeout

from spaces.errors import UserError
from tracking.events import Event

SEGMENT = 512  # events per sealed segment


class EventLog:
    """The log of one study, open for writing. `open` it; closing lets go of the lock.

    A fact is kept once: `append` of a fact with a known identity changes nothing, so that retries and replays are
    harmless. `warnings` says what was dropped when it was opened.
    """

    def __init__(self, folder: Path, lock: FileLock, segment: int) -> None:
        self._folder = folder
        self._lock = lock
        self._segment = segment
        recovered = _read(folder)
        self.warnings: tuple[str, ...] = recovered.warnings
        self._events = recovered.events
        self._sealed = recovered.sealed
        self._segments = recovered.segments
        self._known = {identity for event in self._events if (identity := identity_of(event))}
        # Written anew: neither a half-written last line nor lines that a seal already holds may precede new ones.
        _write_durably(_tail(folder), _lines(self._events[self._sealed :], self._sealed))
        self._tail: BinaryIO = _tail(folder).open("ab")

    @classmethod
    def open(cls, home: Path, *, segment: int = SEGMENT) -> Self:
        """The log in `home`, made if it is not there.

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
        try:
            log = cls(folder, lock, segment)
            me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            (folder / "writer.json").write_text(json.dumps(me))
            return log
        except OSError as error:
            lock.release()
            raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
        except BaseException:
            lock.release()
            raise

    def append(self, event: Event) -> bool:
        """Write a fact down; it is on disk when this returns. False: it was there already."""
        identity = identity_of(event)
        if identity is not None and identity in self._known:
            return False
        self._tail.write(_line(event, len(self._events)))
        self._tail.flush()
        os.fsync(self._tail.fileno())
        self._events.append(event)
        if identity is not None:
            self._known.add(identity)
        if len(self._events) - self._sealed >= self._segment:
            self._seal()
        return True

    def events(self) -> tuple[Event, ...]:
        """Every fact so far, in the order they were written."""
        return tuple(self._events)

    def close(self) -> None:
        """Let the next writer in."""
        self._tail.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _seal(self) -> None:
        """Tail to segment. Dying in between leaves the lines in both; their numbers tell, when next opened."""
        body = _lines(self._events[self._sealed :], self._sealed)
        seal = {"sealed": len(self._events), "sha256": hashlib.sha256(body).hexdigest()}
        _write_durably(self._folder / f"{self._segments:06d}.jsonl", body + json.dumps(seal).encode() + b"\n")
        self._tail.close()
        _write_durably(_tail(self._folder), b"")
        self._tail = _tail(self._folder).open("ab")
        self._sealed = len(self._events)
        self._segments += 1


def read_events(home: Path) -> tuple[Event, ...]:
    """The facts in `home`, without becoming their writer. Raises UserError when there is no log, or a damaged one."""
    folder = home / "events"
    if not folder.is_dir():
        raise UserError(f"no event log in {home}")
    return tuple(_read(folder).events)


def identity_of(event: Event) -> tuple[object, ...] | None:
    """What makes two events the same fact; None for what may happen again and again (a search is opened, closed)."""
    match event.kind:
        case "opened" | "closed":
            return None
        case "started":
            return (event.kind, event.trial, event.body.get("attempt"))
        case "reported" | "failed" | "paused" | "stopped":
            return (event.kind, event.trial, event.body.get("epoch"))
        case _:
            return (event.kind, event.trial)


class _Recovered:
    """What the files hold."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.sealed = 0
        self.segments = 0
        self.warnings: tuple[str, ...] = ()


def _read(folder: Path) -> _Recovered:
    found = _Recovered()
    while (path := folder / f"{found.segments:06d}.jsonl").exists():
        for _, event in _parsed(_unsealed(path), path):
            found.events.append(event)
        found.segments += 1
    found.sealed = len(found.events)
    tail = _tail(folder)
    if not tail.exists():
        return found
    lines = tail.read_bytes().splitlines(keepends=True)
    if lines and not _is_whole(lines[-1]):
        dropped = len(lines.pop())
        found.warnings = (f"{tail}:{len(lines) + 1}: dropped a last line that was never finished ({dropped} bytes)",)
    for number, event in _parsed(lines, tail):
        if number > len(found.events):
            raise UserError(f"event {len(found.events)} is missing before this one ({number})", file=tail, line=1)
        if number == len(found.events):
            found.events.append(event)
    return found


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and "n" in json.loads(line)
    except (ValueError, TypeError):
        return False


def _unsealed(path: Path) -> list[bytes]:
    body, _, seal = path.read_bytes().rstrip(b"\n").rpartition(b"\n")
    body += b"\n"
    try:
        intact = json.loads(seal)["sha256"] == hashlib.sha256(body).hexdigest()
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise UserError("this sealed part of the event log was changed or cut; restore it from a copy", file=path)
    return body.splitlines()


def _parsed(lines: Iterable[bytes], path: Path) -> Iterable[tuple[int, Event]]:
    for at, line in enumerate(lines, start=1):
        try:
            record: dict[str, Any] = json.loads(line)
            yield int(record.pop("n")), Event(**record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "this line of the event log is damaged; restore it, or remove it and all that follow"
            raise UserError(hint, file=path, line=at) from error


def _tail(folder: Path) -> Path:
    return folder / "tail.jsonl"


def _line(event: Event, number: int) -> bytes:
    # NaN and Infinity stay as Python writes them: a loss that blew up is a fact too.
    return json.dumps({"n": number, **asdict(event)}, separators=(",", ":")).encode() + b"\n"


def _lines(events: Iterable[Event], first: int) -> bytes:
    return b"".join(_line(event, number) for number, event in enumerate(events, start=first))


def _write_durably(path: Path, content: bytes) -> None:
    """All of it or nothing, also when the power fails."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _writer(folder: Path) -> str:
    try:
        writer = json.loads((folder / "writer.json").read_text())
        since = time.strftime("%H:%M on %Y-%m-%d", time.localtime(writer["since"]))
        return f"process {writer['pid']} on {writer['host']} (since {since})"
    except (OSError, ValueError, KeyError):
        return "another process"
