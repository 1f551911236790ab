"""Writes the directory of one trial's network: first beside its place, verified there, then renamed.

So a directory appears whole and proven, or not at all.
"""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from spaces.errors import UserError
from spaces.plan import Data
from trainables import checkpoint as checkpoints
from trainables.checkpoint import Checkpoint
from trainables.data import Splits, load_data
from trainables.export.architecture import CONSTRUCTOR, LOADER, constructor_source, described, loader_source
from trainables.export.card import CARD, METRICS, card_of, metrics_of
from trainables.export.checksums import CHECKSUMS, write_checksums
from trainables.export.comparison import Progress, check, compare
from trainables.export.forms import FORMS, write_forms

ARCHITECTURE = "architecture.json"
FILES = frozenset([*FORMS.values(), ARCHITECTURE, LOADER, CONSTRUCTOR, METRICS, CARD, CHECKSUMS])
"""Every file that an export may hold."""


def export(
    folder: Path,
    target: Path,
    *,
    data_root: str | None = None,
    origin: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Export the checkpoint in `folder` to the directory `target`; returns what `metrics.json` says.

    An earlier export at `target` is replaced. `origin` says where the checkpoint came from. Raises UserError for a
    target that is something else, Disagreement where a form does not give the recorded accuracy and outputs.
    """
    check_target(target)
    saved = checkpoints.read(folder)
    if saved.progress.epochs < saved.plan.train.epochs or "accuracy" not in saved.progress.metrics:
        raise UserError(f"{folder} is a trial after {saved.progress.epochs} of {saved.plan.train.epochs} epochs")
    splits = load_data(with_root(saved.plan.data, data_root), device="cpu")
    network = checkpoints.load_model(folder)
    draft = _draft_beside(target)
    try:
        say(f"writing {', '.join(FORMS.values())}")
        write_network(draft, saved, network, splits)
        say(f"running each of them on {len(splits.validation):,} validation images in a fresh process")
        comparison = compare(
            draft,
            draft,
            tuple(FORMS),
            splits.validation,
            saved.plan.train,
            network=network,
            path=import_path(saved.plan.model.name),
            progress=progress,
        )
        check(comparison, recorded=round(saved.progress.metrics["accuracy"] * comparison.images))
        metrics = metrics_of(saved, network, splits, comparison, draft, origin or {})
        architecture = json.loads((draft / ARCHITECTURE).read_text())
        write_json(draft / METRICS, metrics)
        (draft / CARD).write_text(card_of(metrics, architecture))
        write_checksums(draft)
        _publish(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return metrics


def check_target(target: Path) -> None:
    """Raises UserError where `target` is neither free nor an earlier export."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise UserError(f"cannot export to {target}: it is a file")
    present = {path.name for path in target.iterdir()} - {"__pycache__"}
    if not present:
        return
    foreign = sorted(present - FILES)
    if foreign or ARCHITECTURE not in present:
        first = foreign[0] if foreign else sorted(present)[0]
        raise UserError(f"cannot export to {target}: it holds '{first}', which is not an earlier export's; not touched")


def with_root(data: Data, root: str | None) -> Data:
    """The plan's data, read from another folder where one is given."""
    return data if root is None else data.model_copy(update={"root": root})


def import_path(model: str) -> tuple[str, ...]:
    """Where a constructor of the user's own is imported from; empty for all others."""
    return tuple(entry or os.getcwd() for entry in sys.path) if ":" in model else ()


def write_network(draft: Path, saved: Checkpoint, network: nn.Module, splits: Splits) -> None:
    """The three forms, `architecture.json`, `network.py`, and `constructor.py` where it is one of ours."""
    (draft / LOADER).write_text(loader_source())
    source = constructor_source(saved.plan.model.name)
    if source is not None:
        (draft / CONSTRUCTOR).write_text(source)
    write_json(draft / ARCHITECTURE, described(saved, network, draft, mean=splits.mean, std=splits.std))
    shutil.rmtree(draft / "__pycache__", ignore_errors=True)  # of building the dense network
    double = saved.plan.train.precision == "float64"
    write_forms(checkpoints.load_model(saved.folder).float() if double else network, saved.shape, draft)


def write_json(path: Path, value: Any) -> None:
    """JSON that every reader takes: no NaN."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def _draft_beside(target: Path) -> Path:
    draft = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}"
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write to {target.parent}: {error.strerror or error}") from error
    return draft


def _publish(draft: Path, target: Path) -> None:
    """Put `draft` in the place of `target`; an earlier export comes back if that fails."""
    if not target.exists():
        draft.rename(target)
        return
    earlier = draft.with_name(draft.name + "-earlier")
    target.rename(earlier)
    try:
        draft.rename(target)
    except OSError:
        earlier.rename(target)
        raise
    shutil.rmtree(earlier)
