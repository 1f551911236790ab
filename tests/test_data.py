"""Data sets, the splits carved from them, and batches."""

import gzip
import pickle

import numpy
import pytest
import torch
from PIL import Image

from spaces.errors import UserError
from spaces.plan import Data
from trainables.data import Images, Source, forbid_test_split, load, load_data, load_test
from trainables.data.augment import check_augmentations, shifted
from trainables.data.cifar_files import cifar10, cifar100
from trainables.data.decode import part
from trainables.data.folder import image_folder
from trainables.data.idx import fashion_mnist, read_idx
from trainables.data.split import MemorySplit, Normalisation
from trainables.data.strata import stratified
from trainables.data.stream import FileSplit

DIGITS = Data(name="digits", validation=900)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def collected(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.fixture(autouse=True)
def test_split_allowed(monkeypatch):
    monkeypatch.setattr(load, "_test_split", load._TestSplit())


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_digits_leave_200_images_to_train_on_and_697_for_test():
    splits = load_data(DIGITS, device="cpu")
    assert (len(splits.train), len(splits.validation), len(load_test(DIGITS, device="cpu"))) == (200, 900, 697)
    assert (splits.shape, splits.num_classes) == ((1, 8, 8), 10)


def test_no_image_of_digits_is_in_two_splits():
    splits = load_data(DIGITS, device="cpu")
    parts = [splits.train.pixels, splits.validation.pixels, load_test(DIGITS, device="cpu").pixels]
    assert len(torch.unique(torch.cat(parts).flatten(1), dim=0)) == 1797


@pytest.mark.parametrize("count", [1, 7, 50, 99])
def test_a_stratified_choice_has_the_exact_size_and_every_class_its_share(count):
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    taken, rest = stratified(labels, count, seed=3, what="validation")
    assert len(taken) == count
    assert torch.cat([taken, rest]).sort().values.tolist() == list(range(100))
    shares = torch.bincount(labels[taken], minlength=3)
    assert ((shares - torch.tensor([0.6, 0.3, 0.1]) * count).abs() < 1).all()


def test_a_stratified_choice_depends_on_its_seed_and_on_nothing_else():
    labels = torch.arange(100) % 5
    torch.manual_seed(1)
    first, _ = stratified(labels, 20, seed=0, what="validation")
    torch.manual_seed(2)
    assert torch.equal(first, stratified(labels, 20, seed=0, what="validation")[0])
    assert not torch.equal(first, stratified(labels, 20, seed=1, what="validation")[0])


def test_the_validation_split_stays_the_same_however_many_images_are_trained_on():
    few = load_data(Data(name="digits", validation=500, train_images=100), device="cpu")
    many = load_data(Data(name="digits", validation=500), device="cpu")
    assert (len(few.train), len(many.train)) == (100, 600)
    assert torch.equal(few.validation.pixels, many.validation.pixels)
    assert torch.bincount(few.train.labels).min() >= 9


def test_validation_may_be_a_fraction():
    assert len(load_data(Data(name="digits", validation=0.1), device="cpu").validation) == 110


@pytest.mark.parametrize(("validation", "train_images"), [(1100, None), (5000, None), (900, 201)])
def test_more_images_than_there_are_is_the_users_mistake(validation, train_images):
    with pytest.raises(UserError, match=r"cannot take \d+ of \d+ images for (validation|training)"):
        load_data(Data(name="digits", validation=validation, train_images=train_images), device="cpu")


def test_the_test_split_is_refused_in_a_process_that_searches():
    forbid_test_split()
    load_data(DIGITS, device="cpu")
    with pytest.raises(UserError, match="test split cannot be read"):
        load_test(DIGITS, device="cpu")


def untouchable(root, /):
    """A data set whose test part must not be read."""
    images = Images(torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1), torch.arange(40) % 2)
    return Source(train=images, test=lambda: pytest.fail("the test part was read"), num_classes=2)


def test_a_users_function_is_a_data_set_and_its_test_part_is_not_read_for_training():
    assert len(load_data(Data(name="tests.test_data:untouchable", validation=10), device="cpu").train) == 30


def test_a_users_function_that_returns_something_else_is_named():
    with pytest.raises(UserError, match=r"data 'tests\.test_data:nothing' returned a NoneType"):
        load_data(Data(name="tests.test_data:nothing"), device="cpu")


def nothing(root, /):
    return None


