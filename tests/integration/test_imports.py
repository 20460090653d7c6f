"""What imports of the package load, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys

LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}


HEAVY = {*LIGHTNING, "torch", "torchvision", "numpy", "matplotlib", "PIL"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level names of the modules that a fresh process holds after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_core_loads_neither_lightning_nor_tensorboard():
    loaded = loaded_by(
        "import lightning_gradcam.explainer.pipeline, lightning_gradcam.monitor.monitor, lightning_gradcam.robust"
    )
    assert {"torch", "lightning_gradcam"} <= loaded
    assert not loaded & {*LIGHTNING, "tensorboard", "tensorboardX", "captum", "pytorch_grad_cam", "wandb"}


def test_package_loads_nothing_heavy():
    loaded = loaded_by("import lightning_gradcam; assert 'explain' in dir(lightning_gradcam)")
    assert not loaded & HEAVY


def test_pytest_plugin_loads_nothing_heavy():
    loaded = loaded_by("import lightning_gradcam.pytest_plugin")
    assert "pytest" in loaded
    assert not loaded & {*HEAVY, "safetensors"}


def test_cli_help_loads_nothing_heavy():
    loaded = loaded_by("import lightning_gradcam.cli as c; assert c.main(['compare', '--help']) == 0")
    assert "jsonargparse" in loaded
    assert not loaded & HEAVY


def test_cli_loads_lightning_only_where_the_user_does():
    loaded = loaded_by("import lightning_gradcam.cli.commands")
    assert "torch" in loaded
    assert not loaded & LIGHTNING
