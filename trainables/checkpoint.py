"""A trial's state as files that execute nothing: two safetensors files and one JSON file.

    model.safetensors       parameters and buffers, at their present widths
    optimizer.safetensors   state tensors as `parameter name/state name`
    acting.safetensors      state of what acts beside the recipe, such as masks; absent where nothing does
    state.json              plan, boundary, removal, widths, damage, metrics, format and library versions

Does NOT cover where checkpoints lie (`store`) nor when one is written (`trial`).
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spaces.errors import PrunefrontError, UserError
from spaces.plan import Plan
from trainables.keys import FORMAT
from trainables.models import InputShape, build_dense
from trainables.pruning.growth import GROWN
from trainables.pruning.removal import Removal, apply

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
ACTING = "acting.safetensors"


class DamagedCheckpoint(PrunefrontError):
    """A checkpoint that cannot be trusted: truncated, of another format, or not of this network."""


@dataclass(frozen=True)
class Progress:
    """How far a trial has come, and what it needs to go on from there."""

    epochs: int  # completed
    events: int  # fired
    key: str
    events_at: tuple[int, ...]  # the epoch count at which each event fired
    removed_fraction: float  # of the weights, by the last event
    norm_ratio: float  # of the weights it removed, against all
    streams_cut: int  # channels taken from residual streams so far
    training_macs: int  # of the whole chain up to here, as if run alone
    metrics: dict[str, Any]

    @classmethod
    def at_start(cls, key: str) -> "Progress":
        """Boundary 0, named `key`."""
        return cls(
            epochs=0,
            events=0,
            key=key,
            events_at=(),
            removed_fraction=0.0,
            norm_ratio=0.0,
            streams_cut=0,
            training_macs=0,
            metrics={},
        )


@dataclass(frozen=True)
class Checkpoint:
    """What `state.json` says, read and checked."""

    plan: Plan
    shape: InputShape
    removal: Removal
    widths: dict[str, int]
    progress: Progress
    acting: tuple[str, ...]  # names of the tensors in acting.safetensors
    folder: Path


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    plan: Plan,
    shape: InputShape,
    removal: Removal,
    widths: dict[str, int],
    progress: Progress,
    acting: dict[str, Tensor] | None = None,
) -> None:
    """Write the files and flush them to disk. Publishing the folder whole is the store's part.

    Raises UserError for a network that has grown: what is kept of the dense one does not describe it.
    """
    if getattr(model, GROWN, False):
        raise UserError("a network that has grown cannot be saved: a checkpoint says what is kept of the dense network")
    save_file(_separate(model.state_dict()), folder / MODEL)
    save_file(_separate(optimizer_tensors(model, optimizer)), folder / OPTIMIZER)
    if acting:
        save_file(_separate(acting), folder / ACTING)
    state = {
        "format": FORMAT,
        "plan": plan.model_dump(mode="json"),
        "shape": asdict(shape),
        "removal": {name: {str(dim): kept for dim, kept in dims.items()} for name, dims in removal.items()},
        "widths": widths,
        "progress": asdict(progress),
        "acting": sorted(acting or {}),
        "versions": {"torch": torch.__version__, "safetensors": safetensors.__version__},
    }
    (folder / STATE).write_text(json.dumps(state, indent=1, allow_nan=False))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def read(folder: Path) -> Checkpoint:
    """The checkpoint's description. Raises DamagedCheckpoint where it is not one of ours, or not whole."""
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(f"{folder / STATE}: not readable: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        got = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise DamagedCheckpoint(f"{folder / STATE}: format {got!r}; this version reads format {FORMAT}")
    try:
        progress = dict(state["progress"])
        progress["events_at"] = tuple(progress["events_at"])
        return Checkpoint(
            plan=Plan.model_validate(state["plan"]),
            shape=InputShape(**state["shape"]),
            removal=_removal(state["removal"]),
            widths={str(name): int(width) for name, width in state["widths"].items()},
            progress=Progress(**progress),
            acting=tuple(map(str, state.get("acting", ()))),
            folder=folder,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedCheckpoint(f"{folder / STATE}: {type(error).__name__}: {error}") from error


def load_model(folder: Path) -> nn.Module:
    """The network of a checkpoint, on the CPU, in eval mode: the dense one built anew, cut, and filled."""
    checkpoint = read(folder)
    model = build_dense(checkpoint.plan.model, checkpoint.shape)
    if checkpoint.plan.train.precision == "float64":
        model = model.double()
    restore(checkpoint, model)
    return model.eval()


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Cut a dense `model` as the checkpoint says and fill it, and the optimizer's state with it."""
    weights = _tensors(checkpoint.folder / MODEL)
    try:
        apply(model, checkpoint.removal)
    except UserError as error:
        raise DamagedCheckpoint(f"{checkpoint.folder / STATE}: {error}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wanted != got:
        odd = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
        first = odd[0]
        raise DamagedCheckpoint(
            f"{checkpoint.folder / MODEL}: {first} is {got.get(first, 'absent')}; "
            f"the plan's network has {wanted.get(first, 'no such tensor')} ({len(odd)} tensors disagree)"
        )
    model.load_state_dict(weights)
    if optimizer is not None:
        fill_optimizer(model, optimizer, _tensors(checkpoint.folder / OPTIMIZER))


def acting_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The state of what acted beside the recipe. Raises DamagedCheckpoint where it is not all there."""
    if not checkpoint.acting:
        return {}
    tensors = _tensors(checkpoint.folder / ACTING)
    if sorted(tensors) != sorted(checkpoint.acting):
        raise DamagedCheckpoint(f"{checkpoint.folder / ACTING}: not the tensors that {STATE} names")
    return tensors


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state tensors as `parameter name/state name`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{entry}": value
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
        if isinstance(value, Tensor)
    }


def fill_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put saved state back beside its parameters; a step counter stays on the CPU, as torch keeps it."""
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for path, value in tensors.items():
        name, _, entry = path.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or (value.dim() > 0 and value.shape != parameter.shape):
            raise DamagedCheckpoint(f"optimizer state '{path}' of shape {tuple(value.shape)} fits no parameter")
        kept = value if value.dim() == 0 else torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        optimizer.state[parameter][entry] = kept


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors of which no two share memory, as safetensors wants them."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        separate[name] = plain.clone() if plain.data_ptr() in seen else plain
        seen.add(plain.data_ptr())
    return separate


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise DamagedCheckpoint(f"{path}: not readable: {error}") from error


def _removal(written: dict[str, dict[str, list[int]]]) -> Removal:
    return {
        name: {int(dim): [int(index) for index in kept] for dim, kept in dims.items()} for name, dims in written.items()
    }
