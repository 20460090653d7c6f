"""The order of the house: who may import whom, what an import loads, and that all that is public is explained."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_gradcam

HOME = Path(lightning_gradcam.__file__).parent
FLOORS = [
    {
        "probe",
        "layout",
        "places",
        "trace",
        "registry",
        "explanation",
        "heatmaps",
        "endings",
        "packages",
        "calling",
        "inputs",
        "outputs",
        "alarm",
        "pace",
        "intervals",
        "identity",
        "vault",
        "escapes",
    },
    {"passes"},
    {"capture", "isolation"},
    {"layers", "targets", "methods", "attacks", "stability", "render", "loggers", "fusion"},
    {"variants", "dense", "detection"},
    {"answers"},
    {"evidence", "hindrances", "survey"},
    {"plan"},
    {"pipeline"},
    {"pairs", "kept", "profiles"},
    {"report"},
    {"comparison"},
    {"candidates", "gathering", "surroundings", "host", "ranks", "remarks", "robust"},
    {"track", "portions", "gallery"},
    {"watch"},
    {"baseline"},
    {"choices"},
    {"account", "supply"},
    {"session"},
    {"run"},
    {"callback", "command", "pinned"},
    {"pytest_plugin"},
]
TYPES = FLOORS[0]  # may use one another
DOORS = {
    ("attacks", "targets"),  # an attack moves away from the logits, and targets knows where those are
    ("host", "surroundings"),  # what a Trainer holds as loaders has datasets
}
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
MODULES = sorted(path for path in HOME.rglob("*.py") if path.parent != HOME or path.stem != "__init__")


def room_of(path: Path) -> str:
    return path.relative_to(HOME).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The full names of all modules that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "lightning_gradcam" else {str(node.module)}
    return found


def floor_of(room: str) -> int:
    [floor] = [i for i, rooms in enumerate(FLOORS) if room in rooms]
    return floor


def test_every_room_is_on_a_floor():
    assert {room_of(path) for path in MODULES} == set.union(*FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOME)))
def test_imports_point_down(path):
    room = room_of(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "lightning_gradcam":
            assert parts[0] not in LIGHTNING or room in ("callback", "packages", "loggers"), f"{room} imports {name}"
            continue
        other = parts[1]
        if other in (room, "__version__"):
            continue
        assert floor_of(other) <= floor_of(room), f"{room} imports {other}, which is above"
        if floor_of(other) == floor_of(room) and room not in TYPES:
            assert (room, other) in DOORS, f"{room} imports {other}, which is beside it"


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh process holds after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_the_core_loads_neither_lightning_nor_tensorboard():
    loaded = loaded_by("import lightning_gradcam.pipeline, lightning_gradcam.watch, lightning_gradcam.robust")
    assert {"torch", "lightning_gradcam"} <= loaded
    assert not loaded & {*LIGHTNING, "tensorboard", "tensorboardX", "captum", "pytorch_grad_cam", "wandb"}


def test_the_package_itself_loads_nothing_heavy():
    loaded = loaded_by("import lightning_gradcam; assert 'explain' in dir(lightning_gradcam)")
    assert not loaded & {*LIGHTNING, "torch", "torchvision", "numpy", "matplotlib", "PIL"}


def test_the_pytest_plugin_loads_nothing_heavy():
    heavy = {*LIGHTNING, "torch", "torchvision", "numpy", "matplotlib", "PIL", "safetensors"}
    loaded = loaded_by("import lightning_gradcam.pytest_plugin")
    assert "pytest" in loaded
    assert not loaded & heavy


def test_help_of_the_command_loads_nothing_heavy():
    loaded = loaded_by("import lightning_gradcam.command as c; assert c.main(['compare', '--help']) == 0")
    assert "jsonargparse" in loaded
    assert not loaded & {*LIGHTNING, "torch", "torchvision", "numpy", "matplotlib", "PIL"}


def test_the_command_loads_lightning_only_where_the_user_does():
    loaded = loaded_by("import lightning_gradcam.command.work")
    assert "torch" in loaded
    assert not loaded & LIGHTNING


def test_every_name_that_is_offered_is_there():
    assert len(lightning_gradcam.__all__) == len(set(lightning_gradcam.__all__)) >= 7
    for name in lightning_gradcam.__all__:
        assert getattr(lightning_gradcam, name).__name__ == name
    assert dir(lightning_gradcam) == sorted(lightning_gradcam.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'explane'"):
        _ = lightning_gradcam.explane


def public(body: list[ast.stmt], inside: str) -> list[tuple[str, ast.AST]]:
    """Public functions and classes, and the public methods of the latter, with their names."""
    found: list[tuple[str, ast.AST]] = []
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            overloads = {"overload"} & {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
            found += [] if overloads else [(f"{inside}.{node.name}", node)]
            if isinstance(node, ast.ClassDef):
                found += public(node.body, f"{inside}.{node.name}")
    return found


@pytest.mark.parametrize("path", [*MODULES, HOME / "__init__.py"], ids=lambda path: str(path.relative_to(HOME)))
def test_all_that_is_public_is_explained(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    bare = [name for name, node in public(tree.body, path.stem) if not (ast.get_docstring(node) or "").strip()]
    assert not bare, bare
