"""The JSON Schema that editors check study files with: current, and of one mind with the loader."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from spaces import schema
from spaces.document import read

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "spaces").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema.study_schema())


def test_the_committed_schema_is_what_the_code_says() -> None:
    assert schema.FILE.read_text() == schema.text(), "run: python -m spaces.schema"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.study_schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_fits_the_schema_and_names_it(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read(path, "study").plain())] == []
    assert path.read_text().startswith("# yaml-language-server: $schema=study.schema.json\n")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("train", "epochs"), "many"),
        (("train", "epoch"), 3),
        (("prune", "criterion"), "l3"),
        (("prune", "criterion"), {"name": "frs", "mode": "loose"}),
        (("prune", "amount", "keep_macs"), {"from": 0.1}),
        (("prune", "amount", "keep_macs"), 2),
        (("prune", "allocation"), {"name": "given", "keeps": {"from": 0.1, "to": 1}}),
        (("model", "widht"), 3),
        (("recover",), {"choices": ["contine"]}),
        (("objectives",), []),
        (("budget", "sampler"), "gp"),
    ],
)
def test_what_the_loader_refuses_the_schema_marks(keys: tuple[str, ...], value: Any) -> None:
    study = copy.deepcopy(read(ROOT / "spaces/digits.yaml", "study").plain())
    section = study
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    assert not VALIDATOR.is_valid(study)


def test_a_function_of_the_users_own_fits_the_schema() -> None:
    study = read(ROOT / "spaces/digits.yaml", "study").plain()
    study["prune"]["criterion"] = {"name": "mine.scores:loudness", "power": {"from": 1, "to": 2}}
    study["train"]["loss"] = "mine.losses:focal"
    assert VALIDATOR.is_valid(study)
