"""What is printed when a search is over, or was interrupted."""

import math
from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from search.agreement import Agreement
from search.progress import front_table, spell
from search.scoreboard import Scoreboard
from tracking.front import standard_error


def print_summary(
    console: Console, board: Scoreboard, *, why_ended: str | None, agreements: Sequence[Agreement] = ()
) -> None:
    """The front, how trials ended and why some failed, and how far accuracies can be told apart."""
    standing = board.standing
    if standing.points:
        console.print()
        console.print(front_table(standing))
    console.print()
    for line in (*_lines(board, why_ended), *_foretold(agreements)):
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


def _foretold(agreements: Sequence[Agreement]) -> list[str]:
    """How well the rungs of a search knew who would do well."""
    told = [one for one in agreements if math.isfinite(one.spearman)]
    if not told:
        return []
    lines = ["rank correlation between a rung and the end, among the trials that were trained to theirs:"]
    for one in told:
        over = f"{one.recovery}, {one.fraction:.0%} of the recovery over"
        lines.append(f"  {over}: {one.metric} {one.spearman:.2f} ({one.trials} trials)")
    return lines


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
