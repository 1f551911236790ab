"""Study files: what they allow, what plans come out of them, and what is refused with file and line."""

import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.domains import Choices, Range
from spaces.errors import UserError
from spaces.load import load_plan, load_study
from spaces.metrics import METRICS
from spaces.plan import Plan
from spaces.study import Study

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "spaces").glob("*.yaml"))
SEARCHES = ("cifar10_resnet56", "digits", "fashion_mnist", "imagenet_resnet50")
GRIDS = ("digits_grid",)
REPRODUCTIONS = ("cifar10_resnet110_frs", "cifar10_vgg16_snapit")
ADJUSTMENTS = ("cifar10_resnet20_adjustment", "digits_adjustment")  # nothing varies: each trial follows from the last
PROPOSING = [path for path in SHIPPED if path.stem not in ADJUSTMENTS]
STUDY = """\
data: digits
model: resnet8
train:
  epochs: 30
  learning_rate: 0.1
  optimizer: {name: sgd, nesterov: true}
prune:
  criterion:
    choices:
      - l1
      - name: frs
        mode: {choices: [stable, paper]}
  allocation: {name: given, keeps: {from: 0.2, to: 1.0, size: 2}}
  schedule:
    choices:
      - name: every
        interval: {from: 1, to: 5}
        until: {from: 10, to: 20, step: 5}
      - once
  amount:
    keep_macs: {from: 0.03, to: 0.8, log: true}
recover: {choices: [continue, {name: linear, peak: {from: 0.1, to: 1.0}}]}
objectives: [accuracy, keep_macs]
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return load_study(written(tmp_path, STUDY))


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def changed(old: str, new: str) -> str:
    assert old in STUDY
    return STUDY.replace(old, new, 1)


def complaint(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_study(written(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


# Plans


def test_the_space_is_flat_and_settings_go_by_the_choice_they_belong_to(study: Study) -> None:
    assert [parameter.path for parameter in study.parameters] == [
        "prune.criterion",
        "prune.criterion[frs].mode",
        "prune.allocation.keeps[0]",
        "prune.allocation.keeps[1]",
        "prune.schedule",
        "prune.schedule[every].interval",
        "prune.schedule[every].until",
        "prune.amount.keep_macs",
        "recover",
        "recover[linear].peak",
    ]
    when = {parameter.path: parameter.when for parameter in study.parameters}
    assert when["prune.criterion[frs].mode"] == (("prune.criterion", "frs"),)
    assert when["prune.criterion"] == ()


def test_settings_that_are_not_active_do_not_change_a_plan(study: Study) -> None:
    choices = {**study.defaults(), "prune.criterion": "l1", "recover": "continue"}
    other = {**choices, "prune.criterion[frs].mode": "paper", "recover[linear].peak": 0.3}
    assert study.plan(choices) == study.plan(other)
    assert study.plan(choices).hash == study.plan(other).hash
    assert "prune.criterion[frs].mode" not in study.active(choices)
    used = {**choices, "prune.criterion": "frs"}
    assert study.plan(used).hash != study.plan({**used, "prune.criterion[frs].mode": "paper"}).hash


def test_floats_that_differ_after_six_digits_make_equal_plans(study: Study) -> None:
    one = {**study.defaults(), "prune.amount.keep_macs": 0.123456789}
    two = {**one, "prune.amount.keep_macs": 0.1234568}
    assert study.plan(one).hash == study.plan(two).hash
    assert study.plan(one).prune.amount.keep_macs == 0.123457
    assert study.plan(one).hash != study.plan({**one, "prune.amount.keep_macs": 0.12346}).hash


def test_defaults_that_are_written_out_make_equal_plans(tmp_path: Path) -> None:
    short = load_study(written(tmp_path, STUDY)).baseline()
    long = load_study(
        written(
            tmp_path,
            changed("model: resnet8", "model: {name: resnet8, width: 16}").replace(
                "optimizer: {name: sgd, nesterov: true}",
                "optimizer: {nesterov: true, momentum: 0.90, name: sgd}\n  weight_decay: 5e-4\n  warmup_epochs: 0",
            ),
        )
    ).baseline()
    assert short.hash == long.hash
    assert short.train.decay.settings == {"end": 0.0}


def test_the_baseline_is_dense_and_has_the_recipe_of_the_others(study: Study) -> None:
    assert study.baseline().prune is None
    assert study.baseline().recover.name == "continue"
    assert study.plan(study.sample(random.Random(3))).dense() == study.baseline()


@given(seed=st.integers(0, 2**32))
def test_a_plan_survives_json_with_its_hash(seed: int) -> None:
    plan = load_study(ROOT / "spaces/digits.yaml")
    drawn = plan.plan(plan.sample(random.Random(seed)))
    assert Plan.model_validate_json(drawn.model_dump_json()).hash == drawn.hash
    assert Plan.model_validate(drawn.model_dump(mode="json")) == drawn


def test_a_plan_has_the_same_hash_in_another_process(study: Study) -> None:
    path = ROOT / "spaces/digits.yaml"
    code = f"from spaces.load import load_study; s = load_study({str(path)!r}); print(s.baseline().hash, s.fingerprint)"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    here = load_study(path)
    assert told.stdout.split() == [here.baseline().hash, here.fingerprint]


def test_a_plan_needs_every_parameter_and_knows_no_others(study: Study) -> None:
    choices = study.defaults()
    with pytest.raises(UserError, match=r"unknown parameter 'prune\.criterio'; did you mean 'prune\.criterion'"):
        study.plan({**choices, "prune.criterio": "l1"})
    with pytest.raises(UserError, match="no value for the parameter 'recover'"):
        study.plan({path: value for path, value in choices.items() if path != "recover"})
    with pytest.raises(UserError, match=r"'prune\.amount\.keep_macs' is 0\.9; allowed: number from 0\.03 to 0\.8"):
        study.plan({**choices, "prune.amount.keep_macs": 0.9})


def test_a_plan_file_runs_what_it_says(tmp_path: Path, study: Study) -> None:
    plan = study.plan(study.defaults())
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json(indent=2))
    assert load_plan(path) == plan
    assert load_plan(path, ["train.epochs=25"]).train.epochs == 25


def test_a_plan_file_with_something_open_is_refused(tmp_path: Path) -> None:
    text = STUDY.replace("objectives: [accuracy, keep_macs]\n", "")
    with pytest.raises(UserError, match=r"study.yaml: 'prune.criterion' is open, and a plan has every choice made"):
        load_plan(written(tmp_path, text))


def test_a_plan_that_says_nothing_new_keeps_the_hash_it_had_before_there_was_anything_new_to_say() -> None:
    study = load_study(ROOT / "spaces/digits.yaml", ["model.width=12"])
    assert study.baseline().hash == "bfabd2f81044e3d6"
    measuring = load_study(ROOT / "spaces/digits.yaml", ["utilization={}"])
    given = load_study(ROOT / "spaces/digits.yaml", ["model.shortcut=B", "model.widths=[4, 4, 4, 4, 4, 4]"])
    narrower = load_study(ROOT / "spaces/digits.yaml", ["model.shortcut=B", "model.widths=[4, 4, 4, 4, 4, 3]"])
    assert len({one.baseline().hash for one in (study, measuring, given, narrower)}) == 4


# Fingerprints


@pytest.mark.parametrize(
    "change", ["budget.trials=7", "resources.workers=3", "tracking.experiment=other", "name=renamed"]
)
def test_a_study_that_proposes_the_same_keeps_its_fingerprint(tmp_path: Path, change: str) -> None:
    path = written(tmp_path, STUDY)
    assert load_study(path).fingerprint == load_study(path, [change]).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        "train.seed=1",
        "budget.seed=1",
        "budget.sampler=random",
        "prune.width_multiple=2",
        "prune.amount.keep_macs={from: 0.03, to: 0.8}",
        "objectives=[accuracy, params]",
        "constraints={macs: {max: 1000000}}",
        "prune.criterion[frs].samples=100",
    ],
)
def test_a_study_that_proposes_something_else_has_another_fingerprint(tmp_path: Path, change: str) -> None:
    path = written(tmp_path, STUDY)
    assert load_study(path).fingerprint != load_study(path, [change]).fingerprint


# Domains


def ranges() -> st.SearchStrategy[Range]:
    def build(low: float, width: float, log: bool, whole: bool) -> Range:
        low, high = (float(round(low)), float(round(low + width))) if whole else (low, low + width)
        return Range(
            low=max(low, 1e-3) if log and not whole else max(low, 1.0), high=max(high, 1.0), log=log, whole=whole
        )

    return st.builds(build, st.floats(1, 1e4), st.floats(0, 1e4), st.booleans(), st.booleans())


@given(domain=ranges(), seed=st.integers(0, 99))
def test_what_a_range_draws_is_in_it_and_stays_what_it_is(domain: Range, seed: int) -> None:
    value = domain.sample(random.Random(seed))
    assert domain.low <= value <= domain.high
    assert isinstance(value, int) == domain.whole
    assert domain.taken(value) == value
    assert domain.taken(domain.default) == domain.default


def test_a_stepped_range_draws_its_grid_and_both_ends() -> None:
    domain = Range(low=0.1, high=0.5, step=0.1)
    rng = random.Random(0)
    assert {domain.sample(rng) for _ in range(200)} == {0.1, 0.2, 0.3, 0.4, 0.5}


def test_a_whole_range_draws_its_ends_as_often_as_the_middle() -> None:
    rng = random.Random(0)
    drawn = [Range(low=1, high=3, whole=True).sample(rng) for _ in range(3000)]
    assert all(900 < drawn.count(value) < 1100 for value in (1, 2, 3))


def test_true_is_not_one_among_choices() -> None:
    with pytest.raises(ValueError, match="true; allowed: one of 1, 2"):
        Choices(values=(1, 2)).taken(True)


# Scalars: where YAML 1.1 surprises


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0E-3", ".001", "+0.1e-2"])
def test_a_number_with_an_exponent_is_a_number(tmp_path: Path, text: str) -> None:
    loaded = load_study(written(tmp_path, changed("learning_rate: 0.1", f"learning_rate: {text}")))
    assert loaded.baseline().train.learning_rate == pytest.approx(0.001)


@pytest.mark.parametrize("word", ["on", "yes", "off", "no", '"true"', "1"])
def test_a_word_that_yaml_once_took_for_a_switch_is_no_switch(tmp_path: Path, word: str) -> None:
    text = changed("nesterov: true", f"nesterov: {word}")
    message = complaint(tmp_path, text)
    assert message.startswith("study.yaml:6: setting 'nesterov' of optimizer 'sgd' is")
    assert message.endswith("allowed: true or false")


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e999"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, number: str) -> None:
    text = changed("learning_rate: 0.1", f"learning_rate: {number}")
    assert complaint(tmp_path, text) == f"study.yaml:5: {number} is not a finite number"


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = changed("  learning_rate: 0.1", "  epochs: 20")
    assert complaint(tmp_path, text) == "study.yaml:5: the key 'epochs' stands twice; first on line 4"


# Bad input: one line, with the line of the file


KEEP = "keep_macs: {from: 0.03, to: 0.8, log: true}"
INTERVAL, UNTIL = "interval: {from: 1, to: 5}", "until: {from: 10, to: 20, step: 5}"
BAD = [
    ("epochs: 30", "epoch: 30", "unknown key 'epoch' in train; did you mean 'epochs'?"),
    ("  epochs: 30\n", "", "'epochs' is missing in train"),
    ("epochs: 30", "epochs: thirty", "'train.epochs' is \"thirty\"; allowed: integer from 1"),
    ("epochs: 30", 'epochs: "30"', "'train.epochs' is \"30\"; allowed: integer from 1"),
    ("epochs: 30", "epochs: true", "'train.epochs' is true; allowed: integer from 1"),
    ("epochs: 30", "epochs: 0", "'train.epochs' is 0; allowed: integer from 1"),
    ("epochs: 30", "epochs: {from: 2.5, to: 30}", "the range of 'train.epochs' has fractions"),
    ("from: 0.03, to: 0.8", "from: 0.8, to: 0.03", "is impossible: from 0.8 is above to 0.03"),
    ("from: 0.03, to: 0.8", "from: 0, to: 0.8", "is impossible: a log range starts above 0, not at 0"),
    ("from: 0.03, to: 0.8, log: true", "from: 0, to: 0.8", "'prune.amount.keep_macs' is 0"),
    ("from: 0.03, to: 0.8", "from: 0.03, to: 1.2", "'prune.amount.keep_macs' is 1.2; allowed: number above 0 to 1"),
    ("from: 0.03, to: 0.8", "from: 0.03, upto: 0.8", "unknown key 'upto' in the range of 'prune.amount.keep_macs'"),
    ("from: 0.03, to: 0.8", "from: 0.03", "the range of 'prune.amount.keep_macs' has no 'to'"),
    ("from: 0.03, to: 0.8", "from: few, to: 0.8", "from in the range of 'prune.amount.keep_macs' is \"few\""),
    ("from: 0.03, to: 0.8, log: true", "from: 0.1, to: 0.8, step: 0.3", "steps of 0.3 from 0.1 do not end at 0.8"),
    (KEEP, "keep_macs: 0", "'prune.amount.keep_macs' is 0; allowed: number above 0 to 1"),
    (KEEP, "keep_macs: 1.5", "'prune.amount.keep_macs' is 1.5; allowed: number above 0 to 1"),
    (KEEP, "keep_mac: 0.5", "unknown key 'keep_mac' in prune.amount; did you mean 'keep_macs'?"),
    (INTERVAL, "interval: 0", "setting 'interval' of schedule 'every' is 0; allowed: integer from 1"),
    (INTERVAL, "interval: {from: 0, to: 5}", "setting 'interval' of schedule 'every' is 0; allowed: integer from 1"),
    (INTERVAL, "interval: {from: 1, to: 12}", "interval 12 of schedule 'every' leaves no event before epoch 10"),
    (UNTIL, "until: {from: 10, to: 30}", "until 30 of schedule 'every' is not under the 30 epochs of training"),
    ("- once", "- {name: once, after: 35}", "after 35 of schedule 'once' is not under the 30 epochs of training"),
    ("- l1", "- magnitud", "unknown criterion 'magnitud'; did you mean 'magnitude'? known: bn_scale, frs,"),
    ("mode:", "mod:", "criterion 'frs' has no setting 'mod'; did you mean 'mode'?"),
    ("[stable, paper]", "[stable, papier]", "setting 'mode' of criterion 'frs' is \"papier\"; allowed: one of: paper"),
    ("[stable, paper]", "[]", "the choices of 'prune.criterion[frs].mode' must be a list of at least one"),
    ("[stable, paper]", "[stable, stable]", "'prune.criterion[frs].mode' has the choice stable twice"),
    ("size: 2", "size: 0", "size of 'prune.allocation.keeps' is 0; allowed: integer from 1"),
    ("keeps: {from: 0.2, to: 1.0, size: 2}", "keeps: []", "allocation 'given' needs its setting 'keeps'"),
    ("to: 1.0, size: 2", "to: 1.5, size: 2", "setting 'keeps' of allocation 'given' is [1.5"),
    ("model: resnet8", "model: resnet9", "unknown model 'resnet9'; did you mean 'resnet8'?"),
    ("[accuracy, keep_macs]", "[accuracy, mac]", "unknown metric 'mac'; did you mean 'macs'?"),
    ("[accuracy, keep_macs]", "[]", "'objectives' is []; allowed: a list of text"),
    ("[accuracy, keep_macs]", "[macs, macs]", "the objective 'macs' stands twice"),
    ("objectives:", "objective:", "unknown section 'objective'; did you mean 'objectives'?"),
    ("objectives:", "constraints: {macs: {max: low}}\nobjectives:", "'constraints.macs.max' is \"low\""),
    ("objectives:", "constraints: {mac: {max: 3}}\nobjectives:", "unknown metric 'mac'; did you mean 'macs'?"),
    ("objectives:", "constraints: {macs: {most: 3}}\nobjectives:", "unknown key 'most' in constraints.macs"),
    ("objectives:", "constraints: {macs: {min: 3, max: 2}}\nobjectives:", "min 3 is above max 2"),
    ("objectives:", "constraints: {macs: {}}\nobjectives:", "a constraint has min, max or both"),
    ("objectives:", "budget: {sampler: gp}\nobjectives:", "'budget.sampler' is \"gp\"; allowed: one of: tpe, nsga2"),
    ("objectives:", "budget: {trials: 0}\nobjectives:", "'budget.trials' is 0; allowed: integer from 1"),
    ("objectives:", "stopper: {name: asha}\nobjectives:", "'stopper.name' is \"asha\"; allowed: one of: none, front"),
    ("objectives:", "stopper: {reduction: 1}\nobjectives:", "'stopper.reduction' is 1; allowed: number above 1"),
    (
        "objectives:",
        "stopper: {fractions: [0.4]}\nobjectives:",
        "'stopper.fractions[0]' is 0.4; allowed: number from 0.5 below 1",
    ),
    (
        "objectives:",
        "stopper: {fractions: [0.7, 0.6]}\nobjectives:",
        "the fractions of the rungs rise; 0.6 comes after",
    ),
    ("objectives:", "stopper: {fractions: []}\nobjectives:", "'stopper.fractions' is []; allowed: a list of"),
    ("objectives:", "resources: {gpu: 1}\nobjectives:", "unknown key 'gpu' in resources; did you mean 'gpus'?"),
    ("objectives:", "name: a/b\nobjectives:", "a study's name is letters, digits, '.', '_' and '-'; got 'a/b'"),
    ("data: digits", "data: {name: digits, validation: 1.5}", "'data.validation' is 1.5; allowed: integer from 1 or"),
    ("data: digits", "data: {name: digits, validation: 0}", "'data.validation' is 0; allowed: integer from 1 or"),
    ("model: resnet8", "model: [resnet8", "this is not YAML"),
    ("model: resnet8", "model: !!python/name:os.system x", "means nothing here"),
    ("model: resnet8", "model: &a [*a]", "this alias contains itself"),
]


@pytest.mark.parametrize(("old", "new", "expected"), BAD, ids=[new.strip() or "left out" for _, new, _ in BAD])
def test_bad_input_is_one_line_that_names_the_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    message = complaint(tmp_path, changed(old, new))
    assert expected in message
    told = re.match(r"study\.yaml:(\d+): ", message)
    assert told is not None
    about = 1 + STUDY[: STUDY.index(old)].count("\n")
    assert abs(int(told.group(1)) - about) <= (1 if new else 2)


def test_events_are_checked_against_the_shortest_training(tmp_path: Path) -> None:
    text = changed("epochs: 30", "epochs: {from: 15, to: 30}")
    message = complaint(tmp_path, text)
    assert message.startswith(f"study.yaml:{line_of(text, 'until')}: until 15 of schedule 'every' is not under the 15")


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "just words", "--- {}\n--- {}", "\x00", "\t- x"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert complaint(tmp_path, text).startswith("study.yaml")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: there is no such study file"):
        load_study(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match="this study file cannot be read"):
        load_study(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(UserError, match="it is not UTF-8 text"):
        load_study(tmp_path / "latin.yaml")


# --set


def test_set_replaces_adds_and_opens_values(tmp_path: Path) -> None:
    path = written(tmp_path, STUDY)
    changed_study = load_study(
        path,
        [
            "train.epochs=40",
            "model.width=8",
            "prune.criterion[frs].samples=50",
            "prune.schedule=once",
            "train.weight_decay={from: 1e-5, to: 1e-3, log: true}",
            "budget.trials=6",
            "data.root=/somewhere",
        ],
    )
    plan = changed_study.plan({**changed_study.defaults(), "prune.criterion": "frs"})
    assert plan.train.epochs == 40
    assert plan.model.settings["width"] == 8
    assert plan.prune.criterion.settings["samples"] == 50
    assert plan.prune.schedule.name == "once"
    assert plan.train.weight_decay == pytest.approx(1e-4)
    assert plan.data.root == "/somewhere"
    assert changed_study.budget.trials == 6


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epoch=5", "--set train.epoch=5: unknown key 'epoch' in train; did you mean 'epochs'?"),
        ("trian.epochs=5", "--set trian.epochs=5: unknown section 'trian'; did you mean 'train'?"),
        ("budget.trials=many", "--set budget.trials=many: 'budget.trials' is \"many\"; allowed: integer from 1"),
        ("data.rot=x", "--set data.rot=x: data 'digits' has no setting 'rot'"),
        ("prune.criterion[fr].mode=paper", "unknown choice of prune.criterion 'fr'; did you mean 'frs'?"),
        ("prune.criterion.mode=paper", "'prune.criterion' is open: name one choice, prune.criterion[CHOICE].mode"),
        ("train.epochs.x=1", "'train.epochs' is one value and has nothing below it"),
        ("train.epochs", "write PATH=VALUE, as in train.epochs=10"),
        ("train.epochs=[1", "this is not YAML"),
        ("prune.amount.keep_macs={from: 1, to: 0.5}", "is impossible: from 1 is above to 0.5"),
    ],
)
def test_a_bad_override_is_one_line_that_repeats_it(tmp_path: Path, override: str, expected: str) -> None:
    message = complaint(tmp_path, STUDY, override)
    assert message.startswith(f"--set {override}: ")
    assert expected in message


# What ships


def test_these_studies_ship() -> None:
    assert sorted(path.stem for path in SHIPPED) == sorted((*SEARCHES, *GRIDS, *REPRODUCTIONS, *ADJUSTMENTS))


@pytest.mark.parametrize("path", PROPOSING, ids=lambda path: path.stem)
def test_a_shipped_study_loads_and_proposes_valid_plans(path: Path) -> None:
    study = load_study(path)
    rng = random.Random(0)
    assert study.name == path.stem
    assert study.parameters
    assert set(study.objectives) <= set(METRICS)
    for _ in range(200):
        assert study.plan(study.sample(rng)).prune is not None


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_varies_interval_keep_per_layer_criterion_and_recovery_rate(name: str) -> None:
    parameters = {parameter.path: parameter.domain for parameter in load_study(ROOT / f"spaces/{name}.yaml").parameters}
    criterion = parameters["prune.criterion"]
    assert isinstance(criterion, Choices)
    assert len(criterion.values) >= 2
    intervals = [d for path, d in parameters.items() if path.startswith("prune.schedule") and path.endswith("interval")]
    assert any(isinstance(domain, Range) and domain.low < domain.high for domain in intervals)
    keeps = [d for path, d in parameters.items() if re.fullmatch(r"prune\.allocation.*\.keeps\[\d+\]", path)]
    assert len(keeps) >= 2
    assert all(isinstance(domain, Range) for domain in keeps)
    peaks = [d for path, d in parameters.items() if path.startswith("recover") and path.endswith(".peak")]
    assert any(isinstance(domain, Range) and domain.low < domain.high for domain in peaks)


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_varies_interval_keep_per_layer_criterion_and_recovery_rate_by_choices(name: str) -> None:
    parameters = {parameter.path: parameter.domain for parameter in load_study(ROOT / f"spaces/{name}.yaml").parameters}
    assert all(isinstance(domain, Choices) for domain in parameters.values())
    for axis in (
        r"prune\.criterion",
        r"prune\.schedule\[.*\]\.interval",
        r"prune\.allocation.*\.keeps",
        r"recover.*\.peak",
    ):
        domains = [domain for path, domain in parameters.items() if re.fullmatch(axis, path)]
        assert any(len(domain.values) >= 2 for domain in domains if isinstance(domain, Choices)), axis


def test_frs_is_run_with_the_papers_own_numbers() -> None:
    study = load_study(ROOT / "spaces/cifar10_resnet110_frs.yaml")
    plan = study.plan({"prune.amount.filters_per_event": 120})
    assert plan.prune.schedule.settings == {"interval": 21, "until": 150}
    assert plan.prune.criterion.settings["mode"] == "paper"
    assert plan.train.decay.settings == {"at": (0.5, 0.75), "factor": 0.1}
    assert (plan.train.epochs, plan.train.batch_size, plan.prune.amount.filters_per_event) == (200, 256, 120)


def test_the_digits_study_leaves_about_200_images_and_goes_down_to_three_percent() -> None:
    study = load_study(ROOT / "spaces/digits.yaml")
    keep = next(p.domain for p in study.parameters if p.path == "prune.amount.keep_macs")
    assert study.baseline().data.validation == 900
    assert isinstance(keep, Range)
    assert keep.low == 0.03
    assert keep.log
    assert study.baseline().train.epochs == 30
    assert study.budget.trials >= 24


# Whatever a file says

SCALARS = ["0", "-1", "true", "null", "''", "word", "a:b", "1e400", "999999999999999999999999", "*x", "!t x"]
DOMAINS = [
    "{choices: [1, a]}",
    "{choices: {}}",
    "{from: 1, to: 2}",
    "{from: 1, to: 2, size: 3}",
    "{choices: [{name: x}]}",
]
OTHERS = ["[]", "{}", "[1, 2]", "{name: 3}", "{name: l1}", "{settings: {a: 1}}", "{name: l1, settings: 3}"]
SPOTS = [match.span(1) for match in re.finditer(r"[:\[,-] ([^\s,\[\]{}#]+)", STUDY)]


@given(spot=st.sampled_from(SPOTS), value=st.sampled_from([*SCALARS, *DOMAINS, *OTHERS]), seed=st.integers(0, 9))
def test_any_value_in_any_place_is_either_a_sound_study_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, spot: tuple[int, int], value: str, seed: int
) -> None:
    path = written(tmp_path_factory.getbasetemp(), STUDY[: spot[0]] + value + STUDY[spot[1] :])
    loaded = message = None
    try:
        loaded = load_study(path)
    except UserError as error:
        message = str(error)
    if loaded is None:
        assert message.startswith(f"{path}:")
        assert "\n" not in message
    else:
        rng = random.Random(seed)
        assert all(loaded.plan(loaded.sample(rng)).hash for _ in range(3))
        assert pickle.loads(pickle.dumps(loaded)).fingerprint == loaded.fingerprint
