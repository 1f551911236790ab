"""What running a trial costs beside its training: time and driver memory, ours against Ray Tune's own."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures import Figure, Target, ratio, spread

ROOT = Path(__file__).parents[2]


def figures(*, quick: bool) -> list[Figure]:
    """Searches of trials that train nothing, two at a time, side by side in `rounds`; each in its own process."""
    rounds, many, few = (1, 100, 20) if quick else (3, 1000, 30)
    sides: dict[str, list[dict[str, float]]] = {"ours": [], "with_reused_actors": [], "as_shipped": []}
    for _ in range(rounds):
        for side, heard in sides.items():
            heard.append(_run(side, few if side == "as_shipped" else many))
    seconds = {side: [told["seconds"] for told in heard] for side, heard in sides.items()}
    shipped, reused = (
        ratio(seconds["ours"], seconds["as_shipped"]),
        ratio(seconds["ours"], seconds["with_reused_actors"]),
    )
    growth = {side: [_grown(told) for told in heard] for side, heard in sides.items()}
    beyond = spread([ours - theirs for ours, theirs in zip(growth["ours"], growth["with_reused_actors"], strict=True)])
    each = ", ".join(f"{side.replace('_', ' ')} {1000 * spread(took).middle:.0f} ms" for side, took in seconds.items())
    how = f"{many} trials of 5 reports, 2 at once, log and store on disk, TPE proposes on every side; {each}"
    return [
        Figure(
            "overhead per trial against Ray Tune as shipped",
            shipped.middle,
            "x",
            f"{shipped}; {how}; Ray Tune as shipped ran {few} trials",
            Target("at most", 1.0),
        ),
        Figure(
            "overhead per trial against Ray Tune with reused actors",
            reused.middle,
            "x",
            f"{reused}; the same searches; Ray Tune without loggers, log or store",
            Target("at most", 1.3),
        ),
        Figure(
            "driver memory beyond Ray Tune's",
            beyond.middle,
            "MB per 1,000 trials",
            f"{beyond}; resident memory from the first trial's end to the last's; ours grew "
            f"{spread(growth['ours']).middle:.0f} MB per 1,000 trials",
            Target("at most", 40.0),
        ),
    ]


def _grown(told: dict[str, float]) -> float:
    """MB per 1,000 trials."""
    return 1000.0 * (told["after"] - told["before"]) / told["trials"]


def _run(side: str, trials: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.search.idle", side, str(trials)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} ended with {ran.returncode}: {_last(ran.stderr.splitlines())}")
    told: dict[str, float] = json.loads(_last(line for line in ran.stdout.splitlines() if line.startswith("{")))
    return told


def _last(lines: Iterable[str]) -> str:
    return list(lines)[-1]
