"""The event log's files: what a line, a sealed segment and the tail look like, and what is wrong with a damaged one."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spaces.errors import UserError
from tracking.events import Event

_SEGMENT = re.compile(r"(\d{6})\.jsonl")


@dataclass
class Recovered:
    """What the files hold."""

    events: list[Event] = field(default_factory=list)
    sealed: int = 0  # events in sealed segments
    segments: int = 0
    warnings: tuple[str, ...] = ()


def segment_path(folder: Path, number: int) -> Path:
    """Of a sealed segment."""
    return folder / f"{number:06d}.jsonl"


def tail_path(folder: Path) -> Path:
    """Of what came after the last seal."""
    return folder / "tail.jsonl"


def segment_numbers(names: Iterable[str]) -> list[int]:
    """Of the names that are sealed segments', in order."""
    return sorted(int(match[1]) for name in names if (match := _SEGMENT.fullmatch(name)))


def recover(folder: Path) -> Recovered:
    """All facts, in order. Raises UserError where a file is damaged or missing; changes nothing."""
    found = Recovered()
    there = segment_numbers(path.name for path in folder.iterdir())
    for number in range(there[-1] + 1 if there else 0):
        path = segment_path(folder, number)
        if number not in there:
            raise UserError(
                f"this sealed part of the event log is missing, and {there[-1]:06d}.jsonl is there: put it back from a "
                "copy; nothing was changed",
                file=path,
            )
        found.events += [event for _, event in _parsed(_unsealed(path), path)]
        found.segments += 1
    found.sealed = len(found.events)
    tail = tail_path(folder)
    if tail.exists():
        _read_tail(tail, found)
    return found


def line_of(event: Event, number: int) -> bytes:
    """An event as it is written."""
    # NaN and Infinity stay as Python writes them: a loss that blew up is a fact too.
    return json.dumps({"n": number, **vars(event)}, separators=(",", ":")).encode() + b"\n"


def segment_of(lines: Sequence[bytes], first: int) -> bytes:
    """A sealed segment: the lines of events from number `first` on, and one with their checksum."""
    body = b"".join(lines)
    seal = {"sealed": first + len(lines), "sha256": hashlib.sha256(body).hexdigest()}
    return body + json.dumps(seal).encode() + b"\n"


def is_intact(content: bytes) -> bool:
    """Whether a sealed segment is what was sealed."""
    body, _, seal = content.rstrip(b"\n").rpartition(b"\n")
    try:
        return bool(json.loads(seal)["sha256"] == hashlib.sha256(body + b"\n").hexdigest())
    except (ValueError, KeyError, TypeError):
        return False


def write_durably(path: Path, content: bytes) -> None:
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


def _read_tail(tail: Path, found: Recovered) -> None:
    lines = tail.read_bytes().splitlines(keepends=True)
    if lines and not _is_whole(lines[-1]):
        dropped = len(lines.pop())
        found.warnings = (f"{tail}:{len(lines) + 1}: dropped a last line that was never finished ({dropped} bytes)",)
    for at, (number, event) in enumerate(_parsed(lines, tail), start=1):
        if number > len(found.events):
            raise UserError(
                f"event {len(found.events)} is missing before this one ({number}): a sealed part of the event log "
                f"({segment_path(tail.parent, found.segments).name}) is gone, put it back from a copy; "
                "nothing was changed",
                file=tail,
                line=at,
            )
        if number == len(found.events):
            found.events.append(event)
        elif not _say_the_same(event, found.events[number]):
            raise UserError(
                f"event {number} is another one in the sealed part of the event log: the study went on elsewhere; "
                "move this file away to go on from what is sealed",
                file=tail,
                line=at,
            )


def _say_the_same(one: Event, other: Event) -> bool:
    return (one.kind, one.trial, one.plan_hash) == (other.kind, other.trial, other.plan_hash)


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and "n" in json.loads(line)
    except (ValueError, TypeError):
        return False


def _unsealed(path: Path) -> list[bytes]:
    content = path.read_bytes()
    if not is_intact(content):
        raise UserError("this sealed part of the event log was changed or cut; restore it from a copy", file=path)
    return content.splitlines()[:-1]


def _parsed(lines: Iterable[bytes], path: Path) -> Iterable[tuple[int, Event]]:
    for at, line in enumerate(lines, start=1):
        try:
            record: dict[str, Any] = json.loads(line)
            yield int(record.pop("n")), Event(**record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "this line of the event log is damaged; restore it, or remove it and all that follow"
            raise UserError(hint, file=path, line=at) from error
