"""(b), (c) A training step after removal, against the same widths built from scratch, and against masking."""

from benchmarks.engine.setting import Setting, pruned
from benchmarks.engine.stepping import batch_size, masked_step, rebuilt, repeated, step_of, steps_at_once
from benchmarks.figures import Figure, Target, ratio
from benchmarks.timing import interleaved
from spaces.plan import Train
from trainables.training import make_optimizer

NETWORKS = ("resnet56", "vgg16_bn_cifar")
KEEP, MULTIPLE = 0.5, 8
AS_BUILT = Target("at most", 1.03)


def figures(setting: Setting) -> list[Figure]:
    return [
        figure
        for recipe, train in setting.recipes().items()
        for network in NETWORKS
        for figure in _of(setting, network, recipe, train)
    ]


def _of(setting: Setting, network: str, recipe: str, train: Train) -> list[Figure]:
    times = measure(setting, network, train, rounds=6 if setting.quick else 15)
    scratch, masking = ratio(times["removed"], times["scratch"]), ratio(times["removed"], times["masked"])
    how = (
        f"keep {KEEP} of MACs, width multiple {MULTIPLE}, 3x32x32, batch {batch_size(setting)}, {recipe}, "
        f"{setting.device.type}; "
    )
    return [
        Figure(
            f"(b) {network}: step after removal / built from scratch",
            scratch.middle,
            "x",
            how + str(scratch),
            AS_BUILT,
        ),
        Figure(f"(c) {network}: step after removal / masked", masking.middle, "x", how + str(masking)),
    ]


def measure(setting: Setting, network: str, train: Train, *, rounds: int) -> dict[str, list[float]]:
    """Seconds per side and round."""
    event = pruned(setting, network, train, keep=KEEP, multiple=MULTIPLE)
    images, labels = setting.batch(batch_size(setting), train)
    scratch = rebuilt(setting, network, event.model, train)
    steps = {
        "removed": step_of(event.model, event.optimizer, images, labels, train),
        "scratch": step_of(scratch, make_optimizer(scratch, train), images, labels, train),
        "masked": masked_step(setting.network(network, train), event.result.removal, images, labels, train),
    }
    sides = {name: repeated(step, steps_at_once(setting)) for name, step in steps.items()}
    return interleaved(sides, rounds=rounds, device=setting.device)
