"""Runs the exported forms of a network in a process of its own, where nothing of prunefront can be imported.

    python -I forms_runner.py '{"directory": ..., "code": ..., "forms": [...], "path": [...], "blocked": [...]}'

Every line on standard input names a .npy file of images; it is answered on standard output by one JSON line,
{form: .npy file of logits}. `code` is the folder of the `network.py` and `constructor.py` to use, `path` is where a
constructor of the user's own is imported from, `blocked` what must not be imported.

Run by path, so it imports nothing of ours.
"""

import importlib.abc
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy

Run = Callable[[Any], Any]


class Blocked(importlib.abc.MetaPathFinder):
    """Makes every import of some packages fail, as on a machine that does not have them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse the packages by name; say nothing about others."""
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name}: an exported network must not need prunefront", name=name)


def safetensors(directory: Path, code: Path) -> Run:
    """`network.py` with architecture.json and model.safetensors."""
    import torch

    spec = importlib.util.spec_from_file_location("network", code / "network.py")
    assert spec is not None, "a path that ends in .py has a loader"
    assert spec.loader is not None, "a path that ends in .py has a loader"
    network = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(network)
    model = network.load(directory, constructor=code / "constructor.py")

    def run(images: Any) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()

    return run


def pt2(directory: Path, code: Path) -> Run:
    """`model.pt2`, whose records were looked at before."""
    import torch
    from torch.export.pt2_archive._package import load_pt2

    # What `torch.export.load` calls, without its fall back to an older kind of archive that nobody looked at.
    model = load_pt2(str(directory / "model.pt2")).exported_programs["model"].module()

    def run(images: Any) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()

    return run


def onnx(directory: Path, code: Path) -> Run:
    """`model.onnx` on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(directory / "model.onnx"), sess_options=options, providers=["CPUExecutionProvider"]
    )

    def run(images: Any) -> Any:
        return session.run(["logits"], {"images": images})[0]

    return run


def main(request: dict[str, Any]) -> None:
    """Load the forms, then answer line by line until standard input ends."""
    directory, code = Path(request["directory"]), Path(request["code"])
    loaders = {"safetensors": safetensors, "pt2": pt2, "onnx": onnx}
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not mix with the answers
    sys.path[:0] = request["path"]
    sys.meta_path.insert(0, Blocked(request["blocked"]))
    step = "importing torch"
    try:
        import torch

        torch.set_num_threads(1)
        runs = {}
        for form in request["forms"]:
            step = f"loading {form}"
            runs[form] = loaders[form](directory, code)
        for line in sys.stdin:
            source = Path(line.strip())
            images = numpy.load(source, allow_pickle=False)
            written = {}
            for form, run in runs.items():
                step = f"running {form}"
                written[form] = str(source.with_name(f"{form}.npy"))
                numpy.save(written[form], numpy.asarray(run(images)), allow_pickle=False)
            print(json.dumps(written), file=answers, flush=True)
    except Exception as error:  # told to whoever started this process, who cannot see the exception
        reason = " ".join(str(error).split())[:400]
        print(json.dumps({"failed": f"{step}: {type(error).__name__}: {reason}"}), file=answers, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
