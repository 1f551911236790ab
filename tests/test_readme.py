"""The README tells the truth: its study runs, its commands exist, its example works, its tables are the tables."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from search.__main__ import VERBS
from spaces.load import load_study
from trainables.allocations import ALLOCATIONS
from trainables.compensations import COMPENSATIONS
from trainables.criteria import CRITERIA
from trainables.gates import GATES
from trainables.recoveries import RECOVERIES
from trainables.regrowths import REGROWTHS
from trainables.regularizers import REGULARIZERS
from trainables.schedules import SCHEDULES
from trainables.table import Table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TABLES = (CRITERIA, ALLOCATIONS, SCHEDULES, RECOVERIES, REGULARIZERS, GATES, COMPENSATIONS, REGROWTHS)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every `$ ...` line, continued ones whole, without their comments."""
    lines = "\n".join(blocks("console")).replace("\\\n", " ").splitlines()
    return [line[2:].partition(" #")[0].strip() for line in lines if line.startswith("$ ")]


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    assert words[0] == "prunefront"
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    arguments = [sys.executable, "-m", "search", *words[1:]]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, env=environment)


def test_the_study_of_the_readme_goes_from_check_to_a_verified_export(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0])
    for command in commands():
        if not command.startswith("prunefront ") or "cifar10" in command or command == "prunefront ui":
            continue  # those of a cluster, a server that does not end, and make's own
        shorter = command + (" --trials 4" if command.startswith("prunefront search") else "")
        ran = run(shorter, ROOT if " spaces/" in command else tmp_path)
        assert ran.returncode == 0, f"{shorter}\n{ran.stdout}\n{ran.stderr}"
    assert (tmp_path / "small" / "model.onnx").is_file()


def test_the_adjustment_of_the_readme_is_a_sound_study(tmp_path: Path) -> None:
    (tmp_path / "thin.yaml").write_text(
        f"data: digits\ntrain: {{epochs: 2}}\nobjectives: [accuracy, params]\n{blocks('yaml')[1]}"
    )
    adjust = load_study(tmp_path / "thin.yaml").adjust
    assert adjust is not None
    assert (adjust.layers, adjust.step) == (4, 0.25)


def test_the_criterion_of_the_readme_works_from_outside(tmp_path: Path) -> None:
    (tmp_path / "my_criterion.py").write_text(blocks("python")[0])
    named = re.search(r"`criterion: (\{name: \"my_criterion.*?\})`", README)
    assert named is not None
    plan = {
        "data": {"name": "digits", "validation": 900},
        "model": {"name": "resnet8", "width": 4},
        "train": {"epochs": 2, "batch_size": 50},
        "prune": {
            "criterion": yaml.safe_load(named.group(1)),
            "schedule": {"name": "once", "after": 0},
            "amount": {"keep_macs": 0.5},
        },
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    ran = run("prunefront train plan.yaml --json", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert '"keep_macs": 0.4' in ran.stdout.splitlines()[-1]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("prunefront ")])
def test_a_command_of_the_readme_names_a_verb_and_options_that_exist(command: str) -> None:
    verb, *words = shlex.split(command)[1:]
    assert verb in VERBS
    known = {
        option
        for parameter in import_module(f"search.commands.{verb}").command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    assert {word for word in words if word.startswith("--")} <= known


def test_make_knows_the_targets_that_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"[`$] ?make ([a-z-]+)", README)) <= targets


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.kind)
def test_the_readme_lists_every_row_of_a_table(table: "Table[object]") -> None:  # type: ignore[type-var]
    (listed,) = [
        line
        for line in README.splitlines()
        if line.startswith(("| `prune.", "| `recover`"))
        and (f"`prune.{table.kind}`" in line or (table.kind == "recovery" and "`recover`" in line))
    ]
    assert re.findall(r"`([a-z0-9_]+)`", listed.split("|")[3]) == list(table)


def test_the_readme_lists_every_study_that_ships() -> None:
    assert set(re.findall(r"`(spaces/[a-z0-9_]+\.yaml)`", README)) == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "spaces").glob("*.yaml")
    }


def test_every_file_that_the_readme_names_exists() -> None:
    tables = re.findall(r"`([a-z_]+/[a-z_]+\.py)`", README)
    assert [name for name in tables if not ((ROOT / name).is_file() or (ROOT / "trainables" / name).is_file())] == []
    tree = blocks("text")[-1]
    folders = re.findall(r"([a-z_]+)/", tree)
    assert [name for name in folders if not list(ROOT.rglob(f"{name}/"))] == []
