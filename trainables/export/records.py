"""Whether `model.pt2` and `model.onnx` are data alone, found out without running anything in them.

`torch.export.load` unpickles sample inputs, constants and weights that say so, evaluates the text of shape
expressions and guards, and calls operators by name. So each record is looked at first, with the same reader that
`torch.export.load` uses, and what an export of ours never holds is refused.
"""

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export.pt2_archive import PT2ArchiveReader

from spaces.errors import PrunefrontError

KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)"
)
OPERATOR = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|ge|gt|le|lt)")
EXPRESSION = frozenset(
    {
        "Symbol",
        "Integer",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Max",
        "Min",
        "Eq",
        "Ne",
        "Ge",
        "Gt",
        "Le",
        "Lt",
        "Mod",
        "PythonMod",
        "ModularIndexing",
        "FloorDiv",
        "CleanDiv",
        "CeilDiv",
    }
)
SYNTAX = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.USub)


class Unsafe(PrunefrontError):
    """A file that may run code when it is loaded, or that is not what an export writes."""


def check_program(path: Path) -> None:
    """Raises Unsafe where loading or running `model.pt2` could do more than compute with tensors."""
    try:
        # From memory: what is looked at is all of what was read.
        reader = PT2ArchiveReader(io.BytesIO(path.read_bytes()))
        names = reader.get_file_names()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise Unsafe(f"{path.name}: not an archive of torch.export") from error
    for name in names:
        if not KNOWN.fullmatch(name):
            raise Unsafe(f"{path.name}: refused: it holds a record '{name}', which an export never has")
    try:
        for config in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
            _check_tensors(json.loads(reader.read_string(config)), path.name)
        _check_graph(json.loads(reader.read_string("models/model.json")), path.name)
        samples = reader.read_bytes("data/sample_inputs/model.pt")
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unsafe(f"{path.name}: damaged: {type(error).__name__}") from error
    try:
        if samples:
            torch.load(io.BytesIO(samples), weights_only=True)
    except Exception as error:  # whatever the restricted reader objects to
        raise Unsafe(f"{path.name}: refused: its sample inputs are not tensors alone and may run code") from error


def _check_tensors(config: dict[str, Any], file: str) -> None:
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise Unsafe(f"{file}: refused: '{name}' is pickled and may run code")


def _check_graph(program: dict[str, Any], file: str) -> None:
    if program["guards_code"]:
        raise Unsafe(f"{file}: refused: it holds code of its own (guards)")
    for key, value in _entries(program):
        if key == "target" and isinstance(value, str) and not OPERATOR.fullmatch(value):
            raise Unsafe(f"{file}: refused: it calls '{value}', which is no operator on tensors")
        if key == "expr_str" and not _is_arithmetic(value):
            raise Unsafe(f"{file}: refused: a shape in it is code, not arithmetic")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at whatever depth."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _entries(item)
    elif isinstance(value, list):
        for item in value:
            yield from _entries(item)


def _is_arithmetic(text: Any) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, TypeError, ValueError, RecursionError):
        return False
    return all(
        isinstance(node, SYNTAX)
        and (not isinstance(node, ast.Name) or node.id in EXPRESSION)
        and (not isinstance(node, ast.Call) or isinstance(node.func, ast.Name))
        and (not isinstance(node, ast.Constant) or _is_plain(node.value))
        for node in nodes
    )


def _is_plain(value: object) -> bool:
    """A number, or the name of a symbol: sympy evaluates other text."""
    return isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"[su]\d+", value) is not None)


def check_onnx(path: Path) -> None:
    """Raises Unsafe where `model.onnx` reads other files or needs operators that are not ONNX's own."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises many kinds
        raise Unsafe(f"{path.name}: damaged: {type(error).__name__}") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise Unsafe(f"{path.name}: refused: it reads another file")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # so does the checker
        raise Unsafe(f"{path.name}: damaged: {type(error).__name__}") from error
    foreign = {opset.domain for opset in model.opset_import} - {"", "ai.onnx", "pkg.onnxscript.torch_lib.common"}
    if foreign:
        raise Unsafe(f"{path.name}: refused: it needs operators of {', '.join(sorted(foreign))}")


def _tensors(model: Any) -> Iterator[Any]:
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                graphs += [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)
