"""`python -m benchmarks.engine [--quick] [--only PART] [--json FILE] [--data ROOT]`"""

import sys
from functools import partial
from pathlib import Path

from benchmarks import command
from benchmarks.engine import captured, events, graphs, shrinking, steps, throughput
from benchmarks.engine.setting import setting

PARTS = {
    "trace and removal": graphs.figures,
    "step after removal": steps.figures,
    "step time against MACs": shrinking.figures,
    "events": events.figures,
    "throughput": throughput.figures,
    "CUDA graphs": captured.graph_figures,
    "torch.compile": captured.compile_figures,
}
LEFT_OUT = (
    "VGG-16-BN against torch-pruning, width multiple 1, three quarters of the images of events that look at data "
    "(their time is scaled up and says so), half the batch of steps on a CPU, and most rounds"
)


def main() -> int:
    parser = command.parser("engine", "The pruning engine's speed, side by side with what it competes with.")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="CIFAR-10 in this folder instead of random images")
    arguments = parser.parse_args()
    chosen = setting(quick=arguments.quick, data=arguments.data)
    return command.run(
        "engine",
        arguments,
        {title: partial(part, chosen) for title, part in PARTS.items()},
        packages=("torch", "torchvision", "torch-pruning"),
        left_out=LEFT_OUT,
        options=" --data ROOT" if arguments.data else "",
        page="engine_gpu" if chosen.on_gpu else "engine",  # figures of two devices do not stand in for each other
    )


if __name__ == "__main__":
    sys.exit(main())
