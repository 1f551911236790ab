"""The command line that every benchmark has, and the run of its parts."""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.report import Report, machine, today, versions

Part = Callable[[], list[Figure]]


def parser(name: str, summary: str) -> argparse.ArgumentParser:
    """`[--quick] [--only PART] [--json FILE]`; a benchmark adds what else it takes."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=summary)
    made.add_argument("--quick", action="store_true", help="smaller cases, and no results page")
    made.add_argument("--only", metavar="PART", help="measure this part alone, and write no results page")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return made


def run(
    name: str,
    arguments: argparse.Namespace,
    parts: Mapping[str, Part],
    *,
    packages: Sequence[str],
    left_out: str,
    options: str = "",
    page: str = "",
) -> int:
    """Measures every part and reports; a part that fails is a row that says so, and makes the exit status 1.

    `left_out` is what --quick leaves out; `options` the benchmark's own as the report shows them; `page` the results
    page's name where it is not the benchmark's.
    """
    if arguments.only is not None:
        if arguments.only not in parts:
            print(f"no part '{arguments.only}': one of {', '.join(parts)}", file=sys.stderr)
            return 2
        parts = {arguments.only: parts[arguments.only]}
    start, started_on = time.monotonic(), machine()
    figures: list[Figure] = []
    failed = False
    for title, part in parts.items():
        print(f"{title} ...", flush=True)
        try:
            measured = part()
        except Exception as error:  # the other parts' minutes are not thrown away
            traceback.print_exc()
            reason = str(error).strip().partition("\n")[0]
            measured, failed = [Figure(title, None, "-", f"failed: {type(error).__name__}: {reason}")], True
        for figure in measured:
            print("  " + "  ".join(figure.cells()), flush=True)
        figures += measured
    quick = " --quick" if arguments.quick else ""
    only = f" --only '{arguments.only}'" if arguments.only is not None else ""
    report = Report(
        name=page or name,
        command=f"python -m benchmarks.{name}{quick}{only}{options}",
        left_out=left_out if arguments.quick else "",
        minutes=(time.monotonic() - start) / 60,
        figures=figures,
        machine=started_on,
        versions=versions(packages),
        date=today(),
    )
    print(f"\n{report.as_markdown()}")
    if arguments.json:
        arguments.json.write_text(report.as_json())
    if not arguments.quick and arguments.only is None and not failed:
        report.write_results()
        print(f"written: benchmarks/results/{report.name}.md", file=sys.stderr)
    return 1 if failed else 0
