"""Latency as an objective: measured once per architecture, with nobody else on the device."""

import threading
import time
from pathlib import Path

from test_trial import a_plan

from trainables.alone import alone, sharing
from trainables.timed import TimedTrial
from trainables.trial import Trial


def test_the_last_epoch_reports_a_latency_and_equal_networks_are_measured_once(tmp_path: Path) -> None:
    plan = a_plan(train={"epochs": 2, "batch_size": 64, "learning_rate": 0.1}, prune=None, recover="continue")
    heard = []
    for _ in range(2):
        trial = TimedTrial(Trial(plan), batch_size=4, cache=tmp_path)
        while not trial.done:
            heard.append(trial.step())
    assert ["latency_ms" in metrics for metrics in heard] == [False, True, False, True]
    assert heard[1]["latency_ms"] > 0
    assert heard[3]["latency_ms"] == heard[1]["latency_ms"]
    assert len(list(tmp_path.iterdir())) == 1


def test_who_wants_a_device_alone_waits_for_those_who_share_it_and_keeps_newcomers_out() -> None:
    order = []
    first_shares, may_go = threading.Event(), threading.Event()

    def sharer() -> None:
        with sharing("test"):
            first_shares.set()
            may_go.wait()
            order.append("shared")

    def loner() -> None:
        with alone("test"):
            order.append("alone")
            time.sleep(0.2)
            order.append("done")

    def newcomer() -> None:
        with sharing("test"):
            order.append("newcomer")

    threads = [threading.Thread(target=target) for target in (sharer, loner, newcomer)]
    threads[0].start()
    first_shares.wait()
    threads[1].start()
    time.sleep(0.2)  # the gate is shut by now
    threads[2].start()
    time.sleep(0.2)
    assert order == []
    may_go.set()
    for thread in threads:
        thread.join()
    assert order == ["shared", "alone", "done", "newcomer"]
