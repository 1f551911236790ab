"""Exported directories: they load elsewhere, give the recorded accuracy, and are found out when they do not."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from search.__main__ import main
from spaces.errors import UserError
from spaces.plan import Plan
from trainables import checkpoint
from trainables.checkpoint import Progress
from trainables.data import load_data
from trainables.export import network, write
from trainables.export.architecture import constructor_source, described, loader_source
from trainables.export.checksums import write_checksums
from trainables.export.comparison import Comparison, Disagreement, check
from trainables.export.forms import write_weights
from trainables.export.records import Unsafe, check_onnx, check_program
from trainables.export.verify import Damaged, verify
from trainables.export.write import export
from trainables.models import InputShape, build_dense
from trainables.pruning.graph import trace
from trainables.pruning.removal import remove
from trainables.store import StageStore
from trainables.trial import Trial

ROOT = Path(__file__).parent.parent
FILES = [
    "architecture.json",
    "checksums.sha256",
    "constructor.py",
    "metrics.json",
    "model.onnx",
    "model.pt2",
    "model.safetensors",
    "model_card.md",
    "network.py",
]


def a_plan(**train: Any) -> Plan:
    return Plan.model_validate(
        {
            "data": {"name": "digits", "validation": 900},
            "model": {"name": "resnet8", "width": 8},
            "train": {"epochs": 6, "batch_size": 20, "learning_rate": 0.1, **train},
            "prune": {"criterion": "l1", "schedule": {"name": "once", "after": 2}, "amount": {"keep_macs": 0.4}},
        }
    )


def finished(plan: Plan, store: Path) -> Path:
    """The checkpoint of the plan's last boundary."""
    trial = Trial(plan, store=StageStore(store))
    while not trial.done:
        trial.step()
    folder = StageStore(store).fetch(trial.progress.key)
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(a_plan(), tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("exports") / "best"
    export(trained, target, origin={"name": "#001 l1·once·global", "run_id": "r"})
    return target


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """An export that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def test_an_export_is_whole_and_says_what_was_recorded(exported: Path, trained: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == FILES
    metrics = json.loads((exported / "metrics.json").read_text())
    recorded = checkpoint.read(trained).progress.metrics
    assert metrics["accuracy"] == recorded["accuracy"] > 0.3
    assert metrics["flops"] == 2 * metrics["macs"] == 2 * recorded["macs"]
    assert set(metrics["verified"]["correct"].values()) == {metrics["correct"]}
    assert metrics["verified"]["images"] == 900
    assert max(metrics["verified"]["largest_difference"].values()) <= 1e-4
    card = (exported / "model_card.md").read_text()
    assert "1 MAC = 2 FLOPs" in card
    assert "weights_only=True" in card


def test_no_file_names_a_folder_of_this_machine(exported: Path) -> None:
    for name in FILES:
        content = (exported / name).read_bytes()
        assert str(ROOT).encode() not in content, name
        assert b"site-packages" not in content, name


def test_the_network_loads_with_torch_alone(exported: Path, trained: Path, tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    torch.save(pixels, tmp_path / "pixels.pt")
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "search spaces tracking trainables pydantic torchvision onnx".split():
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {str(exported)!r})
import torch
from network import load, normalised
torch.save(load()(normalised(torch.load("pixels.pt"))).detach(), "logits.pt")
"""
    subprocess.run([sys.executable, "-I", "-B", "-c", code], cwd=tmp_path, check=True)
    splits = load_data(a_plan().data, device="cpu")
    images = (pixels.float() / 255 - splits.mean[0]) / splits.std[0]
    expected = checkpoint.load_model(trained)(images)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 7])
