"""Who may import whom, which heavy library lives where, and what must not be imported by accident."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("spaces", "trainables", "tracking", "search")
MAY_IMPORT = {
    "spaces": {"spaces"},
    "trainables": {"spaces", "trainables"},
    "tracking": {"spaces", "tracking"},
    "search": {"spaces", "trainables", "tracking", "search"},
}
LIVES_IN = {
    "ray": {"search"},
    "optuna": {"search"},
    "mlflow": {"tracking"},
    "torch": {"trainables"},
    "torchvision": {"trainables"},
}
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, at whatever depth the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_imports_only_the_floors_below_it(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    assert imported(path) & set(FOLDERS) <= MAY_IMPORT[floor]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_heavy_library_is_imported_only_where_it_lives(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    for library in imported(path) & set(LIVES_IN):
        assert floor in LIVES_IN[library], f"{path} imports {library}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_what_it_answers_in_its_first_line(folder: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text()))
    assert docstring is not None
    assert docstring.startswith(("WHAT", "WHO"))


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("search.__main__", ("torch", "ray", "mlflow", "optuna")),
        ("spaces.load", ("torch", "ray", "mlflow", "optuna")),
        ("tracking.log", ("torch", "ray", "mlflow", "optuna")),
        ("trainables.trial", ("ray", "mlflow", "optuna")),
    ],
)
def test_importing_a_module_leaves_heavy_libraries_alone(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_folder_named_spaces_is_ours() -> None:
    """Another package of that name exists; the one that is imported must be this project's."""
    import spaces

    assert Path(spaces.__file__).parent == ROOT / "spaces"
