"""Writes a search to MLflow from a thread of its own: the search never waits for a server, and none of it is lost.

Hand in every event, after a resume the whole log again: runs are found by what they are before they are made, so
nothing is there twice. A server that goes away costs one warning; what waits is kept on disk and written later.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from tracking.connection import first_line, is_passing, writable
from tracking.events import Event
from tracking.ledger import Ledger
from tracking.spool import Spool, Upload
from tracking.writer import PAGE_SECONDS, Writer

GATHERING = 1.0  # seconds to wait for more of the same before writing
AT_ONCE = 2000  # events between two writes
RETRY = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between attempts while the server is away; the last one repeats


def _say(warning: str) -> None:
    print(f"warning: {warning}", file=sys.stderr)


class Tracker:
    """One search's way into one MLflow experiment. Raises UserError at once when the store cannot be had."""

    def __init__(self, uri: str, experiment: str, *, spool: Path, warn: Callable[[str], None] = _say) -> None:
        self.uri, self.experiment = uri, experiment
        self._warn = warn
        self._writer = Writer(writable(uri), uri, experiment)
        self.experiment_id = self._writer.experiment_id
        self._ledger = Ledger(experiment)
        self._spool = Spool(spool)
        self._uploads: dict[str, Path] = {}
        self._warned: set[str] = set()
        self._state = Condition()  # guards what follows, which both threads touch
        self._is_busy = False
        self._is_closing = False
        self._flushes = 0  # that wait
        self._failures = 0  # writes in a row that the server did not answer
        self._retries_now = False
        self._thread = Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def record(self, event: Event) -> None:
        """Take an event in; never waits."""
        self._put(event)

    def upload_checkpoint(self, plan_hash: str, directory: Path) -> None:
        """Make the directory's files the artifact `checkpoint` of the plan's run; never waits. Once is enough."""
        self._put(Upload(plan_hash, str(directory)))

    @property
    def search_run_id(self) -> str | None:
        """The search's own run; None until it was first written."""
        return self._ledger.search.run_id if self._ledger.search else None

    def flush(self, timeout: float) -> bool:
        """Wait until everything handed in so far is in MLflow, at most `timeout` seconds; whether it is."""
        with self._state:
            self._flushes += 1
            self._retries_now = True
            self._state.notify_all()
            try:
                return self._state.wait_for(lambda: not self._is_busy and not self._has_work, timeout)
            finally:
                self._flushes -= 1

    def close(self, timeout: float = 30.0) -> bool:
        """Write what waits, at most `timeout` seconds, and stop; whether all is written."""
        written = self.flush(timeout)
        with self._state:
            self._is_closing = True
            self._state.notify_all()
        self._thread.join(1.0)
        if not written:
            self._warn(f"not all of the search is in {self.uri}; the event log has it, and --resume writes it")
        with suppress(OSError):
            self._spool.path.unlink(missing_ok=True)
        return written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, item: Event | Upload) -> None:
        self._spool.put(item)
        with self._state:
            self._state.notify_all()

    # ---- the thread -------------------------------------------------------------------------------------------------

    @property
    def _has_work(self) -> bool:
        return bool(len(self._spool) or self._uploads or self._failures or self._ledger.front_is_due)

    def _work(self) -> None:
        while self._await_work():
            try:
                if not self._failures:
                    self._hear()
                self._write()
                self._answered()
            except Exception as error:  # whatever it is, the search goes on
                self._unanswered(error)
            finally:
                with self._state:
                    self._is_busy = False
                    self._state.notify_all()

    def _await_work(self) -> bool:
        """Until there is something to write and it is time to; False when there never will be."""
        with self._state:
            if self._failures:
                pause = RETRY[0] if self._flushes else RETRY[min(self._failures, len(RETRY)) - 1]
                self._state.wait_for(lambda: self._is_closing or self._retries_now, pause)
            else:
                self._state.wait_for(lambda: self._is_closing or self._is_wanted, PAGE_SECONDS)
                self._state.wait_for(lambda: self._is_closing or self._flushes, GATHERING)
            self._retries_now = False
            self._is_busy = not self._is_closing
            return self._is_busy

    @property
    def _is_wanted(self) -> bool:
        return bool(len(self._spool) or (self._flushes and self._has_work))

    def _hear(self) -> None:
        for item in self._spool.take(AT_ONCE):
            if isinstance(item, Upload):
                self._uploads[item.plan_hash] = Path(item.folder)
                continue
            try:
                self._ledger.hear(item)
            except Exception as error:  # one event that cannot be understood does not silence the others
                self._warn_once(f"MLflow is not told that trial {item.trial} was {item.kind}: {error!r}")

    def _write(self) -> None:
        page_after = 0.0 if self._flushes and not len(self._spool) else PAGE_SECONDS
        self._writer.write(self._ledger, refused=self._warn_once, page_after=page_after)
        for plan_hash, folder in list(self._uploads.items()):
            run = self._ledger.trials.get(plan_hash)
            if run is not None and run.run_id is not None and folder.is_dir():
                self._writer.upload(run, folder)
            else:
                self._warn_once(f"no checkpoint for plan {plan_hash} in {folder}")
            del self._uploads[plan_hash]

    def _answered(self) -> None:
        with self._state:
            was_away, self._failures = self._failures > 0, 0
        if was_away:
            self._warn(f"MLflow at {self.uri} answers again; what waited is being written")

    def _unanswered(self, error: Exception) -> None:
        with self._state:
            self._failures += 1
            is_first = self._failures == 1
        if is_first:
            how = "does not answer" if is_passing(error) else "cannot be written"
            self._warn(
                f"MLflow at {self.uri} {how} ({first_line(error)}); the search goes on, the rest is kept for later"
            )
        with suppress(OSError):
            self._spool.to_disk()

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            self._warn(warning)
