"""Where figures go: a table in the terminal, JSON by choice, and after a full run `benchmarks/results/NAME.md`."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Figure

RESULTS = Path(__file__).parent / "results"
FIELDS = ("figure", "value", "unit", "target", "met", "how")


@dataclass(frozen=True)
class Report:
    """All figures of one run, and what they were measured on."""

    name: str
    command: str
    left_out: str  # what the run leaves out; empty for a full one
    minutes: float
    figures: Sequence[Figure]
    machine: str
    versions: str
    date: str

    def as_json(self) -> str:
        content: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "figures"}
        return json.dumps({**content, "figures": [figure.row() for figure in self.figures]}, indent=1) + "\n"

    def as_markdown(self) -> str:
        """The results page: a missed target stays in it as missed."""
        judged = [figure.met for figure in self.figures if figure.met is not None]
        lines = [
            f"# {self.name}",
            "",
            f"`{self.command}` on {self.date}, {self.minutes:.1f} minutes. {sum(judged)} of {len(judged)} targets met.",
            "",
            f"- machine: {self.machine}",
            f"- versions: {self.versions}",
            *([f"- left out: {self.left_out}"] if self.left_out else []),
            "",
            "| " + " | ".join(FIELDS) + " |",
            "|" + "---|" * len(FIELDS),
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in figure.cells()) + " |" for figure in self.figures),
        ]
        return "\n".join(lines) + "\n"

    def write_results(self) -> None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}.md").write_text(self.as_markdown())


def machine() -> str:
    """Processor, cores, memory, GPU, and how busy it was."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [_processor(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB memory", platform.system()]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"load {os.getloadavg()[0]:.1f} at the start"])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions(packages: Sequence[str]) -> str:
    """`python 3.13.1, torch 2.15.0, ...`; packages that are not installed are named as such."""
    found = [f"python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
