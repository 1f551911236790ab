"""Recorded trials, a line each: what survives when whoever records them is killed.

Does NOT cover the whole, compact record that is shipped (`search.record`).
"""

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from search.record import Recorded
from spaces.errors import UserError
from spaces.lap import Lap


class RecordedLines:
    """A file that grows by a line for every trial; `trials` holds them by plan hash, in the order of the file."""

    def __init__(self, file: Path, header: str) -> None:
        """`header`: what its trials have in common. Raises UserError for another's file or a damaged one."""
        self.trials: dict[str, Recorded] = {}
        try:
            whole = self._read(file, header) if file.exists() else 0
            self._file = file.open("a")
            self._file.truncate(whole)  # a line that a kill tore is cut off
            if not whole:
                self._write({"header": header})
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror or error}", file=file) from error

    def append(self, trial: Recorded) -> None:
        """Take a trial in; one that is known already changes nothing."""
        if trial.plan_hash not in self.trials:
            self._write(asdict(trial))
            self.trials[trial.plan_hash] = trial

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """No more trials follow."""
        self._file.close()

    def _write(self, line: object) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _read(self, file: Path, header: str) -> int:
        """How many bytes of whole lines there are."""
        whole = 0
        for number, line in enumerate(file.read_bytes().splitlines(keepends=True)):
            if not line.endswith(b"\n"):
                break
            try:
                self._take(json.loads(line), header if number == 0 else None, file)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise UserError(
                    f"this line is damaged: {error}; remove the file", file=file, line=number + 1
                ) from error
            whole += len(line)
        return whole

    def _take(self, written: dict[str, object], header: str | None, file: Path) -> None:
        if header is not None:
            if written.get("header") != header:
                raise UserError("it was begun for something else; remove it to begin anew", file=file)
            return
        laps: list[dict[str, object]] = written.pop("laps")  # type: ignore[assignment]
        trial = Recorded(laps=tuple(Lap(**lap) for lap in laps), **written)  # type: ignore[arg-type]
        self.trials[trial.plan_hash] = trial
