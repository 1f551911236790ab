"""One visible table per kind of plug-in: a name, the function behind it, and its settings by keyword.

A plug-in is one function: the loop's things by position, the search's things by keyword, each with a default.
Nothing registers itself by being imported; a function of the user's own is named `package.module:function`.
"""

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter

from spaces.errors import PrunefrontError, UserError, unknown

F = TypeVar("F", bound=Callable[..., Any])


class Table(Generic[F]):
    """The plug-ins of one kind, found by the name of their function."""

    def __init__(self, kind: str, *functions: F) -> None:
        self.kind = kind
        self._functions: dict[str, F] = {}
        for function in functions:
            name = function.__name__.rstrip("_")  # `continue_` is how Python spells `continue`
            if name in self._functions:
                raise ValueError(f"{kind} '{name}' stands twice in its table")
            self._functions[name] = function

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __getitem__(self, name: str) -> F:
        """The function called `name`; a name with a colon is imported."""
        if ":" in name:
            return cast(F, load_function(name))
        if name not in self._functions:
            raise UserError(unknown(self.kind, name, self._functions))
        return self._functions[name]

    def bind(self, name: str, settings: Mapping[str, Any]) -> F:
        """The function with its settings filled in, ready to be called with the loop's things alone."""
        function = self[name]
        known = settings_of(function)
        for setting in settings:
            if setting not in known:
                listed = ", ".join(known) or "none"
                raise UserError(f"{self.kind} '{name}' has no setting '{setting}'; settings: {listed}")
        return cast(F, partial(function, **settings))

    def call(self, name: str, settings: Mapping[str, Any], *given: Any) -> Any:
        """What the function returns for the loop's things `given`.

        Where a function of the user's own raises, that is a UserError that names the file and line it was raised in.
        """
        function = self.bind(name, settings)
        try:
            return function(*given)
        except PrunefrontError:
            raise
        except Exception as error:
            if ":" not in name:
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{self.kind} '{name}' raised {type(error).__name__}: {error}"
            raise UserError(reason, file=where.filename, line=where.lineno) from error


def also_of_weights(function: F) -> F:
    """Marks a criterion or an allocation that can deal with single weights as well as with channels."""
    function.__dict__["weights"] = True
    return function


@cache
def settings_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What a search may vary: the keyword-only parameters."""
    parameters = inspect.signature(function, eval_str=True).parameters
    return MappingProxyType({name: item for name, item in parameters.items() if item.kind is item.KEYWORD_ONLY})


def describe(table: Table[Any]) -> dict[str, dict[str, Any]]:
    """The table as the catalogue writes it: name -> summary and a JSON Schema with default per setting."""
    rows: dict[str, dict[str, Any]] = {}
    for name in table:
        function = table[name]
        settings = {}
        for setting, parameter in settings_of(function).items():
            schema = TypeAdapter(parameter.annotation).json_schema()
            default = TypeAdapter(parameter.annotation).dump_python(parameter.default, mode="json")
            settings[setting] = {**schema, "default": default}
        summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        mark = {"weights": True} if getattr(function, "weights", False) else {}
        rows[name] = {"summary": summary, **mark, "settings": settings}
    return rows


def load_function(path: str) -> Callable[..., Any]:
    """The function that `package.module:function` names. Raises UserError where it cannot be had."""
    module_name, _, function_name = path.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the user's module exists and has a fault of its own: show that
        raise UserError(f"no module '{module_name}' for '{path}'; it must be importable from here") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"module '{module_name}' has no function '{function_name}'")
    return cast(Callable[..., Any], function)
