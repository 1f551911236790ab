"""Proof that exported forms agree: every form answers the validation images in a fresh process, without prunefront.

Does NOT cover whether the files are safe to load (`records`).
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from spaces.errors import PrunefrontError
from spaces.plan import Train
from trainables.data.split import Split
from trainables.export import forms_runner
from trainables.training import set_numerics
from trainables.training.loop import EVALUATION_BATCH
from trainables.training.losses import heads
from trainables.training.numerics import prepared

TOLERANCE = 1e-4
"""Largest difference between outputs, relative to the largest output of the image where that is above 1."""
OURS = ("search", "spaces", "tracking", "trainables")
Progress = Callable[[int, int], None]
"""(images done, images in all)"""


class Disagreement(PrunefrontError):
    """An exported file that does not compute what was recorded."""


@dataclass
class Comparison:
    """What the forms answered, against `reference`: the checkpoint's own network, or the first form."""

    reference: str
    images: int = 0
    correct: dict[str, int] = field(default_factory=dict)  # by form, the reference among them
    largest: dict[str, float] = field(default_factory=dict)  # largest difference to the reference, by form
    undecided: int = 0  # images whose two largest outputs are closer than the recipe's precision can tell


def compare(
    directory: Path,
    code: Path,
    forms: Sequence[str],
    split: Split,
    train: Train,
    *,
    network: nn.Module | None,
    path: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Run `forms` of `directory` on every image of `split`. Raises Disagreement where a form does not load or run.

    `code` has the `network.py` to use; `network` is the reference, the first form where it is None; `path` is where
    a constructor of the user's own is imported from.
    """
    set_numerics(train)  # the reference then adds up in the order that was recorded
    result = Comparison("checkpoint" if network is not None else forms[0])
    with _forms(directory, code, forms, path) as answer, torch.no_grad():
        for images, labels in split.ordered(EVALUATION_BATCH):
            answers = answer(images.to(torch.float32))
            if network is not None:
                own: Tensor = heads(network(prepared(images, train)))[0]
                answers = {"checkpoint": own.float(), **answers}
            _take(result, answers, labels, _precision(train))
            progress(result.images, len(split))
    return result


def check(comparison: Comparison, *, recorded: int) -> None:
    """Raises Disagreement where outputs differ, or the number of right answers is not the recorded one."""
    for form, difference in comparison.largest.items():
        if not difference <= TOLERANCE:
            raise Disagreement(
                f"{form} disagrees with {comparison.reference}: its outputs differ by {difference:.1e} "
                f"(allowed: {TOLERANCE:.0e})"
            )
    for form, correct in comparison.correct.items():
        if abs(correct - recorded) > comparison.undecided:
            raise Disagreement(
                f"{form} classifies {correct} of {comparison.images} validation images right; recorded: {recorded}"
            )


def _take(result: Comparison, answers: dict[str, Tensor], labels: Tensor, precision: float) -> None:
    expected = answers[result.reference]
    scale = expected.abs().amax(1).clamp_min(1.0)
    for form, logits in answers.items():
        right = int((logits.argmax(1) == labels).sum()) if logits.shape == expected.shape else 0
        result.correct[form] = result.correct.get(form, 0) + right
        if form != result.reference:
            worst = _difference(expected, logits, scale)
            result.largest[form] = max(result.largest.get(form, 0.0), worst, key=_nan_is_largest)
    top = expected.topk(min(2, expected.shape[1]), dim=1).values
    result.undecided += int((top[:, 0] - top[:, -1] <= 2 * precision * scale).sum())
    result.images += len(labels)


def _difference(expected: Tensor, logits: Tensor, scale: Tensor) -> float:
    if logits.shape != expected.shape:
        return float("inf")
    return float(((logits - expected).abs().amax(1) / scale).max())


def _nan_is_largest(value: float) -> float:
    return float("inf") if value != value else value


def _precision(train: Train) -> float:
    """How far outputs may be off, relative to the largest, when the recorded accuracy was measured elsewhere."""
    if train.precision == "bfloat16":
        return 2.0**-6  # 8 bits of mantissa, through several layers
    return 1e-5 if train.algorithms == "deterministic" else 1e-3  # TF32 keeps 10 bits


@contextmanager
def _forms(
    directory: Path, code: Path, forms: Sequence[str], path: Sequence[str]
) -> Iterator[Callable[[Tensor], dict[str, Tensor]]]:
    """A fresh process that has loaded the forms; what is yielded asks it for the outputs on some images."""
    request = {
        "directory": str(directory.resolve()),
        "code": str(code.resolve()),
        "forms": list(forms),
        "path": list(path),
        "blocked": [] if path else list(OURS),  # a constructor of the user's own may need ours
    }
    command = [sys.executable, "-I", "-B", str(Path(forms_runner.__file__)), json.dumps(request)]
    with tempfile.TemporaryDirectory(prefix="prunefront-verify-") as scratch:
        source = Path(scratch) / "images.npy"
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=scratch,
        ) as process:
            assert process.stdin is not None, "asked for above"
            assert process.stdout is not None, "asked for above"
            stdin, stdout = process.stdin, process.stdout

            def answer(images: Tensor) -> dict[str, Tensor]:
                numpy.save(source, images.contiguous().numpy(), allow_pickle=False)
                with suppress(BrokenPipeError):  # it has ended, and said why
                    stdin.write(f"{source}\n")
                    stdin.flush()
                said: dict[str, Any] = json.loads(stdout.readline() or '{"failed": "the process ended"}')
                if "failed" in said:
                    raise Disagreement(str(said["failed"]))
                return {form: torch.from_numpy(numpy.load(file, allow_pickle=False)) for form, file in said.items()}

            try:
                yield answer
            except BaseException:
                process.kill()
                raise
