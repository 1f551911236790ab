"""What one trial's passes found at a boundary: the next one that asks there is told the same and charged the same."""

from pathlib import Path
from typing import Any

import pytest

from spaces.plan import Plan
from tests.probing import Residual, probed, settled
from trainables.allocations import ALLOCATIONS
from trainables.criteria import CRITERIA
from trainables.findings import FILE, Finding, Findings
from trainables.store import StageStore
from trainables.trial import Trial

KEEPS = [1.0, 0.6, 0.8]


def a_plan(*, criterion: str = "l1", keep: float = 0.6, **settings: Any) -> Plan:
    """Three epochs of a small network on digits, pruned once after the first."""
    return Plan.model_validate(
        {
            "data": {"name": "digits", "validation": 900},
            "model": {"name": "resnet8", "width": 6},
            "train": {"epochs": 3, "batch_size": 50, "learning_rate": 0.05},
            "prune": {
                "criterion": criterion,
                "allocation": {"name": "fur", "samples": 64, "batch_size": 32, **settings},
                "schedule": {"name": "once", "after": 0},
                "amount": {"keep_macs": keep},
            },
        }
    )


def last_of(plan: Plan, store: Path | None) -> tuple[Trial, dict[str, Any]]:
    """The finished trial and its last report."""
    trial = Trial(plan, store=None if store is None else StageStore(store), saves=[1])
    metrics: dict[str, Any] = {}
    while not metrics or not trial.done:
        metrics = trial.step()
    return trial, metrics


def measured(metrics: dict[str, Any]) -> dict[str, Any]:
    own = ("seconds", "training_macs", "inherited_epochs", "checkpoint", "checkpoint_bytes")
    return {name: value for name, value in metrics.items() if name not in own}


def findings_in(store: Path) -> list[Path]:
    return sorted(store.rglob(FILE))


@pytest.mark.parametrize(
    "other",
    [{"strength": 1.5}, {"keeps": KEEPS}, {"least": 0.2}, {"criterion": "random"}],
    ids=lambda other: next(iter(other)),
)
def test_trials_that_fork_from_one_boundary_probe_it_once(tmp_path: Path, other: dict[str, Any]) -> None:
    """Keep 0.92 is less than a tenth of the MACs away: the boundary is probed, and nothing after it."""
    _, paid = last_of(a_plan(keep=0.92), tmp_path)
    assert len(findings_in(tmp_path)) == 1
    alone = last_of(a_plan(keep=0.92, **other), None)[1]
    trial, inherited = last_of(a_plan(keep=0.92, **other), tmp_path)
    assert trial.inherited_epochs == 1
    assert len(findings_in(tmp_path)) == 1
    assert measured(inherited) == measured(alone)
    epochs = 3 * 200 * (alone["macs"] * 2)
    assert inherited["training_macs"] == epochs  # neither the shared epoch nor the probe
    groups = 8  # of a ResNet-8 with option A
    dense = round(alone["macs"] / alone["keep_macs"])
    assert alone["training_macs_alone"] == 3 * 200 * dense + 64 * (1 + groups) * dense + epochs
    assert paid["training_macs"] == paid["training_macs_alone"]


def test_probes_within_an_event_are_shared_as_far_as_the_cuts_agree(tmp_path: Path) -> None:
    last_of(a_plan(keep=0.6), tmp_path)
    before = len(findings_in(tmp_path))
    assert before >= 3
    alone = last_of(a_plan(keep=0.4), None)[1]
    _, shared = last_of(a_plan(keep=0.4), tmp_path)
    further = len(findings_in(tmp_path)) - before
    assert 0 < further < before
    assert measured(shared) == measured(alone)
    assert shared["training_macs"] < alone["training_macs"] - 3 * 200 * round(alone["macs"] / alone["keep_macs"])


@pytest.mark.parametrize("other", [{"drop": 0.1}, {"samples": 32}, {"repeats": 2}, {"batch_size": 64}], ids=str)
def test_another_question_is_another_finding(tmp_path: Path, other: dict[str, Any]) -> None:
    last_of(a_plan(keep=0.92), tmp_path)
    _, asked = last_of(a_plan(keep=0.92, **other), tmp_path)
    assert len(findings_in(tmp_path)) == 2
    assert asked["training_macs"] > 3 * 200 * asked["macs"] * 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"values": {"a": "b"}, "macs": 1}', '{"values": {}}', "\x00"])
def test_a_damaged_finding_is_found_again(tmp_path: Path, content: str) -> None:
    _, paid = last_of(a_plan(keep=0.92), tmp_path)
    (finding,) = findings_in(tmp_path)
    whole = finding.read_text()
    finding.write_text(content)
    _, again = last_of(a_plan(keep=0.92, strength=1.5), tmp_path)
    assert findings_in(tmp_path) == [finding]
    assert finding.read_text() == whole
    assert again["training_macs_alone"] - again["training_macs"] == 3 * 200 * round(paid["macs"] / paid["keep_macs"])


def test_numbers_come_back_bit_for_bit_and_what_is_no_number_is_not_kept(tmp_path: Path) -> None:
    findings = Findings(StageStore(tmp_path), "place")
    finding = Finding({"a": 0.1 + 0.2, "b": -1e-300}, 7)
    findings.keep("question", finding)
    assert findings.recall("question") == finding
    assert findings.recall("another") is None
    assert findings.after("a change").recall("question") is None
    findings.keep("nothing", Finding({"a": float("nan")}, 7))
    assert findings.recall("nothing") is None


def test_a_finding_leaves_the_trial_its_restart_point(tmp_path: Path) -> None:
    """What a trial holds is not evicted; what it asked in passing must not take that place."""
    store = StageStore(tmp_path)
    store.put("boundary", lambda folder: (folder / "file").touch())
    held = [lease.name for lease in (tmp_path / "leases").iterdir()]
    assert len(held) == 1
    findings = Findings(store, "place")
    findings.keep("question", Finding({"a": 1.0}, 7))
    assert findings.recall("question") is not None
    assert held[0] in {lease.name for lease in (tmp_path / "leases").iterdir()}


def test_without_a_store_nothing_is_known() -> None:
    findings = Findings()
    findings.keep("question", Finding({"a": 1.0}, 7))
    assert findings.recall("question") is None


def test_the_second_probe_of_one_network_inherits_its_passes(tmp_path: Path) -> None:
    probes = []
    for _ in range(2):
        _, probe = probed(settled(Residual()))
        probe.findings = Findings(StageStore(tmp_path), "here")
        ALLOCATIONS.bind("fur", {})(CRITERIA["l1"](probe.groups, probe), probe.groups, probe)
        probes.append(probe)
    assert probes[0].charged_macs == probes[1].charged_macs > 0
    assert [probe.inherited_macs for probe in probes] == [0, probes[0].charged_macs]
