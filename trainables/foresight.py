"""The boundaries that a plan will pass, told before any of it is trained, so that a search can plan who shares what.

Keys here are not those of checkpoints, which need data and damage; but two plans with an equal key here have an equal
boundary there. Costs follow the amounts: between events a network is taken to cost what its schedule says.
"""

from dataclasses import replace
from statistics import fmean

from spaces.path import Path, Step
from spaces.plan import Plan, digest
from trainables import keys
from trainables.acting import values_of
from trainables.chain import Chain
from trainables.checkpoint import Progress

SAMPLED = 16  # steps of an epoch whose learning rates stand for all: rates are smooth in between
SUMMED = 128  # steps of a whole training, at the least, where only the sum of the rates matters
DIGITS = 24  # of a key: enough for a study, and a search holds many


def foreseen(plan: Plan, *, epoch_macs: int) -> Path:
    """All boundaries of the plan, one epoch of whose dense network takes `epoch_macs` training MACs.

    Past a boundary where an event may come or not, one last step stands for all that is left.
    """
    chain, prune = Chain(plan, SAMPLED), plan.prune
    progress, left, path = _origin(plan), 1.0, list[Step]()
    while True:
        for moment in chain.moments[progress.events :]:
            if not moment.may_come(progress.epochs):
                break
            if not moment.must_come(progress.epochs):
                return (*path, _rest(plan, progress, epoch_macs))
            key = chain.after_event(progress.key, progress.events)[:DIGITS]
            events_at = (*progress.events_at, progress.epochs)
            progress = replace(progress, key=key, events=progress.events + 1, events_at=events_at)
            path.append(Step(key, progress.epochs, progress.events, 0))
            if prune is not None and prune.granularity == "channels" and prune.amount.filters_per_event is None:
                left = min(left, 1.0 - moment.sparsity)
        if progress.epochs >= plan.train.epochs:
            return tuple(path)
        progress = replace(progress, key=_after_epoch(chain, plan, progress), epochs=progress.epochs + 1)
        path.append(Step(progress.key, progress.epochs, progress.events, round(epoch_macs * left)))


def retraining(plan: Plan) -> float:
    """The learning rates after a cut, summed; of several cuts the mean by how many MACs each takes away.

    1 is the whole training at the recipe's largest rate; a plan without an event has all of its training. Events that
    wait are taken to come when they must, and damage to be middling. How well a network recovers depends on how long
    and how hard it is retrained, whatever schedule and recovery lead there (Renda et al. 2020; Le and Hua 2021).
    """
    train, steps = plan.train, -(-SUMMED // plan.train.epochs)  # of an epoch
    chain = Chain(plan, steps)
    at = [moment.epoch + 1 for moment in chain.moments]
    middling = replace(Progress.at_start(""), removed_fraction=0.5, norm_ratio=0.5)
    left = [0.0]  # of the training, after its last epoch and those before it, back to the first cut
    for epoch in reversed(range(at[0] if at else 0, train.epochs)):
        past = tuple(event for event in at if event <= epoch)
        rates = chain.rates(replace(middling, epochs=epoch, events=len(past), events_at=past))
        left.append(left[-1] + sum(rates) / (steps * train.epochs * train.learning_rate))
    if not at:
        return left[-1]
    cut = [moment.sparsity for moment in chain.moments]
    shares = [now - before for before, now in zip([0.0, *cut], cut, strict=False)]
    return fmean([left[train.epochs - event] for event in at], shares if sum(shares) else None)


def _origin(plan: Plan) -> Progress:
    """Boundary 0, by what the plan says of it."""
    train = plan.train
    parts = [plan.data.model_dump(mode="json", exclude={"augment"}), plan.model.model_dump(mode="json")]
    numerics = [train.seed, train.precision, train.memory_format, train.threads, train.algorithms]
    key = digest([parts, numerics])[:DIGITS]
    return Progress(0, 0, key, (), 0.0, 0.0, 0, 0, {})


def _after_epoch(chain: Chain, plan: Plan, progress: Progress) -> str:
    rates = chain.rates(replace(progress, removed_fraction=0.5, norm_ratio=0.5))
    acting = values_of(plan.prune, chain.moments, progress.epochs, progress.events)
    if progress.events and rates != chain.rates(replace(progress, removed_fraction=0.8, norm_ratio=0.1)):
        acting = {**acting, "recover": keys.by_value(plan.recover)}  # rates that follow the damage are not known yet
    epoch = progress.epochs
    return keys.after_epoch(progress.key, plan.train, plan.data.augment, epoch=epoch, rates=rates, acting=acting)[
        :DIGITS
    ]


def _rest(plan: Plan, progress: Progress, epoch_macs: int) -> Step:
    epochs = plan.train.epochs
    macs = epoch_macs * (epochs - progress.epochs)
    return Step(digest([progress.key, plan.hash])[:DIGITS], epochs, progress.events + 1, macs)
