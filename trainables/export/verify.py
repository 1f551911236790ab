"""Checks an exported directory again: files whole, nothing in them that runs, outputs and accuracy as recorded."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spaces.errors import PrunefrontError, UserError
from spaces.plan import Plan
from trainables.data import load_data
from trainables.export.architecture import CONSTRUCTOR, LOADER, constructor_source, loader_source
from trainables.export.card import CARD, METRICS
from trainables.export.card import FORMAT as METRICS_FORMAT
from trainables.export.checksums import CHECKSUMS, is_intact, read_checksums
from trainables.export.comparison import Comparison, Progress, check, compare
from trainables.export.forms import FORMS, ONNX, PROGRAM
from trainables.export.network import FORMAT
from trainables.export.records import check_onnx, check_program
from trainables.export.write import ARCHITECTURE, import_path, with_root


class Damaged(PrunefrontError):
    """An exported directory whose files are not what was written."""


def verify(
    directory: Path,
    *,
    data_root: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Repeat what `export` proved, without the checkpoint: the forms against each other and the recorded accuracy.

    Raises UserError where the directory, a file of it or the data is missing; Damaged, Unsafe or Disagreement where
    the directory is not sound. No code of the directory is run: `network.py` and `constructor.py` are our own copies.
    """
    architecture, metrics = _read(directory)
    check_program(directory / PROGRAM)
    check_onnx(directory / ONNX)
    _check_checksums(directory)
    plan = _plan(directory, metrics)
    model = architecture["constructor"]["function"]
    data = with_root(plan.data, data_root)
    splits = load_data(data, device="cpu")
    if splits.fingerprint != metrics["data_fingerprint"]:
        raise UserError(f"the validation images of '{data.name}' are not those that {directory} was exported with")
    with tempfile.TemporaryDirectory(prefix="prunefront-verify-") as scratch:
        code = _our_code(directory, Path(scratch), model, say)
        comparison = compare(
            directory,
            code,
            tuple(FORMS),
            splits.validation,
            plan.train,
            network=None,
            path=import_path(model),
            progress=progress,
        )
    check(comparison, recorded=metrics["correct"])
    return comparison


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`architecture.json` and `metrics.json`, once every file is known to be there."""
    if not directory.is_dir():
        raise UserError(f"no directory {directory}")
    wanted = [ARCHITECTURE, METRICS, *FORMS.values(), LOADER, CARD, CHECKSUMS]
    missing = [name for name in wanted if not (directory / name).is_file()]
    if missing:
        raise UserError(f"{directory} is not an export, or not all of it: no {', '.join(missing)}")
    architecture = _json(directory / ARCHITECTURE, FORMAT, ("constructor", "input", "normalisation", "kept"))
    metrics = _json(directory / METRICS, METRICS_FORMAT, ("correct", "plan", "data_fingerprint"))
    constructor = architecture["constructor"]
    if not isinstance(constructor, dict) or not isinstance(constructor.get("function"), str):
        raise Damaged(f"{directory / ARCHITECTURE}: it names no constructor")
    if constructor.get("from") == CONSTRUCTOR and not (directory / CONSTRUCTOR).is_file():
        raise UserError(f"{directory} is not an export, or not all of it: no {CONSTRUCTOR}")
    return architecture, metrics


def _json(path: Path, version: int, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"{path}: damaged: {error}") from error
    if not isinstance(value, dict) or value.get("format") != version:
        got = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise Damaged(f"{path}: format {got!r}; this version reads format {version}")
    lacking = [key for key in keys if key not in value]
    if lacking:
        raise Damaged(f"{path}: damaged: no '{lacking[0]}'")
    return value


def _plan(directory: Path, metrics: dict[str, Any]) -> Plan:
    try:
        return Plan.model_validate(metrics["plan"])
    except ValidationError as error:
        raise Damaged(f"{directory / METRICS}: the plan in it is not one: {error.errors()[0]['msg']}") from error


def _check_checksums(directory: Path) -> None:
    checksums = read_checksums(directory)
    if checksums is None:
        raise Damaged(f"{directory / CHECKSUMS}: damaged")
    present = {path.name for path in directory.iterdir() if path.is_file()} - {CHECKSUMS}
    for name in sorted(present | checksums.keys()):
        if name not in checksums:
            raise Damaged(f"{directory / name}: not part of the export: {CHECKSUMS} does not name it")
        if name not in present:
            raise UserError(f"{directory} is not an export, or not all of it: no {name}")
        if not is_intact(directory / name, checksums[name]):
            raise Damaged(f"{directory / name}: damaged or changed: it does not match {CHECKSUMS}")


def _our_code(directory: Path, scratch: Path, model: str, say: Callable[[str], None]) -> Path:
    """Fresh copies of our Python files, the only ones to run; says so where the directory's are others."""
    ours = {LOADER: loader_source()}
    source = constructor_source(model)
    if source is not None:
        ours[CONSTRUCTOR] = source
    for name, text in ours.items():
        (scratch / name).write_text(text)
        if (directory / name).read_bytes() != text.encode():
            say(f"{directory / name} is not what this version writes, and is not run: ours is")
    return scratch
