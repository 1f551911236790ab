"""Hypervolume against training MACs, mean and spread over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.search.races import Race

COLOURS = ("#d1495b", "#00798c", "#66a182", "#8d96a3", "#5f4b8b", "#b07d2b")


def save_plot(file: Path, title: str, ways: Mapping[str, Sequence[Race]], *, grid: int = 200) -> None:
    """One line per way of searching: the mean over its seeds, and a band of one standard deviation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    least = min(race.points[0].macs for races in ways.values() for race in races if race.points)
    most = max(race.macs for races in ways.values() for race in races)
    spent = np.geomspace(least, most, grid)
    for colour, (name, races) in zip(COLOURS, ways.items(), strict=False):
        heights = np.array([[_at(race, macs) for macs in spent] for race in races])
        mean, deviation = heights.mean(axis=0), heights.std(axis=0)
        within = spent <= np.median([race.macs for race in races])
        axes.plot(spent[within], mean[within], color=colour, linewidth=1.8, label=name)
        low, high = (mean - deviation)[within], (mean + deviation)[within]
        axes.fill_between(spent[within], low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("training MACs of all trials, everything charged")
    axes.set_ylabel("hypervolume of full-length trials")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file)


def _at(race: Race, macs: float) -> float:
    """The hypervolume when so much was spent."""
    return max((point.hypervolume for point in race.points if point.macs <= macs), default=0.0)
