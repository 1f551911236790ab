"""What trials have told: how far they are, the training MACs they executed, in attempts that died too, their pace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class _Account:
    attempts: int = 0
    epochs: int | None = None  # told of, and those that the first attempt began after
    spent: int = 0  # training MACs so far, those of attempts that died among them
    lost: int = 0  # training MACs of earlier attempts
    began: float = 0.0  # of this attempt, by the search's clock
    heard: float = 0.0


class Accounts:
    """One account per trial, and the pace of all: seconds per training MAC."""

    def __init__(self) -> None:
        self._accounts: dict[int, _Account] = {}
        self._seconds, self._macs = 0.0, 0

    def begin(self, number: int, now: float, *, from_epoch: int) -> int:
        """A further attempt begins; returns which one it is, from 1."""
        account = self._accounts.setdefault(number, _Account())
        if account.epochs is None:
            account.epochs = from_epoch
        account.attempts += 1
        account.lost = account.spent
        account.began = account.heard = now
        return account.attempts

    def epochs(self, number: int) -> int | None:
        """How far the log knows the trial to be; None where it has not begun."""
        return self._accounts.get(number, _Account()).epochs

    def charged(self, number: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Metrics whose training MACs are everything that the trial executed."""
        spent = metrics.get("training_macs")
        lost = self._accounts.get(number, _Account()).lost
        return {**metrics} if spent is None else {**metrics, "training_macs": spent + lost}

    def report(self, number: int, charged: Mapping[str, Any], now: float) -> None:
        """A trial has spent what `charged` says."""
        account = self._accounts.setdefault(number, _Account())
        spent = int(charged.get("training_macs", 0))
        self._seconds += now - account.heard
        self._macs += max(0, spent - account.spent)
        account.spent, account.heard = spent, now
        account.epochs = max(account.epochs or 0, int(charged["epoch"]))

    def is_late(self, number: int, now: float, *, theirs: int, ours: int) -> bool:
        """Whether computing `ours` training MACs at the pace of all is quicker than waiting for `theirs` of a trial."""
        account = self._accounts.get(number)
        if account is None or not self._macs:
            return False
        pace = self._seconds / self._macs
        done = account.spent - account.lost
        # A trial that is silent for long is slower than its last report says.
        own = (now - account.began) / done if done else (now - account.began) / max(1, theirs)
        return theirs * own > ours * pace
