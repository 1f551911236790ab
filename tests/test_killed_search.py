"""`prunefront search` killed hard again and again, against an undisturbed run with the same seed."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracking.events import Event
from tracking.log import read_events
from tracking.standing import Standing

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "spaces" / "digits_grid.yaml"
KILLS = 20


def start(storage: Path, *more: str) -> "subprocess.Popen[bytes]":
    """A search with one worker, rungs, and proposals that look at costs."""
    options = ["budget.sampler=gain", "stopper.name=front", "resources.workers=1", f"resources.storage={storage}"]
    settings = [word for option in options for word in ("--set", option)]
    command = [sys.executable, "-m", "search", "search", str(STUDY), "--trials", "12", *settings, *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=storage, env=environment, stdout=quiet, stderr=quiet)


def happened(storage: Path) -> int:
    """Events in the log so far."""
    return len(read_events(storage / "digits_grid")) if (storage / "digits_grid" / "events").is_dir() else 0


def told(events: tuple[Event, ...]) -> tuple[list[object], list[object]]:
    """The proposals in order; the front."""
    standing = Standing()
    for event in events:
        standing.hear(event)
    proposals: list[object] = [(e.trial, e.plan_hash, e.body["choices"]) for e in events if e.kind == "proposed"]
    return proposals, [(point.trial, point.accuracy, point.keep_macs) for point in standing.front]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # each of the searches starts Ray anew
def test_a_search_killed_at_twenty_random_moments_proposes_and_finds_what_an_undisturbed_one_does(
    tmp_path: Path,
) -> None:
    straight, disturbed = tmp_path / "straight", tmp_path / "disturbed"
    straight.mkdir()
    disturbed.mkdir()
    assert start(straight).wait(timeout=600) == 0
    rng = random.Random(0)
    for kill in range(KILLS):
        search = start(disturbed, *(["--resume"] if happened(disturbed) else []))
        enough = happened(disturbed) + rng.randint(1, 9)  # of some 180: the last kills come near the end
        while search.poll() is None and happened(disturbed) < enough:
            time.sleep(0.01)
        assert search.poll() is None, f"it went on from what {kill} kills had left, and was not over yet"
        time.sleep(rng.uniform(0.0, 0.1))
        search.kill()
        search.wait()
    assert start(disturbed, "--resume").wait(timeout=600) == 0
    assert told(read_events(disturbed / "digits_grid")) == told(read_events(straight / "digits_grid"))
