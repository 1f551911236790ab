"""The networks: counts against published ones, shapes, and weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spaces.errors import UserError
from spaces.plan import Model
from trainables.models import MODELS, InputShape, build_dense, build_model, source_file
from trainables.models.weights import load_weights
from trainables.pruning.graph import trace

CIFAR10 = InputShape(channels=3, height=32, width=32, classes=10)
OURS = ["resnet8", "resnet20", "resnet32", "resnet56", "resnet110", "resnet164", "vgg16_bn_cifar", "vgg19_bn_cifar"]


def count(model, *kinds):
    modules = [module for module in model.modules() if not kinds or isinstance(module, kinds)]
    return sum(p.numel() for module in modules for p in module.parameters(recurse=False))


@pytest.mark.parametrize(
    ("name", "without_norms", "all_parameters"),
    [("resnet56", 848_954, 853_018), ("resnet110", 1_719_866, 1_727_962)],
)
def test_cifar_resnets_have_the_published_number_of_parameters(name, without_norms, all_parameters):
    model = MODELS[name](CIFAR10)
    assert count(model, nn.Conv2d, nn.Linear) == without_norms
    assert count(model) == all_parameters


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 20), ("resnet56", 56), ("resnet164", 164)])
def test_a_resnet_is_as_deep_as_its_name_says(name, layers):
    convolutions = [module for module in MODELS[name](CIFAR10, shortcut="A").modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) + 1 == layers


def test_vgg_has_the_number_of_parameters_of_pruning_papers():
    assert count(MODELS["vgg16_bn_cifar"](CIFAR10)) == 14_724_042


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("shape", [InputShape(1, 8, 8, 10), InputShape(1, 28, 28, 10), InputShape(3, 32, 32, 100)])
def test_every_network_of_ours_takes_every_size_of_small_images(name, shape):
    model = MODELS[name](shape, width=4).eval()
    assert model(torch.zeros(2, shape.channels, shape.height, shape.width)).shape == (2, shape.classes)


@pytest.mark.parametrize("name", ["resnet8", "resnet164"])
def test_both_shortcuts_learn_everywhere(name):
    for shortcut in ("A", "B"):
        model = MODELS[name](InputShape(1, 8, 8, 10), width=4, shortcut=shortcut)
        model(torch.randn(4, 1, 8, 8)).logsumexp(1).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_option_a_adds_zeros_on_both_sides_and_no_parameters():
    pad = MODELS["resnet8"](CIFAR10).stages[1][0].shortcut
    y = pad(torch.ones(1, 16, 4, 4))
    assert y.shape == (1, 32, 2, 2)
    assert y[0, :, 0, 0].tolist() == [0.0] * 8 + [1.0] * 16 + [0.0] * 8
    assert count(pad) == 0


GROUPS = {"resnet8": 6, "resnet20": 12, "resnet164": 4 + 3 * 36, "vgg16_bn_cifar": 13, "vgg19_bn_cifar": 16}


@pytest.mark.parametrize("name", GROUPS)
def test_widths_are_those_of_the_channel_groups_in_network_order(name):
    given = tuple(5 + index % 7 for index in range(GROUPS[name]))
    settings = {"widths": given} | ({"shortcut": "B"} if name.startswith("resnet") else {})
    traced = trace(MODELS[name](CIFAR10, **settings), torch.zeros(1, 3, 32, 32))
    assert tuple(group.channels for group in traced.graph.groups.values()) == given
    assert set(traced.graph.left_alone.values()) == {"network output"}


def test_the_hidden_layer_of_vgg_is_the_last_width():
    model = MODELS["vgg16_bn_cifar"](CIFAR10, hidden=64, widths=(*[6] * 13, 9))
    traced = trace(model, torch.zeros(1, 3, 32, 32))
    assert [group.channels for group in traced.graph.groups.values()] == [6] * 13 + [9]


def test_a_stem_as_wide_as_the_first_stream_leaves_the_groups_as_they_are():
    traced = trace(MODELS["resnet164"](CIFAR10, widths=(6,) * GROUPS["resnet164"]), torch.zeros(1, 3, 32, 32))
    assert len(traced.graph.groups) == GROUPS["resnet164"]


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn_cifar"])
def test_widths_that_follow_from_width_make_the_same_network_to_the_bit(name):
    shortcut = {"shortcut": "B"} if name == "resnet20" else {}
    torch.manual_seed(3)
    own = MODELS[name](CIFAR10, width=8, **shortcut)
    widths = [group.channels for group in trace(own, torch.zeros(1, 3, 32, 32)).graph.groups.values()]
    torch.manual_seed(3)
    given = MODELS[name](CIFAR10, widths=tuple(widths), **shortcut)
    theirs = given.state_dict()
    assert own.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in own.state_dict().items())


def test_too_many_or_too_few_widths_are_refused_with_the_number_there_should_be():
    for widths in ((8,) * 11, (8,) * 13):
        model = Model(name="resnet20", settings={"widths": widths, "shortcut": "B"})
        with pytest.raises(UserError, match=f"'widths' has {len(widths)} numbers; this network has 12 channel groups"):
            build_dense(model, CIFAR10)


def test_every_classification_network_of_torchvision_has_a_row():
    assert {"alexnet", "resnet50", "vgg16_bn", "mobilenet_v2", "densenet121", "vit_b_16", "googlenet"} <= set(MODELS)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_a_network_of_torchvision_is_built_for_the_classes_of_the_data(name):
    model = build_model(Model(name=name), InputShape(3, 64, 64, 7)).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_a_network_of_torchvision_refuses_grey_images():
    with pytest.raises(UserError, match="'resnet18' takes images of 3 channels; the data has 1"):
        build_model(Model(name="resnet18"), InputShape(1, 28, 28, 10))


def test_equal_seeds_give_equal_initial_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_model(Model(name="resnet8"), CIFAR10).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_weights_come_from_a_file(tmp_path):
    given = MODELS["resnet8"](CIFAR10, width=4)
    path = tmp_path / "start.safetensors"
    save_file(given.state_dict(), path)
    model = build_model(Model(name="resnet8", settings={"width": 4}, weights=str(path)), CIFAR10)
    assert all(torch.equal(value, given.state_dict()[name]) for name, value in model.state_dict().items())


def test_weights_that_do_not_fit_are_refused_before_anything_is_changed(tmp_path):
    path = tmp_path / "start.safetensors"
    save_file(MODELS["resnet8"](CIFAR10, width=8).state_dict(), path)
    model = MODELS["resnet8"](CIFAR10, width=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"do not fit model 'resnet8': .*'conv1.weight': \[8, 3, 3, 3\] given"):
        load_weights(model, model="resnet8", weights=str(path))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_missing_or_damaged_weights_file_is_named(tmp_path):
    model = MODELS["resnet8"](CIFAR10, width=4)
    with pytest.raises(UserError, match="no weights file"):
        load_weights(model, model="resnet8", weights=str(tmp_path / "none.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read weights file"):
        load_weights(model, model="resnet8", weights=str(tmp_path / "bad.safetensors"))


def test_unknown_published_weights_get_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'IMAGENET1K_V2'"):
        load_weights(nn.Identity(), model="resnet50", weights="IMAGENET1K_V22")
    with pytest.raises(UserError, match="torchvision has no weights for model 'resnet56'"):
        load_weights(nn.Identity(), model="resnet56", weights="DEFAULT")


def test_the_dense_network_is_rebuilt_without_reading_its_weights():
    build_dense(Model(name="resnet8", weights="nowhere.safetensors"), CIFAR10)


def own_network(shape, /, *, width=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.height * shape.width, shape.classes))


def no_network(shape, /):
    return None


def test_a_users_function_is_a_network():
    model = build_model(Model(name="tests.test_models:own_network"), CIFAR10)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(UserError, match="returned a NoneType"):
        build_model(Model(name="tests.test_models:no_network"), CIFAR10)


def test_the_source_of_our_networks_imports_nothing_of_ours():
    source = source_file("resnet56")
    assert source is not None
    assert source_file("resnet18") is None
    imports = [line for line in source.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert not [
        line for line in imports if any(word in line for word in ("trainables", "spaces", "search", "tracking"))
    ]
