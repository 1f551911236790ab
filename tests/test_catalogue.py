"""The committed catalogue of plug-ins is the tables', and every row of them keeps the plug-in form."""

import inspect

import pytest
from pydantic import TypeAdapter

from spaces.catalogue import complete, fits
from trainables.catalogue import FILE, TABLES, text
from trainables.table import settings_of

ROWS = [(kind, name) for kind, table in TABLES.items() for name in table]


def test_the_committed_catalogue_is_current() -> None:
    assert FILE.read_text() == text(), "run: python -m trainables.catalogue"


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_a_row_says_what_it_is_for_and_its_defaults_are_allowed(kind: str, name: str) -> None:
    function = TABLES[kind][name]
    assert inspect.getdoc(function)
    for parameter in settings_of(function).values():
        assert parameter.default is not parameter.empty
        TypeAdapter(parameter.annotation).validate_python(parameter.default)
        schema = TypeAdapter(parameter.annotation).json_schema()
        assert fits(parameter.default, schema)
    assert set(complete(kind, name, {})) == set(settings_of(function))
