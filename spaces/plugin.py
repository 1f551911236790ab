"""A plug-in as a plan names it: `l1`, or `{name: frs, mode: stable}`; checked against the catalogue.

A name with a colon, `package.module:function`, is the user's own function and is checked when it is loaded.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import core_schema

from spaces.catalogue import complete

_P = TypeVar("_P", bound="Plugin")
PLUGIN = "plugin"  # marks, in the JSON Schema of a plan, the places where a plug-in of that kind stands
Setting = bool | int | float | str | None | tuple["Setting", ...] | dict[str, "Setting"]


def freeze(value: Any) -> Any:
    """Lists become tuples, so that equal settings compare and hash alike."""
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    if isinstance(value, dict):
        return {key: freeze(item) for key, item in value.items()}
    return value


class Plugin(BaseModel):
    """A name from one table and its settings, every default written out once the kind is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    name: str
    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """`l1` and `{name: frs, mode: stable}` are how people write `{name, settings}`."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "settings" not in value:
            own = set(cls.model_fields) - {"settings"}
            fields = {key: freeze(item) for key, item in value.items() if key in own}
            settings = {key: freeze(item) for key, item in value.items() if key not in own}
            return {**fields, "settings": settings}
        return value

    @model_serializer(mode="plain")
    def _written(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in type(self).model_fields if name != "settings"}
        return {**own, **self.settings}

    @property
    def is_users_own(self) -> bool:
        """Whether the name points at a function outside the tables."""
        return ":" in self.name


@dataclass(frozen=True)
class of:
    """Checks a plug-in against the catalogue's table of `kind` and writes its defaults out."""

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        return {PLUGIN: self.kind}

    def _check(self, plugin: Plugin) -> Plugin:
        if plugin.is_users_own:
            return plugin
        return plugin.model_copy(update={"settings": freeze(complete(self.kind, plugin.name, plugin.settings))})


class Data(Plugin):
    """The data set, the part of it used, and the split for validation that is carved from its training part."""

    model_config = ConfigDict(json_schema_extra={PLUGIN: "data"})

    root: Annotated[str | None, Field(description="folder of the data; a relative one is taken from here")] = None
    validation: Annotated[
        Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0.0, lt=1.0)],
        Field(description="images (from 1) or fraction (under 1) of the training part"),
    ] = 0.1
    train_images: Annotated[int | None, Field(ge=1, description="use only this many; null: all")] = None
    split_seed: Annotated[int, Field(ge=0)] = 0
    augment: tuple[Literal["pad_crop", "flip", "resized_crop"], ...] = ()

    @model_validator(mode="after")
    def _known(self) -> "Data":
        return _completed(self, "data")


class Model(Plugin):
    """The network and the weights it starts from."""

    model_config = ConfigDict(json_schema_extra={PLUGIN: "model"})

    weights: Annotated[
        str | None, Field(description="null: random; a torchvision weights name; or a .safetensors file")
    ] = None

    @model_validator(mode="after")
    def _known(self) -> "Model":
        return _completed(self, "model")


def _completed(plugin: _P, kind: str) -> _P:
    if not plugin.is_users_own:
        plugin.settings.update(freeze(complete(kind, plugin.name, plugin.settings)))
    return plugin
