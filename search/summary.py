"""What is printed when a search is over, or was interrupted."""

from collections import Counter

from rich.console import Console

from search.progress import front_table, spell
from search.scoreboard import Scoreboard
from tracking.front import standard_error


def print_summary(console: Console, board: Scoreboard, *, why_ended: str | None) -> None:
    """The front, how trials ended and why some failed, and how far accuracies can be told apart."""
    standing = board.standing
    if standing.points:
        console.print()
        console.print(front_table(standing))
    console.print()
    for line in _lines(board, why_ended):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(board: Scoreboard, why_ended: str | None) -> list[str]:
    standing, counts = board.standing, board.standing.counts
    ways = ", ".join(f"{count} {how}" for how, count in counts.items() if count or how == "finished")
    lines = [f"{board.ended} of {board.trials} trials in {spell(board.elapsed)}: {ways}"]
    lines += [f"  {count} failed: {reason}" for reason, count in Counter(standing.failures.values()).most_common()]
    if why_ended is not None:
        lines.append(f"no more trials: {why_ended}")
    spent = sum(point.metrics.get("training_macs", 0.0) for point in standing.points.values())
    if spent:
        lines.append(f"training MACs of the finished trials: {spent:.3g} (1 MAC = 2 FLOPs)")
    return lines + _caution(board)


def _caution(board: Scoreboard) -> list[str]:
    baseline = board.standing.baseline
    error = None if baseline is None else standard_error(baseline)
    if baseline is None or error is None:
        return []
    images = baseline.metrics.get("validation_images") or baseline.plan["data"]["validation"]
    return [
        f"accuracy: {images:g} validation images, standard error {error:.4f}; all trials share split and seed, and the "
        "best of many is flattered: treat smaller differences as none"
    ]
