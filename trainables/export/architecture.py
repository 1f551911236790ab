"""What an exported directory says about its network: how the dense one is built, and what was kept of it.

Does NOT cover the weights (`forms`), nor reading it where prunefront is not installed (`network`).
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from spaces.errors import UserError
from spaces.plan import Model
from trainables.checkpoint import Checkpoint
from trainables.export import network
from trainables.models import InputShape, source_file
from trainables.models.published import arguments

CONSTRUCTOR, LOADER = "constructor.py", "network.py"
PYDANTIC = "from pydantic import Field\n"
STAND_IN = '''

def Field(**limits: object) -> None:
    """The limits of a setting; they were checked when the network was planned."""


'''


def loader_source() -> str:
    """The text of `network.py`: the same for every export of this version."""
    return Path(network.__file__).read_text()


def constructor_source(model: str) -> str | None:
    """The text of `constructor.py`, which needs torch alone; None where another package builds the network."""
    path = source_file(model)
    if path is None:
        return None
    head, found, body = path.read_text().partition(PYDANTIC)
    if not found:
        return head
    imports, body = _leading_imports(body)
    return head + imports + STAND_IN + body


def _leading_imports(body: str) -> tuple[str, str]:
    """The lines that still import something, and the rest."""
    lines = body.splitlines(keepends=True)
    count = next((number for number, line in enumerate(lines) if line.strip() and not _imports(line)), len(lines))
    return "".join(lines[:count]).rstrip() + "\n", "".join(lines[count:])


def _imports(line: str) -> bool:
    return line.startswith(("import ", "from "))


def described(
    checkpoint: Checkpoint, model: nn.Module, code: Path, *, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """`architecture.json` of the network `model`; `code` is the folder that has its `constructor.py`."""
    document: dict[str, Any] = {
        "format": network.FORMAT,
        "constructor": _constructor(checkpoint.plan.model, checkpoint.shape),
        "input": asdict(checkpoint.shape),
        "normalisation": {"mean": list(mean), "std": list(std)},
        "kept": {},
        "attributes": {},
    }
    dense = network.build(document, code / CONSTRUCTOR).eval()
    tensors = {**dict(dense.named_parameters()), **dict(dense.named_buffers())}
    document["kept"] = {
        name: {str(dim): kept for dim, kept in dims.items()}
        for name, dims in checkpoint.removal.items()
        if name in tensors  # a width that a module keeps as a number is among its attributes
    }
    document["attributes"] = _attributes(dense, model)
    return document


def _constructor(model: Model, shape: InputShape) -> dict[str, Any]:
    settings: dict[str, Any] = dict(model.settings)
    if model.is_users_own:
        return {"from": "module", "function": model.name, "settings": settings}
    if source_file(model.name) is not None:
        return {"from": CONSTRUCTOR, "function": model.name, "settings": settings}
    builtin = {name: value for name, value in arguments(model.name, shape).items() if name != "init_weights"}
    if model.name in ("googlenet", "inception_v3"):
        builtin["init_weights"] = False  # they are loaded, and drawing them takes seconds
    return {"from": "torchvision", "function": model.name, "settings": {**settings, **builtin}}


def _attributes(dense: nn.Module, model: nn.Module) -> dict[str, dict[str, Any]]:
    """The numbers of each module that are not what the dense network has."""
    modules = dict(model.named_modules())
    differing: dict[str, dict[str, Any]] = {}
    for path, module in dense.named_modules():
        if path not in modules:
            raise UserError(f"the network cannot be rebuilt from its constructor: '{path}' is gone")
        mine = vars(modules[path])
        values = {
            name: list(mine[name]) if isinstance(mine[name], tuple) else mine[name]
            for name, value in vars(module).items()
            if name != "training" and _is_number(value) and mine.get(name) != value and _is_number(mine.get(name))
        }
        if values:
            differing[path] = values
    return differing


def _is_number(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(isinstance(item, int) for item in value)
    return isinstance(value, int | float)
