"""The two ways a command ends badly: the user can mend it, or something inside broke.

PrunefrontError
├── UserError      one line that says where, what was got, what is allowed; exit status 2
└── TrialFailed    one trial cannot go on (say, an infinite loss); the search goes on without it
"""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class PrunefrontError(Exception):
    """The root of every error this project raises on purpose."""


class UserError(PrunefrontError):
    """A mistake its reader can mend: one line, no traceback, exit status 2."""

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None) -> None:
        where = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        super().__init__(where + message)
        self.message = message
        self.file = file
        self.line = line


class TrialFailed(PrunefrontError):
    """One trial cannot go on; `epoch` is the epoch it was in, `reason` what a summary groups by."""

    def __init__(self, reason: str, *, epoch: int) -> None:
        super().__init__(reason, epoch)  # both in args, so that it survives a trip between processes
        self.reason = reason
        self.epoch = epoch

    def __reduce__(self) -> tuple[object, ...]:
        return (_trial_failed, (self.reason, self.epoch))

    def __str__(self) -> str:
        return f"epoch {self.epoch}: {self.reason}"


class Misfit(ValueError):
    """A value that does not fit a plan, and where below the checked part it stands; the loader adds file and line."""

    def __init__(self, message: str, *below: str) -> None:
        super().__init__(message)
        self.below = below


def _trial_failed(reason: str, epoch: int) -> TrialFailed:
    return TrialFailed(reason, epoch=epoch)


_LISTED = 20  # more names than this are no help on one line: then the nearest are shown


def unknown(what: str, got: str, known: Iterable[str], *, inside: str = "") -> str:
    """One voice for a name nobody knows: `unknown criterion 'magnitud'; did you mean 'magnitude'? known: ...`."""
    names = sorted(known)
    close = get_close_matches(got, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    listed = ", ".join(names) or "none"
    if len(names) > _LISTED:
        listed = f"{', '.join(get_close_matches(got, names, n=6, cutoff=0.0))} ... ({len(names)} in all)"
    return f"unknown {what} '{got}'{f' in {inside}' if inside else ''}{hint} known: {listed}"


def shown(value: object) -> str:
    """A value as a study file would write it, cut to fit on a line."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