def test_every_form_takes_any_batch_size(exported: Path, trained: Path, batch: int) -> None:
    images = torch.randn(batch, 1, 8, 8)
    with torch.no_grad():
        expected = checkpoint.load_model(trained)(images)
        program = torch.export.load(exported / "model.pt2").module()
        torch.testing.assert_close(program(images), expected, rtol=1e-4, atol=1e-4)
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_in_any_file_is_caught(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises((Damaged, Unsafe)):
        verify(copy)


@pytest.mark.parametrize("name", ["metrics.json", "model.onnx", "constructor.py", "checksums.sha256"])
def test_a_missing_file_is_named_and_is_the_users_to_mend(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(UserError, match=name):
        verify(copy)


def test_other_weights_are_found_out_although_their_checksum_is_right(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, copy / "model.safetensors")
    write_checksums(copy)
    with pytest.raises(Disagreement, match="disagrees"):
        verify(copy)


def test_another_recorded_accuracy_is_found_out(copy: Path) -> None:
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["correct"] += 1
    (copy / "metrics.json").write_text(json.dumps(metrics))
    write_checksums(copy)
    with pytest.raises(Disagreement, match="recorded"):
        verify(copy)


def test_code_in_the_directory_is_not_run(copy: Path) -> None:
    for name in ("network.py", "constructor.py"):
        (copy / name).write_text(f"open({str(copy / 'ran')!r}, 'w')\n" + (copy / name).read_text())
    write_checksums(copy)
    heard: list[str] = []
    verify(copy, say=heard.append)
    assert not (copy / "ran").exists()
    assert len(heard) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"constructor": {"from": "/tmp/evil.py", "function": "resnet8", "settings": {}}},
        {"constructor": {"from": "constructor.py", "function": "../resnet8", "settings": {}}},
        {"kept": {"conv1.weight": {"0": [0, 10_000]}}},
        {"attributes": {"conv1": {"forward": 1}}},
    ],
)
def test_an_architecture_that_points_elsewhere_is_refused(copy: Path, change: dict[str, Any]) -> None:
    architecture = json.loads((copy / "architecture.json").read_text())
    (copy / "architecture.json").write_text(json.dumps({**architecture, **change}))
    write_checksums(copy)
    with pytest.raises((Damaged, Disagreement, UserError)):
        verify(copy)


# ---- files that would run code -----------------------------------------------------------------------------------


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def rewritten(path: Path, change: Callable[[str, bytes], bytes], extra: dict[str, bytes] | None = None) -> None:
    """The archive with its records changed."""
    reader = PT2ArchiveReader(str(path))
    records = {name: reader.read_bytes(name) for name in reader.get_file_names()}
    del reader
    with PT2ArchiveWriter(str(path)) as writer:
        for name, content in {**records, **(extra or {})}.items():
            if not name.startswith(".data/") and name != "byteorder":
                writer.write_bytes(name, change(name, content))


def test_hidden_code_in_sample_inputs_is_refused_and_not_run(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    hidden = io.BytesIO()
    torch.save(((Payload(marker),), {}), hidden)
    change = lambda name, content: hidden.getvalue() if name == "data/sample_inputs/model.pt" else content  # noqa: E731
    rewritten(copy / "model.pt2", change)
    write_checksums(copy)
    with pytest.raises(Unsafe, match="may run code"):
        verify(copy)
    assert not marker.exists()
    torch.export.load(copy / "model.pt2")
    assert marker.exists(), "the threat is real: torch.export.load ran it"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"use_pickle": false', b'"use_pickle": true '),
        (b'"guards_code": []', b'"guards_code": ["__import__(\'os\').getpid()"]'),
        (b"torch.ops.aten.relu.default", b"torch.serialization.os.system"),
        (b"Symbol('s77'", b"print('s77'"),
        (b"Symbol('s77'", b"Symbol('s77').__class__('s77'"),
    ],
)
def test_a_program_that_could_do_more_than_compute_is_refused(copy: Path, old: bytes, new: bytes) -> None:
    changed: list[str] = []

    def change(name: str, content: bytes) -> bytes:
        if name.endswith(".json") and old in content:
            changed.append(name)
        return content.replace(old, new) if name.endswith(".json") else content

    check_program(copy / "model.pt2")
    rewritten(copy / "model.pt2", change)
    assert changed
    with pytest.raises(Unsafe, match="refused"):
        check_program(copy / "model.pt2")


def test_a_record_that_no_export_has_is_refused(copy: Path) -> None:
    rewritten(copy / "model.pt2", lambda name, content: content, {"data/aotinductor/model/evil.so": b""})
    with pytest.raises(Unsafe, match=r"evil\.so"):
        check_program(copy / "model.pt2")


def test_an_onnx_file_that_reads_another_file_is_refused(copy: Path) -> None:
    model = onnx.load(copy / "model.onnx")
    onnx.save(model, copy / "model.onnx", save_as_external_data=True, location="elsewhere", size_threshold=0)
    with pytest.raises(Unsafe, match="another file"):
        check_onnx(copy / "model.onnx")


# ---- where an export goes ----------------------------------------------------------------------------------------


