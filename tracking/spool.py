"""What waits to be written: a queue that holds a bounded number of events in memory and the rest in a file.

The file is no second source of truth: the event log has every event as well, and a resumed search hands them in again.
So what an earlier process left here is thrown away.
"""

import json
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from spaces.errors import UserError
from tracking.events import Event

IN_MEMORY = 4096


@dataclass(frozen=True)
class Upload:
    """A folder whose content belongs to the run of a plan."""

    plan_hash: str
    folder: str


Item = Event | Upload


class Spool:
    """First in, first out, between threads. `put` neither waits nor fails for want of a server."""

    def __init__(self, folder: Path, *, in_memory: int = IN_MEMORY) -> None:
        self.path = folder / "waiting.jsonl"
        self._in_memory = in_memory
        self._memory: deque[Item] = deque()
        self._on_disk = 0
        self._read_up_to = 0  # bytes of the file that were taken
        self._lock = Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error

    def __len__(self) -> int:
        return len(self._memory) + self._on_disk

    def put(self, item: Item) -> None:
        """To the end of the queue; to the file once memory is full, and until that is empty again."""
        with self._lock:
            if self._on_disk or len(self._memory) >= self._in_memory:
                with self.path.open("ab") as file:
                    file.write(_line(item))
                self._on_disk += 1
            else:
                self._memory.append(item)

    def take(self, most: int) -> list[Item]:
        """Up to `most` from the front of the queue; none when it is empty."""
        with self._lock:
            taken = [self._memory.popleft() for _ in range(min(most, len(self._memory)))]
            if not taken and self._on_disk:
                taken = self._from_disk(most)
            return taken

    def to_disk(self) -> None:
        """Move what waits in memory to the file: the server is away, and may be for long."""
        with self._lock:
            if not self._memory:
                return
            later = self.path.read_bytes()[self._read_up_to :] if self._on_disk else b""
            self.path.write_bytes(b"".join(map(_line, self._memory)) + later)
            self._on_disk += len(self._memory)
            self._memory.clear()
            self._read_up_to = 0

    def _from_disk(self, most: int) -> list[Item]:
        taken: list[Item] = []
        with self.path.open("rb") as file:
            file.seek(self._read_up_to)
            for line in file:
                record = json.loads(line)
                taken.append(Event(**record["event"]) if "event" in record else Upload(**record["upload"]))
                self._read_up_to += len(line)
                if len(taken) == most:
                    break
        self._on_disk -= len(taken)
        if not self._on_disk:
            self.path.unlink()
            self._read_up_to = 0
        return taken


def _line(item: Item) -> bytes:
    kind = "event" if isinstance(item, Event) else "upload"
    return json.dumps({kind: asdict(item)}).encode() + b"\n"
