"""One search from end to end: log, driver, Ray, tracking and progress, wired, and taken down whatever happens."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from rich.console import Console

from search.agreement import Agreement
from search.cluster import connected
from search.driver import Driver, Outlook
from search.keeper import Keeper
from search.places import Places, places_of
from search.progress import Progress, progress_for
from search.scoreboard import Scoreboard
from search.warm import Warmth
from spaces.errors import UserError
from spaces.study import Study
from tracking.events import Event
from tracking.log import EventLog
from trainables.store import StageStore

TORCH_TRIAL = "search.trainable:torch_trial"


@dataclass(frozen=True)
class Workload:
    """What a trial is: how a worker makes one, and what is known of a plan beforehand."""

    trial: str  # dotted path, package.module:function
    outlook: Outlook


def torch_workload() -> Workload:
    """The real one."""
    from search.outlook import TorchOutlook

    return Workload(TORCH_TRIAL, TorchOutlook())


class Recorder(Protocol):
    """Where a search is remembered beside its log: `tracking.tracker.Tracker`, or a test's twin."""

    def record(self, event: Event) -> None:
        """Take an event in; never waits."""
        ...

    def upload_checkpoint(self, plan_hash: str, directory: Path) -> None:
        """Keep a front member's files; once is enough."""
        ...


OpenRecorder = Callable[[Path, Callable[[str], None]], AbstractContextManager[Recorder]]
"""Opens a recorder that may spool in a folder, and says where warnings go."""


def mlflow_recorder(uri: str, experiment: str) -> OpenRecorder:
    """The real one."""

    def open_tracker(spool: Path, warn: Callable[[str], None]) -> AbstractContextManager[Recorder]:
        from tracking.tracker import Tracker

        return Tracker(uri, experiment, spool=spool, warn=lambda line: warn(f"warning: {line}"))

    return open_tracker


@dataclass(frozen=True)
class Ending:
    """How a run of a search ended."""

    board: Scoreboard
    was_interrupted: bool
    why_ended: str | None  # why fewer trials ran than asked for; None where all did
    agreements: Sequence[Agreement] = ()  # how well rungs foretold the end


def run_search(
    study: Study,
    *,
    workload: Workload,
    recorder: OpenRecorder,
    console: Console,
    trials: int,
    mode: Literal["new", "resume"],
    address: str | None = None,
    warmth: Warmth | None = None,
) -> Ending:
    """Run `trials` pruned trials beside the baseline; what the log has already counts.

    `mode`: "new" refuses a study that has trials, "resume" goes on with them. `warmth`: what another search found.
    Raises UserError for what its reader can mend; Ctrl-C is no error.
    """
    places = places_of(study)
    home = places.home
    with ExitStack() as stack:
        log = stack.enter_context(_opened_log(places))
        begun = sum(event.kind == "proposed" for event in log.events())
        board = Scoreboard(max(trials + 1, begun))  # fewer than there are already takes none of them back
        progress = progress_for(board, console)
        for warning in log.warnings:
            console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        _check_mode(log, study, mode)
        is_wanted = stack.enter_context(_signals())
        if not _is_over(log, trials + 1):  # else a finished search is resumed, and that needs no Ray
            StageStore(**places.stages).open()
            if address is None:
                workload.outlook.check(study)
            with console.status("starting Ray" if address is None else f"joining Ray at {address}"):
                stack.enter_context(connected(address, study.resources))
        recording = stack.enter_context(recorder(home / "tracking", progress.note))
        keeper = Keeper(board, recording, places, study.name)
        unsaved = _Unsaved(progress)

        def hear(event: Event) -> None:
            recording.record(event)
            changed = board.hear(event)
            keeper.hear(event)
            if board.has_begun:
                progress.hear(event, front_changed=changed)
                unsaved.hear(event)
                if changed:
                    keeper.keep()

        driver = Driver(study, log, outlook=workload.outlook, trials=trials + 1, heard=[hear])
        driver.open(warmth=warmth)
        board.begin()
        keeper.keep()
        was_interrupted = False
        if not driver.is_over:
            was_interrupted = _run(driver, study, workload, places, address, progress, is_wanted)
        driver.close("interrupted" if was_interrupted else "budget spent")
    return Ending(board, was_interrupted, driver.why_ended, driver.agreements)


def _run(
    driver: Driver,
    study: Study,
    workload: Workload,
    places: Places,
    address: str | None,
    progress: Progress,
    is_wanted: Callable[[], bool],
) -> bool:
    """Whether it was interrupted."""
    from search.ray_backend import run_on_ray  # imports Ray, whose environment is set by now

    with progress:
        watch = _Watch(progress, is_wanted)
        try:
            watch.between()
            grows = address is not None
            run_on_ray(driver, study, places=places, trial=workload.trial, grows=grows, watch=watch)
        except KeyboardInterrupt:
            return True
    return False


@contextmanager
def _opened_log(places: Places) -> Iterator[EventLog]:
    """The study's log. When an error ends the search before its first trial, nothing is left of a new one."""
    home = places.home
    made = [folder for folder in (home, home.parent) if not folder.exists()]
    log = EventLog.open(home, address=places.address)
    try:
        with log:
            yield log
    except Exception:
        if home in made and not any(event.kind == "proposed" for event in log.events()):
            shutil.rmtree(home, ignore_errors=True)
            if home.parent in made and not any(home.parent.iterdir()):
                home.parent.rmdir()
        raise


def _is_over(log: EventLog, trials: int) -> bool:
    """Whether the log has the end of every trial that is asked for, and no rung could think better of one."""
    last: dict[int, Event] = {event.trial: event for event in log.events() if event.trial is not None}
    for_good = [e.kind in ("finished", "failed") or e.body.get("by") == "constraint" for e in last.values()]
    return len(last) >= trials and all(for_good)


class _Unsaved:
    """Says once why trials go on without saving."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: set[str] = set()

    def hear(self, event: Event) -> None:
        reason = event.body.get("not_saved")
        if reason is not None and reason not in self._said:
            self._said.add(reason)
            self._progress.note(f"warning: boundaries are not saved: {reason}; trials go on")


@dataclass(frozen=True)
class _Watch:
    """Keeps the progress alive between the backend's steps, and ends the search where Ctrl-C came."""

    progress: Progress
    is_wanted: Callable[[], bool]

    def between(self) -> None:
        self.progress.tick()
        if self.is_wanted():
            raise KeyboardInterrupt

    def lost(self, number: int) -> None:
        self.progress.note(f"trial {number}: its worker was lost; it goes on elsewhere from its last boundary")


def _check_mode(log: EventLog, study: Study, mode: Literal["new", "resume"]) -> None:
    begun = sum(event.kind == "proposed" for event in log.events())
    if begun and mode == "new":
        raise UserError(
            f"study '{study.name}' has {begun} trials in {places_of(study).shown}: --resume goes on with them; "
            "to begin anew give the study another name, another resources.storage, or remove that folder"
        )


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C (or a polite kill) came. The first is acted on between two steps, the second at once."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
