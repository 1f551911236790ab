"""A trial: the same numbers whether straight through, forked from another, or killed and resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from spaces.errors import TrialFailed
from spaces.plan import Plan
from trainables import checkpoint
from trainables.checkpoint import DamagedCheckpoint
from trainables.lapped import LappedTrial
from trainables.store import StageStore
from trainables.trial import Trial, run_trial

ROOT = Path(__file__).parent.parent


def a_plan(**changes: Any) -> Plan:
    """Six epochs of a small network on digits, pruned twice; `changes` replace whole sections."""
    sections: dict[str, Any] = {
        "data": {"name": "digits", "validation": 900, "augment": ["pad_crop"]},
        "model": {"name": "resnet8", "width": 8},
        "train": {"epochs": 6, "batch_size": 32, "learning_rate": 0.1},
        "prune": {
            "criterion": "taylor",
            "schedule": {"name": "every", "interval": 2, "until": 4},
            "amount": {"keep_macs": 0.4},
            "recalibrate_batches": 2,
        },
        "recover": {"name": "damage_aware"},
    }
    return Plan.model_validate({**sections, **changes})


def run(plan: Plan, store: Path | None, **options: Any) -> tuple[Trial, list[dict[str, Any]]]:
    """The finished trial and what it reported."""
    trial = Trial(plan, store=None if store is None else StageStore(store), **options)
    heard = []
    while not heard or not trial.done:
        heard.append(trial.step())
    return trial, heard


def same_weights(one: Trial, other: Trial) -> bool:
    """Bit for bit, buffers and optimizer state included."""
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    moments = [checkpoint.optimizer_tensors(trial.model, trial.optimizer) for trial in (one, other)]
    return (
        ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
        and moments[0].keys() == moments[1].keys()
        and all(torch.equal(moments[0][name], moments[1][name]) for name in moments[0])
    )


def measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the way a trial took: neither time nor what it could inherit."""
    return {
        name: value
        for name, value in metrics.items()
        if name not in ("seconds", "training_macs", "inherited_epochs", "checkpoint", "checkpoint_bytes")
    }


def test_a_trial_ends_at_or_under_its_target_and_reports_every_epoch(tmp_path: Path) -> None:
    trial, heard = run(a_plan(), tmp_path)
    assert [metrics["epoch"] for metrics in heard] == [1, 2, 3, 4, 5, 6]
    assert heard[-1]["keep_macs"] <= 0.4
    assert heard[-1]["events"] == 2
    assert heard[-1]["accuracy"] > 0.5
    assert heard[0]["keep_macs"] == 1.0
    assert heard[-1]["checkpoint"] == trial.progress.key


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_trial_is_the_same_every_time(optimizer: str) -> None:
    plan = a_plan(train={"epochs": 5, "batch_size": 64, "learning_rate": 0.01, "optimizer": optimizer})
    one, heard = run(plan, None)
    other, again = run(plan, None)
    assert same_weights(one, other)
    assert [measured(m) for m in heard] == [measured(m) for m in again]


def test_a_trial_forked_from_the_baseline_equals_one_run_straight(tmp_path: Path) -> None:
    plan = a_plan()
    straight, heard = run(plan, None)
    run(plan.dense(), tmp_path, saves=[2])
    forked, again = run(plan, tmp_path)
    assert forked.inherited_epochs == 2
    assert same_weights(straight, forked)
    assert measured(again[-1]) == measured(heard[-1])
    assert again[-1]["training_macs"] < heard[-1]["training_macs"]


