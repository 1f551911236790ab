"""(d) How much of the cut in MACs arrives as a cut in step time."""

from benchmarks.engine.setting import Setting, pruned
from benchmarks.engine.stepping import batch_size, repeated, step_of, steps_at_once
from benchmarks.figures import Figure, Target, ratio
from benchmarks.timing import interleaved
from spaces.plan import Train
from trainables.training import make_optimizer

NETWORKS = ("resnet56", "vgg16_bn_cifar")
KEEPS = (0.75, 0.5, 0.25)
MULTIPLES = (1, 8)
TARGETS = {("vgg16_bn_cifar", 0.25, 8): Target("at least", 0.9)}
"""On a CPU."""


def figures(setting: Setting) -> list[Figure]:
    multiples = MULTIPLES[-1:] if setting.quick else MULTIPLES
    return [
        figure
        for recipe, train in setting.recipes().items()
        for network in NETWORKS
        for figure in measure(setting, network, recipe, train, multiples=multiples, rounds=3 if setting.quick else 7)
    ]


def measure(
    setting: Setting, network: str, recipe: str, train: Train, *, multiples: tuple[int, ...], rounds: int
) -> list[Figure]:
    """One row per keep and width multiple; the dense step is timed in every round."""
    events = {
        (keep, multiple): pruned(setting, network, train, keep=keep, multiple=multiple)
        for keep in KEEPS
        for multiple in multiples
    }
    images, labels = setting.batch(batch_size(setting), train)
    dense = setting.network(network, train)
    steps = {"dense": step_of(dense, make_optimizer(dense, train), images, labels, train)}
    for (keep, multiple), event in events.items():
        steps[f"{keep} {multiple}"] = step_of(event.model, event.optimizer, images, labels, train)
    sides = {name: repeated(step, steps_at_once(setting)) for name, step in steps.items()}
    times = interleaved(sides, rounds=rounds, device=setting.device)
    rows = []
    for (keep, multiple), event in events.items():
        step = ratio(times[f"{keep} {multiple}"], times["dense"])
        cut, macs_cut = 1.0 - step.middle, 1.0 - event.keep_macs
        rows.append(
            Figure(
                f"(d) {network} keep {keep:g}, multiple {multiple}: step-time cut / MAC cut",
                cut / macs_cut,
                "x",
                f"steps {cut:.1%} shorter for {macs_cut:.1%} fewer MACs; 3x32x32, batch {batch_size(setting)}, "
                f"{recipe}, {setting.device.type}; step / dense {step}",
                None if setting.on_gpu else TARGETS.get((network, keep, multiple)),
            )
        )
    return rows
