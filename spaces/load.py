"""From a YAML file to a checked study or plan: every mistake is one line that names the file and its line."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from spaces.catalogue import catalogue
from spaces.document import Node, Place, read
from spaces.errors import UserError, unknown
from spaces.overrides import overridden
from spaces.plan import Plan
from spaces.refusal import refuse
from spaces.shape import without_references
from spaces.study import Settings, Study
from spaces.template import template_of

PLAN_SECTIONS = tuple(Plan.model_fields)


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study in a YAML file, with values replaced by `path=value`. Raises UserError, one line."""
    path = Path(path)
    root = overridden(_mapping(read(path, "study"), "study"), overrides)
    known = (*PLAN_SECTIONS, *Settings.model_fields)
    for key, entry in root.entries.items():
        if key not in known:
            entry.place.refuse(f"{unknown('section', key, known)}")
    plan = Node({key: entry for key, entry in root.entries.items() if key in PLAN_SECTIONS}, root.place)
    study = Study(path, _settings(root, path), template_of(plan))
    _check_paths(study)
    for choices in study.corners():
        study.plan(choices)
    if study.adjust is not None:
        _check_adjustment(study, root)
    return study


def load_plan(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """The plan in a YAML or JSON file, every choice made. Raises UserError, one line."""
    root = overridden(_mapping(read(Path(path), "plan"), "plan"), overrides)
    template = template_of(root)
    for parameter in template.parameters():
        message = f"'{parameter.path}' is open, and a plan has every choice made; a study is what `search` takes"
        raise UserError(message, file=path)
    try:
        return Plan.model_validate(root.plain())
    except ValidationError as error:
        refuse(error, lambda keys: template.place_of(keys, {}))


def _mapping(root: Node, what: str) -> Node:
    if not isinstance(root.value, dict):
        root.place.refuse(f"a {what} file is a mapping of sections; got {type(root.plain()).__name__}")
    return root


def _settings(root: Node, path: Path) -> Settings:
    own = {key: entry for key, entry in root.entries.items() if key in Settings.model_fields}
    values = {key: entry.plain() for key, entry in own.items()}
    values.setdefault("name", path.stem)
    template = Node(own, root.place)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        refuse(error, lambda keys: _place_of(template, keys), without_references(Settings.model_json_schema()))


def _place_of(node: Node, keys: Sequence[object]) -> Place:
    for key in keys:
        if isinstance(key, str) and key in node.entries:
            node = node.entries[key]
        elif isinstance(key, int) and isinstance(node.value, list) and key < len(node.value):
            node = node.value[key]
        else:
            break
    return node.place


def _check_adjustment(study: Study, root: Node) -> None:
    """Refuse what an adjustment, which changes nothing but widths, has no use for or cannot do without."""
    for parameter in study.parameters:
        place = study.template.place_of(parameter.path.split("."), {})
        place.refuse(f"'{parameter.path}' varies, but with 'adjust' nothing does except widths; give it one value")
    plan = study.baseline()
    if "prune" in root.entries:
        root.entries["prune"].place.refuse("with 'adjust' nothing is pruned: leave 'prune' out")
    if "widths" not in plan.model.settings:
        known = ", ".join(name for name, row in catalogue()["model"].items() if "widths" in row["settings"])
        root.entries["model"].place.refuse(f"model '{plan.model.name}' takes no widths, which 'adjust' needs: {known}")
    if plan.model.settings.get("shortcut") == "A":
        message = "'adjust' needs shortcut B: with A the channels of one stage are part of the next one's"
        root.entries["model"].place.refuse(message)
    if plan.model.weights is not None:
        root.entries["model"].place.refuse("'adjust' trains every network from scratch: leave 'weights' out")
    if plan.utilization is None:
        root.entries["adjust"].place.refuse("'adjust' needs the section 'utilization': how the ratios are measured")


def _check_paths(study: Study) -> None:
    paths = [parameter.path for parameter in study.parameters]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"two open values are both called '{path}'", file=study.file)