def test_the_fingerprint_follows_the_images_used():
    prints = {
        load_data(data, device="cpu").fingerprint
        for data in (DIGITS, Data(name="digits", validation=901), Data(name="digits", validation=900, split_seed=1))
    }
    assert len(prints) == 3
    assert load_data(DIGITS.model_copy(update={"augment": ("flip",)}), device="cpu").fingerprint in prints


# ---- batches --------------------------------------------------------------------------------------------------------


def test_training_images_are_normalised():
    images, _ = collected(load_data(DIGITS, device="cpu").train.ordered(64))
    assert images.mean().abs() < 1e-6
    assert abs(images.std(correction=0) - 1) < 1e-6


def test_an_epoch_shows_every_image_once_and_keeps_the_last_small_batch():
    train = load_data(DIGITS, device="cpu").train
    batches = list(train.epoch(64, generator()))
    assert [len(labels) for _, labels in batches] == [64, 64, 64, 8]
    shown, _ = collected(batches)
    assert torch.equal(
        torch.unique(shown.flatten(1), dim=0), torch.unique(collected(train.ordered(50))[0].flatten(1), dim=0)
    )


def test_the_order_and_augmentation_of_an_epoch_depend_on_its_generator_alone():
    train = load_data(DIGITS, device="cpu").train
    torch.manual_seed(1)
    first, _ = collected(train.epoch(64, generator(5), ("pad_crop", "flip")))
    torch.manual_seed(2)
    second, _ = collected(train.epoch(64, generator(5), ("pad_crop", "flip")))
    other, _ = collected(train.epoch(64, generator(6), ("pad_crop", "flip")))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_batches_draw_nothing_from_the_global_generator():
    train = load_data(DIGITS, device="cpu").train
    before = torch.get_rng_state()
    list(train.epoch(64, generator(), ("pad_crop", "flip")))
    list(train.sample(100, 32, generator()))
    assert torch.equal(before, torch.get_rng_state())


def test_a_sample_has_the_size_asked_for_or_all_there_is():
    train = load_data(DIGITS, device="cpu").train
    assert [len(labels) for _, labels in train.sample(70, 32, generator())] == [32, 32, 6]
    assert sum(len(labels) for _, labels in train.sample(10_000, 32, generator())) == 200


def test_a_shift_equals_cutting_the_padded_image():
    pixels = torch.randint(256, (3, 2, 5, 6), generator=generator(), dtype=torch.uint8)
    shifts = torch.tensor([[0, 0], [2, 1], [4, 3]])
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    expected = torch.stack([padded[i, :, r : r + 5, c : c + 6] for i, (r, c) in enumerate(shifts.tolist())])
    assert torch.equal(shifted(pixels, shifts, 2), expected)


def test_about_half_of_the_images_are_flipped():
    images = Images(torch.tensor([[[[0, 255]]]], dtype=torch.uint8).repeat(400, 1, 1, 1), torch.zeros(400).long())
    split = MemorySplit(images, Normalisation([0.0], [1.0], "cpu"))
    shown, _ = collected(split.epoch(100, generator(), ("flip",)))
    assert 150 < shown[:, 0, 0, 0].sum() < 250


def test_an_augmentation_that_cannot_be_done_is_named():
    with pytest.raises(UserError, match="'flop'; did you mean 'flip'"):
        check_augmentations(("flop",), of_files=False)
    with pytest.raises(UserError, match="'resized_crop' is for image folders"):
        load_data(Data(name="digits", validation=900, augment=("resized_crop",)), device="cpu")


# ---- files ----------------------------------------------------------------------------------------------------------


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(numpy.uint8).tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part_name, count in (("train", 20), ("t10k", 10)):
        pixels = numpy.arange(count * 16).reshape(count, 4, 4)
        (raw / f"{part_name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
        (raw / f"{part_name}-labels-idx1-ubyte").write_bytes(idx(numpy.arange(count) % 10))
    return tmp_path


def test_idx_files_are_read_packed_or_not_and_nothing_is_written(idx_folder):
    before = sorted(idx_folder.rglob("*"))
    source = fashion_mnist(idx_folder)
    assert source.train.shape == (1, 4, 4)
    assert source.train.pixels[1].flatten().tolist() == list(range(16, 32))
    assert source.test().labels.tolist() == list(range(10))
    assert sorted(idx_folder.rglob("*")) == before


def test_the_folder_of_the_idx_files_itself_is_a_root_too(idx_folder):
    assert len(fashion_mnist(idx_folder / "FashionMNIST" / "raw").train) == 20


@pytest.mark.parametrize("content", [b"", b"no idx", idx(numpy.zeros((2, 2)))[:-1]])
def test_a_damaged_idx_file_is_named(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match="train-images"):
        read_idx(path)


def test_a_damaged_packed_file_is_named(idx_folder):
    path = idx_folder / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match="cannot read"):
        fashion_mnist(idx_folder)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder"])
