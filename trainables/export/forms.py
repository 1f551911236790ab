"""The three forms of a network: model.safetensors, model.pt2 (torch.export) and model.onnx, all with any batch size."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import save
from torch import nn
from torch.export import Dim, ExportedProgram

from spaces.errors import PrunefrontError
from trainables.models import InputShape

WEIGHTS, PROGRAM, ONNX = "model.safetensors", "model.pt2", "model.onnx"
FORMS = {"safetensors": WEIGHTS, "pt2": PROGRAM, "onnx": ONNX}


class CannotExport(PrunefrontError):
    """A network that one of the forms cannot hold."""


def write_forms(model: nn.Module, shape: InputShape, directory: Path) -> None:
    """Write the three files. `model` is in eval mode, float32, on the CPU. Raises CannotExport."""
    write_weights(model, directory / WEIGHTS)
    program = _program(model, shape)
    try:
        torch.export.save(program, directory / PROGRAM)
    except Exception as error:
        raise CannotExport(f"{PROGRAM} cannot be written: {_first_line(error)}") from error
    _write_onnx(program, shape, directory / ONNX)


def write_weights(model: nn.Module, path: Path) -> None:
    """Every tensor of the state under its own name; those that share memory are written once for each."""
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    path.write_bytes(save(tensors))  # `save_file` would make a file that its owner alone can read


def _program(model: nn.Module, shape: InputShape) -> ExportedProgram:
    example = torch.zeros(2, shape.channels, shape.height, shape.width)
    try:
        with torch.no_grad():
            program = torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:  # whatever a network does that torch.export cannot follow
        raise CannotExport(f"torch.export cannot follow this network: {_first_line(error)}") from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # names folders of this machine
    return program


def _write_onnx(program: ExportedProgram, shape: InputShape, path: Path) -> None:
    example = torch.zeros(2, shape.channels, shape.height, shape.width)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                program,
                (example,),
                path,
                input_names=["images"],
                output_names=["logits"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise CannotExport(f"{ONNX} cannot be written: {_first_line(error)}") from error
    _name_the_batch(path)


def _name_the_batch(path: Path) -> None:
    """Call the free dimension `batch`, where torch calls it by a number."""
    model = onnx.load(path)
    graph: Any = model.graph
    free = {graph.input[0].type.tensor_type.shape.dim[0].dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in free and dim.dim_param:
                dim.dim_param = "batch"
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
