"""The copy of an event log behind an address: sealed segments as they come, and a note who writes.

An object store cannot append, so only sealed segments go there; what follows the last one lies on the writer's machine
until it is sealed: when the segment is full, after ten minutes, and when the search ends.
"""

import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from spaces.errors import UserError
from spaces.remote import Remote
from tracking import segments
from tracking.segments import is_intact, segment_numbers, segment_path, tail_path

BEAT = 60.0  # seconds between two signs of life
STALE = 3 * BEAT  # after which a writer that gives none is taken for gone
LAST_WAIT = 60.0  # seconds to finish copying when the log is closed
WRITER = "writer.json"


def _say(warning: str) -> None:
    print(f"warning: {warning}", file=sys.stderr)


class Mirror:
    """One writer's way to the copy at `address`. `hold` it first, `close` it last."""

    def __init__(self, address: str, *, warn: Callable[[str], None] = _say) -> None:
        self._remote = Remote(address)
        self._address, self._warn = address, warn
        self._me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        self._waiting: queue.Queue[Path | None] = queue.Queue()
        self._left: list[Path] = []  # that could not be copied yet
        self._has_warned = self._is_lost = False
        self._thread = threading.Thread(target=self._work, name="log-mirror", daemon=True)

    def hold(self) -> None:
        """Become the one writer, as far as a store without locks can tell. Raises UserError where another one is."""
        try:
            content = self._remote.read(WRITER)
            other = _understood(content)
            if other is not None and not _is_gone(other):
                since = time.strftime("%H:%M on %Y-%m-%d", time.localtime(other["since"]))
                free = time.strftime("%H:%M:%S", time.localtime(other["beat"] + STALE))
                raise UserError(
                    f"process {other['pid']} on {other['host']} (since {since}) is already searching in "
                    f"{self._address}; wait for it or stop it first; if it is gone, it counts as gone from {free} on"
                )
            self._remote.write(WRITER, json.dumps({**self._me, "beat": time.time()}).encode())
        except OSError as error:
            raise UserError(f"cannot write to {self._address}: {error.strerror or error}") from error
        self._thread.start()

    def pull(self, folder: Path) -> tuple[str, ...]:
        """Restore segments that `folder` lacks or that are damaged there, and copy those that are not copied yet.

        Returns what the user should know. Raises UserError where the two are of different searches.
        """
        try:
            copied = segment_numbers(self._remote.names(""))
            own = segment_numbers(path.name for path in folder.iterdir())
            tail = tail_path(folder)
            was_empty = not own and not (tail.exists() and tail.stat().st_size)
            self._require_one_search(folder, own, copied)
            restored = [number for number in copied if self._restores(folder, number)]
        except OSError as error:
            raise UserError(f"cannot read {self._address}: {error.strerror or error}") from error
        for number in own:
            if number not in copied:
                self.push(segment_path(folder, number))
        if not restored:
            return ()
        names = f"{restored[0]:06d}.jsonl ... {restored[-1]:06d}.jsonl"
        warning = f"{folder}: restored {names if len(restored) > 1 else names[:12]} from {self._address}"
        if was_empty:
            warning += "; of a search that was cut off, facts that were not copied there (ten minutes at most) are lost"
        return (warning,)

    def push(self, segment: Path) -> None:
        """Copy a sealed segment, in the background; what cannot be copied is tried again."""
        self._waiting.put(segment)

    def close(self) -> None:
        """Finish copying and let the next writer in."""
        self._waiting.put(None)
        if self._thread.ident is not None:  # else it never held the place
            self._thread.join(LAST_WAIT)

    # ---- in the background ------------------------------------------------------------------------------------

    def _work(self) -> None:
        beaten = time.monotonic()
        while True:
            try:
                segment = self._waiting.get(timeout=BEAT)
            except queue.Empty:
                self._copy()
                segment = Path()
            if segment is None:
                break
            if segment.name:
                self._left.append(segment)
                self._copy()
            if time.monotonic() - beaten >= BEAT:
                beaten = time.monotonic()
                self._try(self._beat)
        self._copy()
        self._try(self._let_go)

    def _copy(self) -> None:
        while self._left:
            segment = self._left[0]
            if self._is_lost or not self._try(partial(self._upload, segment)):
                return
            self._left.pop(0)

    def _try(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn(f"the event log cannot be copied to {self._address} ({error}); it is kept here meanwhile")
            return False
        return True

    def _upload(self, segment: Path) -> None:
        self._remote.write(segment.name, segment.read_bytes())

    def _beat(self) -> None:
        """A sign of life. A writer that gave none for long (its machine slept) may find that another took its place."""
        if self._is_ours():
            self._remote.write(WRITER, json.dumps({**self._me, "beat": time.time()}).encode())
        elif not self._is_lost:
            self._is_lost = True
            self._warn(f"another process searches in {self._address} by now: stop this one; nothing is copied any more")

    def _is_ours(self) -> bool:
        there = _understood(self._remote.read(WRITER))
        return there is None or all(there[name] == self._me[name] for name in self._me)

    def _let_go(self) -> None:
        if self._is_ours():
            self._remote.delete(WRITER)

    # ---- restoring --------------------------------------------------------------------------------------------

    def _require_one_search(self, folder: Path, own: list[int], copied: list[int]) -> None:
        common = sorted(set(own) & set(copied))
        if not common:
            return
        path = segment_path(folder, common[-1])
        here, there = path.read_bytes(), self._remote.read(path.name) or b""
        if is_intact(here) and is_intact(there) and here != there:
            raise UserError(
                f"this is not the {path.name} of {self._address}: two searches; move the folder away to go on with the "
                "one there, or give the study another name",
                file=path,
            )

    def _restores(self, folder: Path, number: int) -> bool:
        path = segment_path(folder, number)
        if path.exists() and is_intact(path.read_bytes()):
            return False
        content = self._remote.read(path.name)
        if content is None or not is_intact(content):
            return False  # reading the log says what is wrong
        segments.write_durably(path, content)
        return True


def _understood(content: bytes | None) -> dict[str, Any] | None:
    try:
        writer = json.loads(content or b"")
        return {
            "pid": int(writer["pid"]),
            "host": str(writer["host"]),
            **{k: float(writer[k]) for k in ("since", "beat")},
        }
    except (ValueError, KeyError, TypeError):
        return None


def _is_gone(writer: dict[str, Any]) -> bool:
    """Whether it has given no sign of life for long, or was a process of this machine that is no more."""
    if writer["host"] == socket.gethostname():
        try:
            os.kill(writer["pid"], 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    return bool(time.time() - writer["beat"] > STALE)
