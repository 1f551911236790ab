"""One epoch of training, its learning rates, losses and optimizers; evaluation and renewed statistics."""

import os
from copy import deepcopy
from math import cos, pi

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spaces.errors import TrialFailed, UserError
from spaces.plan import Data, Train
from trainables.data import Images, load_data
from trainables.data.split import MemorySplit, Normalisation
from trainables.models import MODELS, InputShape
from trainables.training import (
    DECAYS,
    evaluate,
    learning_rates,
    loss_of,
    make_optimizer,
    placed,
    recalibrate,
    reseed,
    seeded,
    set_numerics,
    train_epoch,
    training_loss,
)

SHAPE = InputShape(channels=1, height=8, width=8, classes=10)


@pytest.fixture(autouse=True)
def one_thread():
    set_numerics(recipe())
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def splits():
    return load_data(Data(name="digits", validation=900), device="cpu")


def recipe(**fields):
    return Train(**{"epochs": 4, "batch_size": 64, "learning_rate": 0.1, **fields})


class Noisy(nn.Module):
    """BatchNorm, dropout and convolution: everything that an epoch could carry over."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10)
        )

    def forward(self, x):
        return self.body(x)


def begin(train, network=Noisy):
    reseed(0, "weights")
    model = placed(network(), train, "cpu")
    return model, make_optimizer(model, train)


def run_epoch(model, optimizer, split, train, epoch):
    steps = -(-len(split) // train.batch_size)
    rates = learning_rates(train, steps)
    order = reseed(train.seed, "epoch", epoch)
    return train_epoch(
        model,
        split,
        optimizer,
        [rates(step) for step in range(epoch * steps, (epoch + 1) * steps)],
        train=train,
        generator=order,
        epoch=epoch,
        augment=("pad_crop", "flip"),
    )


def tensors(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- an epoch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_an_epoch_depends_on_seed_and_epoch_and_not_on_what_ran_before(splits, optimizer_name, memory_format):
    train = recipe(optimizer=optimizer_name, memory_format=memory_format, learning_rate=0.01)
    model, optimizer = begin(train)
    run_epoch(model, optimizer, splits.train, train, 0)
    saved, state = tensors(model), deepcopy(optimizer.state_dict())
    run_epoch(model, optimizer, splits.train, train, 1)

    again, other = begin(train)
    torch.rand(17)  # a process with another history
    again.load_state_dict(saved)
    other.load_state_dict(state)
    run_epoch(again, other, splits.train, train, 1)
    assert same(tensors(model), tensors(again))


def test_two_epochs_differ():
    assert len({seeded(seed, "epoch", epoch) for seed in range(5) for epoch in range(50)}) == 250
    assert seeded(1, "epoch", 23) != seeded(1, "epoch2", 3)


def test_another_seed_gives_another_epoch(splits):
    results = []
    for seed in (0, 1):
        model, optimizer = begin(recipe())
        results.append(run_epoch(model, optimizer, splits.train, recipe(seed=seed), 0).loss)
    assert results[0] != results[1]


def test_digits_are_learned(splits):
    train = recipe(epochs=12, batch_size=32)
    model, optimizer = begin(train, lambda: MODELS["resnet8"](SHAPE))
    losses = [run_epoch(model, optimizer, splits.train, train, epoch).loss for epoch in range(12)]
    assert losses[-1] < losses[0] / 3
    assert evaluate(model, splits.validation, train, loss_of(train)).accuracy > 0.7


def test_an_epoch_equals_a_plain_loop(splits):
    train = recipe(weight_decay=1e-3, label_smoothing=0.1)
    model, optimizer = begin(train)
    result = run_epoch(model, optimizer, splits.train, train, 0)

    plain, _ = begin(train)
    plain.train()
    plain_optimizer = torch.optim.SGD(plain.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-3)
    order, total = reseed(0, "epoch", 0), 0.0
    for number, (images, labels) in enumerate(splits.train.epoch(64, order, ("pad_crop", "flip"))):
        plain_optimizer.param_groups[0]["lr"] = 0.1 * (1 + cos(pi * number / 16)) / 2
        loss = F.cross_entropy(plain(images), labels, label_smoothing=0.1)
        plain_optimizer.zero_grad()
        loss.backward()
        plain_optimizer.step()
        total += loss.item() * len(labels)
    assert result.samples == 200
    assert result.loss == pytest.approx(total / 200, rel=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", ["first", "last"])
def test_a_loss_that_is_not_finite_ends_the_trial_with_epoch_and_reason(splits, batch):
    def spoiled(logits, labels, /):
        poison = float("nan") if len(labels) == (64 if batch == "first" else 8) else 1.0
        return F.cross_entropy(logits, labels) * poison

    train = recipe()
    model, optimizer = begin(train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.test_training.poisoned", spoiled, raising=False)
        with pytest.raises(TrialFailed, match="epoch 3: training loss is nan") as caught:
            run_epoch(model, optimizer, splits.train, recipe(loss="tests.test_training:poisoned"), 3)
    assert (caught.value.epoch, caught.value.reason) == (3, "training loss is nan")


def test_gradients_are_clipped_to_the_norm_asked_for(splits):
    train = recipe(clip_norm=1e-6, optimizer={"name": "sgd", "momentum": 0.0}, weight_decay=0.0)
    model, optimizer = begin(train)
    before = tensors(model)
    run_epoch(model, optimizer, splits.train, train, 0)
    moved = sum((p - before[name]).square().sum() for name, p in model.named_parameters()) ** 0.5
    assert 0 < moved < 4 * 0.1 * 1e-6 * 1.01


def test_bfloat16_keeps_the_weights_in_float32(splits):
    train = recipe(precision="bfloat16")
    model, optimizer = begin(train)
    result = run_epoch(model, optimizer, splits.train, train, 0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 0 < result.loss < 10


def test_float64_and_channels_last_reach_the_network(splits):
    train = recipe(precision="float64", memory_format="channels_last")
    seen = []
    model, optimizer = begin(train)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run_epoch(model, optimizer, splits.train, train, 0)
    evaluate(model, splits.validation, train, loss_of(train))
    assert {x.dtype for x in seen} == {torch.float64}
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


# ---- learning rates -------------------------------------------------------------------------------------------------


def curve(steps_per_epoch=10, **fields):
    train = recipe(**fields)
    rates = learning_rates(train, steps_per_epoch)
    return [rates(step) for step in range(train.epochs * steps_per_epoch)]


def test_constant_stays():
    assert curve(decay="constant") == [0.1] * 40


def test_cosine_follows_its_formula():
    expected = [0.1 * (0.2 + 0.8 * (1 + cos(pi * step / 40)) / 2) for step in range(40)]
    assert curve(decay={"name": "cosine", "end": 0.2}) == pytest.approx(expected)


def test_step_falls_at_the_epochs_of_the_papers():
    rates = curve(decay="step", epochs=200, steps_per_epoch=3)
    assert rates[299] == 0.1
    assert rates[300] == pytest.approx(0.01)
    assert rates[449] == pytest.approx(0.01)
    assert rates[450] == pytest.approx(0.001)


def test_step_takes_the_epoch_that_a_fraction_means():
    rates = DECAYS.bind("step", {"at": (0.29,), "factor": 0.5})(1.0, 700, 7)
    assert [rates(29 * 7 - 1), rates(29 * 7)] == [1.0, 0.5]


def test_one_cycle_equals_torchs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=40, cycle_momentum=False)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        oracle.step() if len(expected) < 40 else None
    assert curve(decay="one_cycle") == pytest.approx(expected)


def test_warm_up_rises_in_a_straight_line_and_then_leaves_the_decay_alone():
    rates = curve(decay="constant", warmup_epochs=1.5)
    assert rates[:15] == pytest.approx([0.1 * (step + 1) / 15 for step in range(15)])
    assert rates[15:] == [0.1] * 25
    assert curve(warmup_epochs=1.0)[10:] == curve()[10:]


@pytest.mark.parametrize("name", list(DECAYS))
def test_every_decay_stays_between_zero_and_the_largest_rate(name):
    for epochs in (1, 2, 30):
        rates = curve(decay=name, epochs=epochs, steps_per_epoch=1)
        assert all(0 <= rate <= 0.1 * (1 + 1e-12) for rate in rates)
        assert max(rates) > 0


# ---- losses and optimizers ------------------------------------------------------------------------------------------


def test_smoothed_labels_give_torchs_smoothed_cross_entropy():
    logits, labels = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 5
    expected = F.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(training_loss(recipe(label_smoothing=0.2))(logits, labels), expected)


def test_auxiliary_heads_count_with_their_papers_weights():
    heads, labels = [torch.randn(4, 3) for _ in range(3)], torch.tensor([0, 1, 2, 0])
    main, first, second = (F.cross_entropy(head, labels) for head in heads)
    loss = training_loss(recipe())
    torch.testing.assert_close(loss((heads[0], heads[1]), labels), main + 0.4 * first)
    torch.testing.assert_close(loss(tuple(heads), labels), main + 0.3 * (first + second))
    torch.testing.assert_close(loss((heads[0], None, None), labels), main)


def test_a_network_with_auxiliary_heads_trains_and_is_judged_by_its_main_head(splits):
    class TwoHeads(Noisy):
        def forward(self, x):
            return (self.body(x), self.body(x)) if self.training else self.body(x)

    train = recipe()
    model, optimizer = begin(train, TwoHeads)
    run_epoch(model, optimizer, splits.train, train, 0)
    assert 0 <= evaluate(model, splits.validation, train, loss_of(train)).accuracy <= 1


def test_weight_decay_spares_norms_and_biases_by_choice():
    model = MODELS["resnet8"](SHAPE)
    everything, weights = (make_optimizer(model, recipe(weight_decay_on=on)) for on in ("all", "weights"))
    assert [group["weight_decay"] for group in everything.param_groups] == [5e-4]
    decayed, spared = weights.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (5e-4, 0.0)
    assert {p.ndim for p in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_frozen_parameters_are_left_out_of_the_optimizer():
    model = MODELS["resnet8"](SHAPE)
    model.conv1.weight.requires_grad_(False)
    held = [p for group in make_optimizer(model, recipe()).param_groups for p in group["params"]]
    assert len(held) == len(list(model.parameters())) - 1


@pytest.mark.parametrize("optimizer", ["sgd", {"name": "sgd", "nesterov": True, "momentum": 0.0}, "adamw"])
def test_every_optimizer_moves_every_parameter(splits, optimizer):
    train = recipe(optimizer=optimizer)
    model, own = begin(train)
    before = tensors(model)
    run_epoch(model, own, splits.train, train, 0)
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


# ---- evaluation and statistics --------------------------------------------------------------------------------------


def test_evaluation_gives_accuracy_and_loss_of_the_whole_split(splits):
    train = recipe()
    model, _ = begin(train)
    images = torch.cat([images for images, _ in splits.validation.ordered(900)])
    with torch.no_grad():
        logits = model.eval()(images)
    accuracy, loss = evaluate(model, splits.validation, train, loss_of(train))
    assert accuracy == (logits.argmax(1) == splits.validation.labels).sum().item() / 900
    assert loss == pytest.approx(F.cross_entropy(logits, splits.validation.labels).item(), rel=1e-5)


def test_evaluation_leaves_weights_buffers_modes_gradients_and_generators_as_found(splits):
    train = recipe()
    model, optimizer = begin(train)
    run_epoch(model, optimizer, splits.train, train, 0)
    model.body[1].eval()
    before, chance = tensors(model), torch.get_rng_state()
    gradients = [p.grad.clone() for p in model.parameters()]
    evaluate(model, splits.validation, train, loss_of(train))
    assert same(before, tensors(model))
    assert torch.equal(chance, torch.get_rng_state())
    assert (model.training, model.body[1].training, model.body[3].training) == (True, False, True)
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(model.parameters(), gradients, strict=True))


def test_recalibration_gives_the_mean_statistics_of_the_batches():
    pixels = torch.randint(256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = MemorySplit(Images(pixels, torch.zeros(64).long()), Normalisation([0.5], [0.25], "cpu"))
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(64, 10))
    samples = recalibrate(model, split, 4, recipe(batch_size=16), torch.Generator().manual_seed(1))
    batches = [images for images, _ in split.sample(64, 16, torch.Generator().manual_seed(1))]
    assert samples == 64
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0))


def test_recalibration_changes_statistics_and_nothing_else(splits):
    train = recipe()
    model, optimizer = begin(train)
    run_epoch(model, optimizer, splits.train, train, 0)
    before, chance = tensors(model), torch.get_rng_state()
    samples = recalibrate(model, splits.train, 2, train, reseed(0, "order"))
    torch.set_rng_state(chance)
    recalibrate(model, splits.train, 2, train, torch.Generator().manual_seed(3))
    changed = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
    assert samples == 128
    assert changed == {"body.1.running_mean", "body.1.running_var"}
    assert torch.equal(chance, torch.get_rng_state())
    assert (model.training, model.body[1].training, model.body[1].momentum) == (True, True, 0.1)


def test_a_network_without_batchnorm_needs_no_recalibration(splits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert recalibrate(model, splits.train, 2, recipe(), torch.Generator()) == 0


# ---- numerics -------------------------------------------------------------------------------------------------------


def test_numerics_follow_the_recipe():
    set_numerics(recipe(threads=2, algorithms="fast"))
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    set_numerics(recipe())
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_an_operation_without_a_deterministic_form_says_what_to_set(splits):
    class Stubborn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("pool_backward_cuda does not have a deterministic implementation, but you set ...")

    class Network(Noisy):
        def forward(self, x):
            return Stubborn.apply(self.body(x))

    train = recipe()
    model, optimizer = begin(train, Network)
    with pytest.raises(UserError, match=r"set train\.algorithms: fast"):
        run_epoch(model, optimizer, splits.train, train, 0)


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_an_epoch_on_a_gpu_is_the_same_bit_for_bit(precision, memory_format):
    train = recipe(precision=precision, memory_format=memory_format)
    on_gpu = load_data(Data(name="digits", validation=900), device="cuda")
    ends = []
    for _ in range(2):
        reseed(0, "weights")
        model = placed(MODELS["resnet20"](SHAPE), train, "cuda")
        optimizer = make_optimizer(model, train)
        for epoch in range(3):
            run_epoch(model, optimizer, on_gpu.train, train, epoch)
        evaluate(model, on_gpu.validation, train, loss_of(train))
        ends.append(tensors(model))
    assert same(*ends)


@cuda
def test_a_gpu_sees_the_images_that_a_cpu_sees():
    here, there = (load_data(Data(name="digits", validation=900), device=device).train for device in ("cpu", "cuda"))
    batches = [split.epoch(64, torch.Generator().manual_seed(0), ("pad_crop", "flip")) for split in (here, there)]
    for (images, labels), (gpu_images, gpu_labels) in zip(*batches, strict=True):
        torch.testing.assert_close(images, gpu_images.cpu())
        assert torch.equal(labels, gpu_labels.cpu())