def test_a_folder_of_something_else_is_not_touched(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"mine\.txt"):
        export(trained, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_earlier_export_with_a_file_of_the_users_is_not_touched(copy: Path, trained: Path) -> None:
    (copy / "notes.md").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.md"):
        export(trained, copy)
    assert (copy / "notes.md").read_text() == "mine"


def stand_in(directory: Path, code: Path, forms: Any, split: Any, train: Any, **_: Any) -> Comparison:
    """A comparison in which all agree with what the test's checkpoint recorded."""
    return Comparison("checkpoint", 900, {}, {}, 0)


def test_an_earlier_export_is_replaced(copy: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "model_card.md").write_text("old")
    monkeypatch.setattr(write, "compare", stand_in)
    export(trained, copy)
    assert sorted(path.name for path in copy.iterdir()) == FILES
    assert (copy / "model_card.md").read_text() != "old"
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_form_that_disagrees_leaves_nothing_behind(
    copy: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disagreeing(*_: Any, **__: Any) -> Comparison:
        return Comparison("checkpoint", 900, {"onnx": 0}, {"onnx": 1.0}, 0)

    monkeypatch.setattr(write, "compare", disagreeing)
    before = (copy / "metrics.json").read_text()
    for target in (copy, copy.parent / "new"):
        with pytest.raises(Disagreement, match="onnx"):
            export(trained, target)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    assert (copy / "metrics.json").read_text() == before


def test_a_different_count_is_allowed_only_for_images_too_close_to_call() -> None:
    check(Comparison("checkpoint", 100, {"onnx": 91}, {"onnx": 1e-6}, undecided=1), recorded=90)
    with pytest.raises(Disagreement, match="recorded: 90"):
        check(Comparison("checkpoint", 100, {"onnx": 91}, {"onnx": 1e-6}, undecided=0), recorded=90)


# ---- other recipes and networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_every_precision_leaves_as_float32(precision: str, tmp_path: Path) -> None:
    folder = finished(a_plan(precision=precision, memory_format="channels_last"), tmp_path / "store")
    metrics = export(folder, tmp_path / "best")
    assert load_file(tmp_path / "best" / "model.safetensors")["conv1.weight"].dtype == torch.float32
    assert metrics["verified"]["largest_difference"]["onnx"] <= 1e-4


@pytest.mark.parametrize("name", ["mobilenet_v2", "googlenet", "shufflenet_v2_x0_5", "vgg16_bn_cifar", "resnet164"])
def test_a_pruned_network_is_rebuilt_from_its_description(name: str, tmp_path: Path) -> None:
    shape = InputShape(3, 32, 32, 10)
    weights = "IMAGENET1K_V1" if name == "googlenet" else None  # which then scales its own input
    plan = a_plan().model_copy(
        update={"model": type(a_plan().model).model_validate({"name": name, "weights": weights})}
    )
    model = build_dense(plan.model, shape).eval()
    example = torch.randn(2, 3, 32, 32)
    groups = trace(model, example[:1]).graph.groups
    kept = {group: torch.arange(0, item.channels, 2) for group, item in groups.items() if item.channels > 1}
    removal = remove(model, groups, kept, None, example[:1])
    progress = Progress(6, 1, "k", (3,), 0.5, 0.5, 0, 0, {})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    checkpoint.save(tmp_path, model, optimizer, plan=plan, shape=shape, removal=removal, widths={}, progress=progress)
    (tmp_path / "network.py").write_text(loader_source())
    source = constructor_source(name)
    if source is not None:
        (tmp_path / "constructor.py").write_text(source)
    document = described(checkpoint.read(tmp_path), model, tmp_path, mean=[0, 0, 0], std=[1, 1, 1])
    write.write_json(tmp_path / "architecture.json", document)
    write_weights(model, tmp_path / "model.safetensors")
    rebuilt = network.load(tmp_path)
    with torch.no_grad():
        expected = model(example)  # strides differ, and with them the order of sums
        torch.testing.assert_close(rebuilt(example) / expected.abs().max(), expected / expected.abs().max())
    for path, module in rebuilt.named_modules():
        assert repr(module) == repr(model.get_submodule(path))


def test_what_is_ours_needs_torch_alone() -> None:
    for text in (loader_source(), constructor_source("resnet8") or ""):
        assert "pydantic import" not in text
        assert "trainables" not in text.replace("nothing of prunefront", "")


# ---- the commands ------------------------------------------------------------------------------------------------


def prunefront(
    *arguments: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a verb."""
    monkeypatch.setattr(sys, "argv", ["prunefront", *arguments])
    status = 0
    try:
        main()
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    return status, *capfd.readouterr()


def test_verify_repeats_the_proof_form_by_form(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status, said, complaints = prunefront("verify", str(exported), monkeypatch=monkeypatch, capfd=capfd)
    assert (status, complaints) == (0, "")
    assert [line.split()[0] for line in said.splitlines()[:3]] == ["safetensors", "pt2", "onnx"]
    assert said.count("of 900 right") == 3


def test_verify_answers_by_exit_status_and_one_line(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _, complaints = prunefront("verify", str(copy / "nowhere"), monkeypatch=monkeypatch, capfd=capfd)
    assert (status, complaints.count("\n")) == (2, 1)
    (copy / "model_card.md").write_text("other")
    status, _, complaints = prunefront("verify", str(copy), monkeypatch=monkeypatch, capfd=capfd)
    assert (status, complaints.count("\n")) == (1, 1)
    assert "model_card.md" in complaints
