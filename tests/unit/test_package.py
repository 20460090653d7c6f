"""What an import loads, and that all that is public is explained; `lint-imports` holds who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_gradcam

HOME = Path(lightning_gradcam.__file__).parent
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
MODULES = sorted(path for path in HOME.rglob("*.py") if path.parent != HOME or path.stem != "__init__")


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh process holds after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_the_core_loads_neither_lightning_nor_tensorboard():
    loaded = loaded_by(
        "import lightning_gradcam.explainer.pipeline, lightning_gradcam.monitor.monitor, lightning_gradcam.robust"
    )
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
    loaded = loaded_by("import lightning_gradcam.cli as c; assert c.main(['compare', '--help']) == 0")
    assert "jsonargparse" in loaded
    assert not loaded & {*LIGHTNING, "torch", "torchvision", "numpy", "matplotlib", "PIL"}


def test_the_command_loads_lightning_only_where_the_user_does():
    loaded = loaded_by("import lightning_gradcam.cli.commands")
    assert "torch" in loaded
    assert not loaded & LIGHTNING


def test_every_name_that_is_offered_is_there():
    assert len(lightning_gradcam.__all__) == len(set(lightning_gradcam.__all__)) >= 7
    for name in lightning_gradcam.__all__:
        assert getattr(lightning_gradcam, name).__name__ == {"Pixels": "Normalization"}.get(name, name)
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
