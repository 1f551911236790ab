"""The learning rate after an event: every row of the table, and ALLR against the authors' formula."""

import math

import pytest
import torch

from trainables.recoveries import RECOVERIES, Damage, Retraining


def retraining(
    *, first: int = 100, last: int = 300, removed: float = 0.5, norm: float = 0.3, largest: float = 0.1
) -> Retraining:
    return Retraining(
        original=lambda step: largest * (1 - step / last) + 1e-3 * step / last,
        first_step=first,
        last_step=last,
        steps_per_epoch=10,
        largest=largest,
        smallest=1e-3,
        damage=Damage(removed_fraction=removed, norm_ratio=norm),
    )


@pytest.mark.parametrize("name", list(RECOVERIES))
@pytest.mark.parametrize("first", [0, 100, 299])
def test_rates_stay_between_zero_and_the_recipes_largest(name: str, first: int) -> None:
    rate = RECOVERIES[name](retraining(first=first))
    values = [rate(step) for step in range(first, 300)]
    assert all(math.isfinite(value) and 0.0 <= value <= 0.1 + 1e-12 for value in values)
    assert values == [rate(step) for step in range(first, 300)]


def test_continue_goes_on_as_planned() -> None:
    given = retraining()
    rate = RECOVERIES["continue"](given)
    assert [rate(step) for step in range(100, 300)] == [given.original(step) for step in range(100, 300)]


def test_constant_holds_a_fraction_of_the_largest() -> None:
    rate = RECOVERIES.bind("constant", {"peak": 0.25})(retraining())
    assert {rate(step) for step in range(100, 300)} == {0.025}


@pytest.mark.parametrize(("name", "end"), [("cosine", 1e-3), ("linear", 0.0), ("damage_aware", 0.0)])
def test_a_restart_rises_from_zero_along_a_cosine_and_falls_to_the_end(name: str, end: float) -> None:
    rate = RECOVERIES.bind(name, {"peak": 1.0, "warmup": 0.1})(retraining(removed=0.25, norm=0.5))
    rising = [rate(100 + step) for step in range(21)]
    assert rising[0] == 0.0
    assert rising == pytest.approx([0.1 * (1 - math.cos(math.pi * step / 20)) / 2 for step in range(21)])
    falling = [rate(step) for step in range(120, 301)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(end)


def test_cosine_and_linear_agree_with_torchs_schedulers() -> None:
    schedulers = {
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=200, eta_min=1e-3),
        "linear": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=200),
    }
    for name, make in schedulers.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        scheduler = make(optimizer)
        rate = RECOVERIES.bind(name, {"warmup": 0.0})(retraining())
        for step in range(100, 300):
            assert rate(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize(
    ("removed", "norm", "first", "top"),
    [
        (0.25, 0.3, 200, 0.1 * 0.3 / 0.5),  # in between
        (0.25, 0.9, 200, 0.1),  # at most the largest
        (0.25, 0.001, 150, 0.1 * 0.5),  # at least the fraction of the training that is left
        (0.0, 0.0, 240, 0.1 * 0.2),  # nothing destroyed
    ],
)
def test_damage_aware_starts_where_the_authors_formula_says(
    removed: float, norm: float, first: int, top: float
) -> None:
    rate = RECOVERIES.bind("damage_aware", {"warmup": 0.0})(retraining(first=first, removed=removed, norm=norm))
    expected = [top * (1 - step / (300 - first)) for step in range(300 - first)]
    assert [rate(step) for step in range(first, 300)] == pytest.approx(expected)


def test_a_tensor_of_equal_magnitudes_restarts_at_the_largest_rate_whatever_is_pruned() -> None:
    for removed in (0.1, 0.5, 0.9):
        rate = RECOVERIES.bind("damage_aware", {"warmup": 0.0})(retraining(removed=removed, norm=math.sqrt(removed)))
        assert rate(100) == pytest.approx(0.1)