def test_missing_data_names_the_folder_and_what_was_expected(name, tmp_path):
    with pytest.raises(UserError, match="expected") as caught:
        load_data(Data(name=name, root=str(tmp_path / "nowhere")), device="cpu")
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("function", "folder", "key"),
    [(cifar10, "cifar-10-batches-py", "labels"), (cifar100, "cifar-100-python", "fine_labels")],
)
def test_cifar_is_read_through_torchvision(function, folder, key, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    home = tmp_path / folder
    home.mkdir()
    data = numpy.arange(4 * 3072).astype(numpy.uint8).reshape(4, 3072)
    for name in (
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
        "train",
        "test",
    ):
        (home / name).write_bytes(pickle.dumps({"data": data, key: [0, 1, 2, 3]}))
    for name in ("batches.meta", "meta"):
        (home / name).write_bytes(pickle.dumps({"label_names": ["a"], "fine_label_names": ["a"]}))
    source = function(tmp_path)
    assert source.train.shape == (3, 32, 32)
    assert torch.equal(source.test().pixels.flatten(1), torch.from_numpy(data))


@pytest.fixture
def picture_folder(tmp_path):
    draw = numpy.random.default_rng(0)
    for part_name in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / part_name / name
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = draw.integers(256, size=(20 + number, 30, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def folder_split(root, **settings):
    files = image_folder(root, **{"size": 16, "workers": 0, **settings}).train
    return FileSplit(files, Normalisation(files.mean, files.std, "cpu"))


def test_an_image_folder_takes_its_classes_from_the_folders(picture_folder):
    source = image_folder(picture_folder, size=16)
    assert source.num_classes == 2
    assert source.train.labels.tolist() == [0] * 6 + [1] * 6
    assert source.train.paths[0] == "train/ant/0.png"
    assert len(source.test()) == 12


def test_an_image_folder_held_in_memory_shows_the_same_pixels_as_a_streamed_one(picture_folder):
    held = image_folder(picture_folder, size=16, hold="memory").train
    streamed = image_folder(picture_folder, size=16, workers=0, mean=(0.0,) * 3, std=(1.0,) * 3).train
    images, labels = collected(FileSplit(streamed, Normalisation(streamed.mean, streamed.std, "cpu")).ordered(5))
    assert torch.equal((images * 255).round().to(torch.uint8), held.pixels)
    assert torch.equal(labels, held.labels)


def test_a_streamed_epoch_is_the_same_with_and_without_workers(picture_folder):
    augment = ("resized_crop", "flip", "pad_crop")
    alone, served = folder_split(picture_folder), folder_split(picture_folder, workers=1)
    for seed in (0, 1):  # the second pass uses the workers of the first
        expected, labels = collected(alone.epoch(5, generator(seed), augment))
        shown, shown_labels = collected(served.epoch(5, generator(seed), augment))
        assert torch.equal(expected, shown)
        assert torch.equal(labels, shown_labels)
    assert not torch.equal(expected, collected(alone.epoch(5, generator(0), augment))[0])


def test_a_streamed_split_draws_nothing_from_the_global_generator(picture_folder):
    split, before = folder_split(picture_folder), torch.get_rng_state()
    list(split.epoch(4, generator(), ("resized_crop",)))
    assert [len(labels) for _, labels in split.sample(7, 4, generator())] == [4, 3]
    assert torch.equal(before, torch.get_rng_state())


def test_an_image_folder_becomes_splits(picture_folder):
    data = Data(name="image_folder", root=str(picture_folder), validation=4, settings={"size": 16, "workers": 0})
    splits = load_data(data, device="cpu")
    assert (len(splits.train), len(splits.validation), splits.shape) == (8, 4, (3, 16, 16))
    assert splits.mean == (0.485, 0.456, 0.406)


def test_an_image_that_cannot_be_decoded_is_named(picture_folder):
    (picture_folder / "train" / "ant" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"0\.png"):
        image_folder(picture_folder, size=16, hold="memory")


def test_a_part_drawn_from_an_image_lies_inside_it_and_covers_what_was_drawn():
    for seed in range(200):
        left, top, right, bottom = part(40, 30, generator(seed))
        assert 0 <= left < right <= 40
        assert 0 <= top < bottom <= 30
        assert 0.05 < (right - left) * (bottom - top) / 1200 <= 1
