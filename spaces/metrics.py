"""What a trial is judged by: every metric that may be an objective or carry a constraint."""

from dataclasses import dataclass
from typing import Literal

Known = Literal["plan", "widths", "end"]
"""plan: before anything is trained; widths: as soon as the last event has fired; end: only after the last epoch."""


@dataclass(frozen=True)
class Metric:
    """One figure of a finished trial: which way is better, what it is, and when it is known at the latest."""

    direction: Literal["maximize", "minimize"]
    meaning: str
    known: Known


METRICS: dict[str, Metric] = {
    "accuracy": Metric("maximize", "fraction of the validation split classified right after the last epoch", "end"),
    "loss": Metric("minimize", "mean loss on the validation split after the last epoch", "end"),
    "macs": Metric("minimize", "multiply-adds of one sample's forward pass", "widths"),
    "params": Metric("minimize", "parameters", "widths"),
    "keep_macs": Metric("minimize", "fraction of the dense network's MACs", "widths"),
    "keep_params": Metric("minimize", "fraction of the dense network's parameters", "widths"),
    "nonzero_params": Metric("minimize", "parameters that no mask holds at zero; as many MACs", "widths"),
    "keep_weights": Metric("minimize", "fraction left of the dense weights that may be pruned singly", "widths"),
    "latency_ms": Metric("minimize", "median milliseconds of one batch, alone on the device", "widths"),
    "checkpoint_bytes": Metric("minimize", "size of model.safetensors", "end"),
    "training_macs": Metric("minimize", "multiply-adds the whole trial executes", "end"),
}
