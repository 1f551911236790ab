"""What an exported directory says to people and to scripts: `model_card.md` and `metrics.json`."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainables.activations import activation_peak_bytes
from trainables.checkpoint import Checkpoint
from trainables.data import Splits
from trainables.export.comparison import TOLERANCE, Comparison

FORMAT = 1
METRICS, CARD = "metrics.json", "model_card.md"
MAC = "1 MAC is one multiply-add of one image's forward pass, counted from real shapes; 1 MAC = 2 FLOPs"
SETUP = (
    "S2 + SX-A (Wang et al. 2023): same data, split, network, seed and total epochs as the dense network of the same "
    "search; epochs and learning rates after pruning are part of what was searched"
)
FLATTERED = (
    "The accuracy is of the validation split that also chose this network, from one seed; the best of many trials is "
    "flattered. The test split was not touched."
)
LIBRARIES = ("torch", "torchvision", "onnx", "onnxruntime", "safetensors")


def metrics_of(
    checkpoint: Checkpoint,
    network: nn.Module,
    splits: Splits,
    comparison: Comparison,
    directory: Path,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """`metrics.json`: what was recorded when the trial ended, what was checked now, and under which setup."""
    recorded, progress = checkpoint.progress.metrics, checkpoint.progress
    accuracy, images = recorded["accuracy"], comparison.images
    return {
        "format": FORMAT,
        "accuracy": accuracy,
        "correct": round(accuracy * images),
        "validation_images": images,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / images),
        "macs": recorded["macs"],
        "flops": 2 * recorded["macs"],
        "convention": MAC,
        "keep_macs": recorded["keep_macs"],
        "params": recorded["params"],
        "keep_params": recorded["keep_params"],
        "activation_peak_bytes": activation_peak_bytes(network, torch.zeros(1, *splits.shape)),
        "bytes": {path.name: path.stat().st_size for path in sorted(directory.glob("model.*"))},
        "epochs": progress.epochs,
        "events": progress.events,
        "training_macs_alone": progress.training_macs,
        "setup": SETUP,
        "caution": FLATTERED,
        "verified": {
            "images": images,
            "tolerance": TOLERANCE,
            "largest_difference": comparison.largest,
            "correct": comparison.correct,
            "too_close_to_call": comparison.undecided,
        },
        "origin": dict(origin),
        "plan": checkpoint.plan.model_dump(mode="json"),
        "data_fingerprint": splits.fingerprint,
        "versions": {library: version(library) for library in LIBRARIES},
    }


def card_of(metrics: Mapping[str, Any], architecture: Mapping[str, Any]) -> str:
    """`model_card.md`."""
    shape, scale = architecture["input"], architecture["normalisation"]
    plan, constructor = metrics["plan"], architecture["constructor"]
    image = f"{shape['channels']} x {shape['height']} x {shape['width']}"
    differences = ", ".join(f"{form} {value:.1e}" for form, value in metrics["verified"]["largest_difference"].items())
    name = metrics["origin"].get("name") or constructor["function"]
    return f"""# {name}

`{constructor["function"]}` on `{plan["data"]["name"]}`, pruned while it was trained: {_pruning(plan, metrics)}.

| | | of dense |
|---|---|---|
| accuracy (validation) | {metrics["accuracy"]:.4f} ± {metrics["standard_error"]:.4f} | |
| MACs | {metrics["macs"]:,} | {100 * metrics["keep_macs"]:.1f} % |
| FLOPs | {metrics["flops"]:,} | {100 * metrics["keep_macs"]:.1f} % |
| parameters | {metrics["params"]:,} | {100 * metrics["keep_params"]:.1f} % |
| most activations alive at once, one image | {metrics["activation_peak_bytes"]:,} bytes | |
{_sizes(metrics)}
The accuracy counts {metrics["correct"]} right of {metrics["validation_images"]} images, ± one standard error.
{MAC[0].upper()}{MAC[1:]}.

## How to use it

Input: float32 images, batch x {image}, `(pixels / 255 - mean) / std` with
mean {_numbers(scale["mean"])} and std {_numbers(scale["std"])}. Output: logits of {shape["classes"]} classes.
Any batch size.

```python
from network import load, normalised  # network.py of this directory; {_needs(constructor)}
logits = load()(normalised(images))   # images: uint8, batch x {image}
```

```python
import torch
logits = torch.export.load("model.pt2").module()(x)
```

```python
import onnxruntime
logits = onnxruntime.InferenceSession("model.onnx").run(["logits"], {{"images": x.numpy()}})[0]
```

## What was checked

Each form was loaded in a fresh process without prunefront and answered all {metrics["verified"]["images"]} validation
images; largest difference to the trained network's outputs (allowed {TOLERANCE:.0e}): {differences}.
`prunefront verify DIR` repeats this; `sha256sum -c checksums.sha256` finds damage, and no more than that: whoever can
change a file can change its checksum.

**Loading files from strangers.** `model.safetensors`, `architecture.json` and `model.onnx` are data. `network.py` is
code. `torch.export.load` runs code that is hidden in the sample inputs, constants or shape expressions of a `.pt2`
file; `prunefront verify` looks at those records first (`weights_only=True`) and refuses such a file without loading it.

## How fair the numbers are

{FLATTERED}
Comparison setup: {SETUP}.

## Training

{metrics["epochs"]} epochs in all, seed {plan["train"]["seed"]}, {metrics["events"]} pruning events;
{metrics["training_macs_alone"]:,} training MACs if run alone. The whole plan is in `metrics.json`.
"""


def _pruning(plan: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    prune = plan["prune"]
    if prune is None:
        return "not at all, this is the dense network"
    parts = " · ".join(prune[part]["name"] for part in ("criterion", "schedule", "allocation"))
    return f"{parts}, then {plan['recover']['name']}; {100 * metrics['keep_macs']:.1f} % of the dense MACs are left"


def _sizes(metrics: Mapping[str, Any]) -> str:
    rows = [f"| `{file}` | {size:,} bytes | |\n" for file, size in metrics["bytes"].items()]
    latency = metrics["origin"].get("latency_ms")
    return "".join(rows) + (f"| latency | {latency:.3g} ms | |\n" if latency is not None else "")


def _needs(constructor: Mapping[str, Any]) -> str:
    if constructor["from"] == "module":
        return f"needs torch, safetensors and {constructor['function'].partition(':')[0]}"
    return "needs torch, safetensors" + (" and torchvision" if constructor["from"] == "torchvision" else "")


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
