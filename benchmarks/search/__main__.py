"""`python -m benchmarks.search [--quick] [--only PART] [--json FILE] [--data ROOT] [--processes N]`"""

import sys
from functools import partial
from pathlib import Path

from benchmarks import command
from benchmarks.search import finding, identical, overhead, proposing

LEFT_OUT = "most seeds, two fifths of the trials of a search, larger studies for the sampler, and the plot"


def main() -> int:
    parser = command.parser("search", "What the search costs and finds, against what it competes with.")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="the folder that has FashionMNIST/raw")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="searches raced at once")
    given = parser.parse_args()
    quick, processes = given.quick, given.processes
    raced = {"quick": quick, "processes": processes}
    # What is timed comes first: the races want every core, and their figures are the same on any.
    parts = {
        "proposing": partial(proposing.figures, quick=quick),
        "overhead": partial(overhead.figures, quick=quick),
        "shared and alone": partial(identical.figures, quick=quick),
        "recorded grid": partial(finding.grid_figures, **raced),
        "workers": partial(finding.scaled_figures, **raced),
        "digits": partial(finding.digits_figures, **raced),
        "clothes": partial(finding.clothes_figures, **raced, data=given.data),
    }
    options = " --data ROOT" if given.data else ""
    packages = ("ray", "optuna", "syne-tune", "torch")
    return command.run("search", given, parts, packages=packages, left_out=LEFT_OUT, options=options)


if __name__ == "__main__":
    sys.exit(main())
