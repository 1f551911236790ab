"""The front as a still picture, for a README or a paper."""

from pathlib import Path

from spaces.errors import UserError
from tracking.page import DENSE, FAINT, FRONT
from tracking.result import Front

FORMATS = ("png", "svg", "pdf")


def save_picture(result: Front, file: Path) -> None:
    """Write it; the file's ending decides the format. Raises UserError for an ending or a place that will not do."""
    form = file.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise UserError(f"'{file}' must end in one of: {', '.join('.' + name for name in FORMATS)}")
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, PercentFormatter

    figure = Figure(figsize=(8, 4.5), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    members = {point.plan_hash for point in result.front}
    beaten = [point for point in result.points if point.plan_hash not in members and point != result.baseline]
    macs = [point.keep_macs for point in result.front]
    accuracy = [point.accuracy for point in result.front]
    axes.scatter([p.keep_macs for p in beaten], [p.accuracy for p in beaten], s=16, color=FAINT, label="beaten trials")
    axes.step(macs, accuracy, where="post", color=FRONT, linewidth=1.4)
    axes.scatter(macs, accuracy, s=34, color=FRONT, label="front", zorder=3)
    if result.baseline:
        dense = result.baseline
        axes.scatter([dense.keep_macs], [dense.accuracy], s=64, marker="D", color=DENSE, label="dense", zorder=4)
        axes.axhline(dense.accuracy, color=DENSE, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    least = min((point.keep_macs for point in result.points), default=0.1)
    axes.set_xlim(min(least, 0.5) / 1.25, 1.25)
    ticks = [tick for tick in (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0) if tick >= min(least, 0.5) / 1.25]
    axes.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    axes.set_xlabel("MACs kept (of the dense network's)")
    axes.set_ylabel("validation accuracy")
    axes.set_title(
        f"{result.experiment}: {result.trials.get('finished', 0)} full-length trials", loc="left", fontsize=11
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    try:
        figure.savefig(file, format=form)
    except OSError as error:
        raise UserError(f"cannot write '{file}': {error.strerror or error}") from error
