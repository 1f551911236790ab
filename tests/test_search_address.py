"""A search whose log and stages lie behind an address: cut off, taken up on another machine, exported."""

import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from search.places import places_of
from spaces.load import load_study
from tests.conftest import environment
from tracking.log import read_events

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "spaces" / "digits.yaml"
SMALL = ["train.epochs=3", "prune.schedule={name: once, after: 1}", "resources.workers=1"]


def run(cwd: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "search", *arguments]
    ran = subprocess.run(command, cwd=cwd, env={**environment(), "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    return ran.stdout.decode()


@pytest.mark.slow
def test_a_search_on_s3_goes_on_on_another_machine_and_is_exported(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*SMALL, f"resources.storage={s3}/searches"]
    tracking = ["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    search = ["search", str(STUDY), *(word for one in overrides for word in ("--set", one)), *tracking]
    seen: dict[str, tuple[object, ...]] = {}
    for machine, arguments in (("first", ["--trials", "2"]), ("second", ["--resume", "--trials", "3"])):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / machine / "state"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine / "cache"))
        run(tmp_path, *search, *arguments)
        events = read_events(places_of(load_study(STUDY, overrides)).home)
        seen[machine] = tuple((e.trial, e.plan_hash, e.kind, e.time) for e in events)
    assert seen["second"][: len(seen["first"])] == seen["first"], "the log came with the address"
    finished = [kind for _, _, kind, _ in seen["second"]].count("finished")
    assert finished == 4
    starts = {e.trial: e.body["from_epoch"] for e in events if e.kind == "started"}
    assert starts[3] >= 1, "its trunk was trained and saved by the first machine"
    assert fsspec.filesystem("s3").ls(f"{s3}/searches/digits/store")
    run(tmp_path, "export", "digits", *tracking, "--to", "small")
    assert "small: verified" in run(tmp_path, "verify", "small")
