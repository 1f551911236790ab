"""On a GPU: what CUDA graphs and torch.compile save per step after a change of shape, and when that pays."""

from collections.abc import Callable

import torch

from benchmarks.engine.setting import Event, Setting, pruned
from benchmarks.engine.stepping import Step, batch_size, repeated, step_of, steps_at_once
from benchmarks.figures import Figure, ratio, spread
from benchmarks.timing import interleaved, timed
from spaces.plan import Train

NETWORKS = ("resnet56", "vgg16_bn_cifar")
Faster = Callable[[Setting, Event, Train], Step]


def graph_figures(setting: Setting) -> list[Figure]:
    return _figures(setting, "CUDA graph", _graph)


def compile_figures(setting: Setting) -> list[Figure]:
    return _figures(setting, "torch.compile", _compiled)


def _figures(setting: Setting, what: str, faster: Faster) -> list[Figure]:
    if not setting.on_gpu:
        return [Figure(f"{what}: step after removal / eager", None, "x", "needs a GPU")]
    return [
        figure
        for recipe, train in setting.recipes().items()
        for network in NETWORKS
        for figure in _of(setting, network, recipe, train, what, faster)
    ]


def _of(setting: Setting, network: str, recipe: str, train: Train, what: str, faster: Faster) -> list[Figure]:
    eager = pruned(setting, network, train, keep=0.5, multiple=8)
    images, labels = setting.batch(batch_size(setting), train)
    other = pruned(setting, network, train, keep=0.5, multiple=8)
    made: list[Step] = []
    preparation = timed(lambda: made.append(faster(setting, other, train)), setting.device)
    steps = {"eager": step_of(eager.model, eager.optimizer, images, labels, train), "faster": made[0]}
    at_once = steps_at_once(setting)
    sides = {name: repeated(step, at_once) for name, step in steps.items()}
    times = interleaved(sides, rounds=5 if setting.quick else 15, device=setting.device)
    relative = ratio(times["faster"], times["eager"])
    saved = (spread(times["eager"]).middle - spread(times["faster"]).middle) / at_once
    how = f"keep 0.5, multiple 8, batch {batch_size(setting)}, {recipe}; "
    return [
        Figure(f"{what}, {network}: step after removal / eager", relative.middle, "x", how + str(relative)),
        Figure(
            f"{what}, {network}: steps until it pays",
            preparation / saved if saved > 0 else None,
            "steps",
            f"{how}{preparation:.2f} s to prepare, {1000 * saved:.2f} ms saved per step; never where nothing is saved",
        ),
    ]


def _graph(setting: Setting, event: Event, train: Train) -> Step:
    """The whole step, update included, as one CUDA graph."""
    step = step_of(event.model, event.optimizer, *setting.batch(batch_size(setting), train), train)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # the optimizer makes its state, libraries their plans
            step()
    torch.cuda.current_stream().wait_stream(aside)
    event.optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _compiled(setting: Setting, event: Event, train: Train) -> Step:
    """Forward and backward compiled, once both have run."""
    step = step_of(torch.compile(event.model), event.optimizer, *setting.batch(batch_size(setting), train), train)
    for _ in range(2):
        step()
    return step
