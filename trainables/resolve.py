"""Finds the functions that a plan names before anything is trained with them; the user's own are checked nowhere else.

A criterion is first called at the first event: a mistyped name must not be found out after hours of training.
"""

from collections.abc import Iterator

from pydantic import BaseModel

from spaces.plan import Plan
from spaces.plugin import Plugin
from trainables.catalogue import TABLES


def resolve(plan: Plan) -> None:
    """Raises UserError for a function that is not there, or has no setting of a name that the plan gives it."""
    for kind, plugin in plugins_of(plan):
        if plugin.is_users_own:
            TABLES[kind].bind(plugin.name, plugin.settings)


def plugins_of(part: BaseModel) -> Iterator[tuple[str, Plugin]]:
    """Every plug-in in a part of a plan, with its kind: the name of the field that it stands in."""
    for field, value in part:
        if isinstance(value, Plugin):
            yield {"recover": "recovery"}.get(field, field), value
        elif isinstance(value, BaseModel):
            yield from plugins_of(value)
