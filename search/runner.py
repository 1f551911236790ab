"""One search from end to end: log, driver, Ray, tracking and progress, wired, and taken down whatever happens."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from search.cluster import connected
from search.driver import Driver, Listener, Outlook
from search.progress import Progress, progress_for
from search.scoreboard import Scoreboard
from spaces.errors import UserError
from spaces.study import Study
from tracking.events import Event
from tracking.log import EventLog

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


@dataclass(frozen=True)
class Ending:
    """How a run of a search ended."""

    board: Scoreboard
    was_interrupted: bool
    why_ended: str | None  # why fewer trials ran than asked for; None where all did


def home_of(study: Study) -> Path:
    """The folder of the study's log and stages; on a cluster all nodes must see it under the same path."""
    storage = study.resources.storage
    if "://" in storage:
        raise UserError(f"resources.storage is the address '{storage}'; allowed: a folder that all workers share")
    return Path(os.path.abspath(Path(storage).expanduser())) / study.name


def run_search(
    study: Study,
    *,
    workload: Workload,
    console: Console,
    trials: int,
    mode: str,
    address: str | None = None,
    heard: Listener = lambda event: None,
) -> Ending:
    """Run `trials` pruned trials beside the baseline; what the log has already counts.

    `mode`: "new" refuses a study that has trials, "resume" goes on with them; `heard` is told of every event.
    Raises UserError for what its reader can mend; Ctrl-C is no error.
    """
    home = home_of(study)
    board = Scoreboard(trials + 1)
    progress = progress_for(board, console)
    with ExitStack() as stack:
        log = stack.enter_context(EventLog.open(home))
        for warning in log.warnings:
            console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        _check_mode(log, study, mode)

        def hear(event: Event) -> None:
            changed = board.hear(event)
            heard(event)
            if board.has_begun:
                progress.hear(event, front_changed=changed)

        driver = Driver(study, log, outlook=workload.outlook, trials=trials + 1, heard=[hear])
        driver.open()
        board.begin()
        was_interrupted = _run(driver, study, workload, home, address, progress)
        driver.close("interrupted" if was_interrupted else "budget spent")
    return Ending(board, was_interrupted, driver.why_ended)


def _run(driver: Driver, study: Study, workload: Workload, home: Path, address: str | None, progress: Progress) -> bool:
    """Whether it was interrupted."""
    if driver.is_over:
        return False  # a finished search that is resumed needs no Ray
    with _signals() as is_wanted, progress:
        watch = _Watch(progress, is_wanted)
        try:
            watch.between()
            with connected(address, study.resources):
                from search.ray_backend import run_on_ray  # after Ray's environment is set

                run_on_ray(driver, study, home=home, trial=workload.trial, grows=address is not None, watch=watch)
        except KeyboardInterrupt:
            return True
    return False


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


def _check_mode(log: EventLog, study: Study, mode: str) -> None:
    begun = sum(event.kind == "proposed" for event in log.events())
    if begun and mode == "new":
        raise UserError(
            f"study '{study.name}' has {begun} trials in {home_of(study)}: --resume goes on with them; "
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