@pytest.mark.parametrize("boundary", range(1, 8))
def test_a_trial_that_was_saved_and_not_heard_of_tells_what_it_would_have(tmp_path: Path, boundary: int) -> None:
    """Of six epochs and two events: after epochs 2 and 4 there is a boundary before the event, and one after it."""
    store, heard = StageStore(tmp_path), []
    whole = LappedTrial(a_plan(), store=store, saves=range(1, 7))
    while not whole.done:
        heard.append(whole.step())
    for lap in whole.laps[boundary:]:
        store.discard(lap.key)
    resumed = Trial(a_plan(), store=store)
    assert resumed.progress.key == whole.laps[boundary - 1].key
    told = resumed.catch_up()
    known = ("accuracy", "loss", "keep_macs", "macs", "epoch", "events", "training_macs_alone")
    assert [told[name] for name in known] == [heard[told["epoch"] - 1][name] for name in known]
    while not resumed.done:
        last = resumed.step()
    assert same_weights(whole, resumed)
    assert measured(last) == measured(heard[-1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_with_deterministic_algorithms_forked_equals_straight(tmp_path: Path, precision: str) -> None:
    plan = a_plan(train={"epochs": 6, "batch_size": 32, "precision": precision, "memory_format": "channels_last"})
    straight, heard = run(plan, None, device="cuda")
    run(plan.dense(), tmp_path, saves=[2], device="cuda")
    forked, again = run(plan, tmp_path, device="cuda")
    assert forked.inherited_epochs == 2
    assert same_weights(straight, forked)
    assert measured(again[-1]) == measured(heard[-1])


def test_a_finished_trial_is_answered_from_the_store(tmp_path: Path) -> None:
    _, heard = run(a_plan(), tmp_path)
    _, again = run(a_plan(), tmp_path)
    assert len(again) == 1
    assert measured(again[0]) == measured(heard[-1])
    assert again[0]["training_macs"] == 0


def test_trials_share_what_they_agree_on_and_no_more(tmp_path: Path) -> None:
    run(a_plan(), tmp_path)
    other = Trial(a_plan(recover={"name": "cosine"}), store=StageStore(tmp_path))
    assert (other.progress.epochs, other.progress.events) == (2, 1)  # up to the first event, damage included
    unlike = {"criterion": "l1", "schedule": {"name": "every", "interval": 2, "until": 4}, "amount": {"keep_macs": 0.4}}
    assert Trial(a_plan(prune=unlike), store=StageStore(tmp_path)).progress.epochs == 0  # nobody saved the trunk


def test_a_damaged_boundary_is_computed_again(tmp_path: Path) -> None:
    straight, heard = run(a_plan(), tmp_path)
    model = tmp_path / straight.progress.key[:2] / straight.progress.key / checkpoint.MODEL
    model.write_bytes(model.read_bytes()[:100])
    again, reported = run(a_plan(), tmp_path)
    assert same_weights(straight, again)
    assert measured(reported[-1]) == measured(heard[-1])


def test_a_checkpoint_loads_as_the_network_it_was(tmp_path: Path) -> None:
    trial, _ = run(a_plan(), tmp_path)
    assert trial.store is not None
    folder = trial.store.fetch(trial.progress.key)
    assert folder is not None
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(checkpoint.load_model(folder)(images), trial.model.eval()(images))


@pytest.mark.parametrize("damage", ["format", "truncated", "shape", "removal", "traversal"])
def test_a_checkpoint_that_cannot_be_trusted_is_refused(tmp_path: Path, damage: str) -> None:
    trial, _ = run(a_plan(), tmp_path)
    folder = tmp_path / trial.progress.key[:2] / trial.progress.key
    state = json.loads((folder / checkpoint.STATE).read_text())
    name = next(iter(state["removal"]))
    if damage == "format":
        state["format"] = 99
    elif damage == "shape":
        state["removal"].pop(name)
    elif damage == "removal":
        state["removal"][name]["0"] = [10**6]
    elif damage == "traversal":
        state["removal"]["../../etc/passwd"] = {"0": [0]}
    (folder / checkpoint.STATE).write_text(json.dumps(state))
    if damage == "truncated":
        (folder / checkpoint.MODEL).write_bytes((folder / checkpoint.MODEL).read_bytes()[:-1])
    with pytest.raises(DamagedCheckpoint, match=r"state\.json|model\.safetensors"):
        checkpoint.load_model(folder)


def test_an_infinite_loss_ends_the_trial_with_epoch_and_reason() -> None:
    plan = a_plan(train={"epochs": 6, "batch_size": 32, "learning_rate": 1e30})
    with pytest.raises(TrialFailed, match="epoch 0") as failure:
        run_trial(plan, report=lambda metrics: None)
    assert "loss" in failure.value.reason


def test_an_amount_out_of_reach_fails_before_anything_is_cut_and_names_a_layer() -> None:
    prune = {"criterion": "l1", "schedule": {"name": "once", "after": 0}, "amount": {"keep_macs": 0.0001}}
    trial = Trial(a_plan(prune=prune))
    widths = {name: tensor.shape for name, tensor in trial.model.state_dict().items()}
    with pytest.raises(TrialFailed, match=r"macs are out of reach: .* left; '[\w.]+' costs most"):
        trial.step()
    assert {name: tensor.shape for name, tensor in trial.model.state_dict().items()} == widths


def test_training_macs_count_every_epoch_at_its_own_widths_and_every_pass_of_the_criterion() -> None:
    magnitude = a_plan(
        prune={"criterion": "l1", "schedule": {"name": "once", "after": 2}, "amount": {"keep_macs": 0.4}}
    )
    _, heard = run(magnitude, None)
    dense, pruned = heard[0]["macs"], heard[-1]["macs"]
    assert heard[-1]["training_macs"] == 3 * 200 * (3 * dense + 3 * pruned)
    probing = a_plan(
        prune={"criterion": "taylor", "schedule": {"name": "once", "after": 2}, "amount": {"keep_macs": 0.4}}
    )
    _, charged = run(probing, None)
    # There and back over 200 images, without the gradient of any weight.
    assert charged[2]["training_macs"] == 3 * 200 * 3 * dense + 2 * 200 * dense


RUN_IN_A_PROCESS = """
import sys
from pathlib import Path
from spaces.plan import Plan
from trainables.store import StageStore
from trainables.trial import run_trial
plan = Plan.model_validate_json(Path(sys.argv[1]).read_text())
run_trial(plan, store=StageStore(sys.argv[2]), report=lambda metrics: print(metrics["epoch"], flush=True))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_process_killed_at_twenty_random_moments_resumes_to_the_same_numbers(tmp_path: Path, optimizer: str) -> None:
    train = {"epochs": 12, "batch_size": 16, "learning_rate": 0.05, "optimizer": optimizer, "checkpoint_minutes": 0.0}
    plan = a_plan(train=train)
    straight, heard = run(plan, None)
    kills = _killed_until_done(plan, tmp_path, kills=20, longest=1.5)
    resumed = Trial(plan, store=StageStore(tmp_path / "store"))
    assert kills == 20
    assert resumed.done
    assert same_weights(straight, resumed)
    assert measured(resumed.step()) == measured(heard[-1])


def test_a_process_killed_in_its_prime_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    plan = a_plan(train={"epochs": 8, "batch_size": 16, "learning_rate": 0.05, "checkpoint_minutes": 0.0})
    straight, heard = run(plan, None)
    assert _killed_until_done(plan, tmp_path, kills=2, longest=0.5) == 2
    resumed = Trial(plan, store=StageStore(tmp_path / "store"))
    assert same_weights(straight, resumed)
    assert measured(resumed.step()) == measured(heard[-1])


def _killed_until_done(plan: Plan, folder: Path, *, kills: int, longest: float) -> int:
    """Run the plan in processes of which the first `kills` get a SIGKILL, at moments counted from their first epoch."""
    moments = random.Random(7)
    (folder / "plan.json").write_text(plan.model_dump_json())
    command = [sys.executable, "-c", RUN_IN_A_PROCESS, str(folder / "plan.json"), str(folder / "store")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = 0
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0.0, longest))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        killed += 1
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    return killed
