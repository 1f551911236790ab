"""What a person sees while a search runs: a live picture in a terminal, plain lines without one.

Does NOT cover what is printed when it is over (`search.summary`).
"""

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.scoreboard import Scoreboard
from tracking.events import Event
from tracking.front import Point, short
from tracking.standing import Standing

ROWS = 16  # of the front; a longer one is thinned evenly, its ends stay


class Progress(Protocol):
    """Shows a scoreboard: enter it, tell it of events, leave it."""

    def hear(self, event: Event, *, front_changed: bool) -> None:
        """An event that the scoreboard has taken in."""
        ...

    def tick(self) -> None:
        """Called many times a second."""
        ...

    def note(self, line: str) -> None:
        """Something that is not an event but worth a line."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines:
    """One line for every trial that ends: for a log file, a pipe, a batch system."""

    def __init__(self, board: Scoreboard, say: Callable[[str], None]) -> None:
        self._board, self._say = board, say

    def hear(self, event: Event, *, front_changed: bool) -> None:
        """A trial's end is worth a line."""
        board, number = self._board, event.trial
        if number is None or event.kind not in ("finished", "failed", "stopped"):
            return
        if event.kind == "finished":
            what = f"accuracy {event.body['accuracy']:.4f}, {percent(event.body['keep_macs'])} of the MACs"
        else:
            what = f"{event.kind}: {event.body['reason']}"
        mark = " *" if front_changed else ""
        known = board.ended < board.trials and math.isfinite(board.seconds_left)
        left = f", {spell(board.seconds_left)} left" if known else ""
        area = board.standing.hypervolume
        covered = "" if area is None else f"; front {len(board.standing.front)}, hypervolume {area:.4f}"
        self._say(f"{board.ended}/{board.trials}  {board.name(number)}: {what}{mark}{covered}{left}")

    def tick(self) -> None:
        """Lines do not change."""

    def note(self, line: str) -> None:
        """A line like the others."""
        self._say(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take down."""


class Picture:
    """The whole state, drawn again and again in one place."""

    def __init__(self, board: Scoreboard, console: Console) -> None:
        self._board = board
        # Drawn between the backend's steps: a thread of its own would meet the scoreboard half changed.
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stderr=False)
        self._drawn = -math.inf

    def hear(self, event: Event, *, front_changed: bool) -> None:
        """The next tick will show it."""

    def tick(self) -> None:
        """Draw, four times a second at most."""
        now = time.monotonic()
        if now - self._drawn >= 0.25:
            self._drawn = now
            self._live.update(self.draw(), refresh=True)

    def note(self, line: str) -> None:
        """Above the picture, where it stays."""
        self._live.console.print(line, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self) -> RenderableType:
        """Head line, bar, running trials, front."""
        board = self._board
        counts = board.standing.counts
        head = Text.assemble(
            (f"{board.standing.study}  ", "bold"),
            f"{board.ended}/{board.trials} trials",
            f"  running {len(board.running)}",
            (f"  failed {counts['failed']}", "red" if counts["failed"] else ""),
            f"  {spell(board.elapsed)} so far, {spell(board.seconds_left)} left",
        )
        under_way = sum(trial.epoch / trial.epochs for trial in board.running.values())
        bar = Table.grid()  # a bar by itself does not end its line
        bar.add_row(ProgressBar(total=board.trials, completed=board.ended + under_way, width=60))
        return Group(head, bar, self._trials(), front_table(board.standing))

    def _trials(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for _, trial in sorted(self._board.running.items())[:8]:
            accuracy = trial.metrics.get("accuracy")
            seen = "" if accuracy is None else f"accuracy {accuracy:.4f}"
            table.add_row(Text(trial.name, style="dim"), f"epoch {trial.epoch}/{trial.epochs}", seen)
        return table


def progress_for(board: Scoreboard, console: Console) -> Progress:
    """A picture where someone watches, else lines."""
    if console.is_terminal:
        return Picture(board, console)
    return Lines(board, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))


def front_table(standing: Standing) -> Table:
    """The front, cheapest first, and the dense baseline under it."""
    area = standing.hypervolume
    title = "front" if area is None else f"front: {len(standing.front)} points, hypervolume {area:.4f}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    others = [name for name in standing.objectives if name not in ("accuracy", "macs", "keep_macs", "params")]
    table.add_column("trial")
    for name in ("accuracy", "MACs kept", "MACs", "parameters", *others):
        table.add_column(name, justify="right")
    for point in thinned(standing.front):
        table.add_row(*_cells(point, others))
    if standing.baseline is not None and standing.baseline not in standing.front:
        table.add_row(*_cells(standing.baseline, others), style="dim")
    return table


def _cells(point: Point, others: Sequence[str]) -> list[str]:
    metrics = point.metrics
    known = [short(metrics[name]) if name in metrics else "" for name in ("macs", "params", *others)]
    return [point.name, f"{point.accuracy:.4f}", percent(point.keep_macs), *known]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most ROWS of them."""
    if len(points) <= ROWS:
        return list(points)
    return [points[round(row * (len(points) - 1) / (ROWS - 1))] for row in range(ROWS)]


def percent(fraction: float) -> str:
    """21.3 %."""
    return f"{100 * fraction:.3g} %"


def spell(seconds: float) -> str:
    """Seconds for people: 45 s, 3 min 20 s, 2 h 5 min."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
