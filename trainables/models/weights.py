"""Initial weights of a network: torchvision's by name, or a .safetensors file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spaces.errors import UserError
from trainables.models.published import published_weights


def load_weights(network: nn.Module, *, model: str, weights: str) -> None:
    """Fill `network` with `weights`. Raises UserError, before anything is changed, where they do not fit."""
    tensors = _read(Path(weights)) if weights.endswith(".safetensors") else published_weights(model, weights)
    own = network.state_dict()
    tensors = {name: tensor for name, tensor in tensors.items() if name in own or not _is_auxiliary(name)}
    _check_fit(own, tensors, f"weights '{weights}' do not fit model '{model}'")
    network.load_state_dict(tensors)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"no weights file '{path}'")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read weights file '{path}': {error}") from error


def _is_auxiliary(name: str) -> bool:
    return name.startswith(("aux1.", "aux2.", "AuxLogits."))


def _check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str) -> None:
    """One line that names the first misfit of each sort."""
    faults = []
    missing = [name for name in own if name not in given]
    if missing:
        faults.append(f"{len(missing)} tensors are missing, first '{missing[0]}'")
    strange = [name for name in given if name not in own]
    if strange:
        faults.append(f"{len(strange)} are unknown, first '{strange[0]}'")
    shapes = [name for name in own if name in given and own[name].shape != given[name].shape]
    if shapes:
        name = shapes[0]
        faults.append(
            f"{len(shapes)} have another shape, first '{name}': {list(given[name].shape)} given, "
            f"{list(own[name].shape)} needed"
        )
    if faults:
        raise UserError(f"{what}: {'; '.join(faults)}")
