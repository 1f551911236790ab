"""How a network learns: the optimizer, the learning rate, the loss, and one epoch of it."""

from trainables.seeds import generator, reseed, seeded
from trainables.training.decays import DECAYS, learning_rates
from trainables.training.loop import Beside, EpochResult, Evaluation, evaluate, recalibrate, require_finite, train_epoch
from trainables.training.losses import LOSSES, Loss, loss_of, training_loss
from trainables.training.numerics import placed, precision, prepared, set_numerics
from trainables.training.optimizers import OPTIMIZERS, make_optimizer

__all__ = [
    "DECAYS",
    "LOSSES",
    "OPTIMIZERS",
    "Beside",
    "EpochResult",
    "Evaluation",
    "Loss",
    "evaluate",
    "generator",
    "learning_rates",
    "loss_of",
    "make_optimizer",
    "placed",
    "precision",
    "prepared",
    "recalibrate",
    "require_finite",
    "reseed",
    "seeded",
    "set_numerics",
    "train_epoch",
    "training_loss",
]
