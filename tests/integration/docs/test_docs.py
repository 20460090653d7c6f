"""The Python snippets of the README and the docs run."""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningCLI

from lightning_gradcam import GradCAMCallback, Probe, explain
from tests.helpers.detectors import Spots
from tests.helpers.lit import Bars, Lit, loader
from tests.helpers.models import TinyViT
from tests.regimes.dense import Masked, Segments

ROOT = Path(__file__).parents[3]
RECIPES = re.findall(r"### (.*?)\n.*?```python recipe\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


def snippets(page, kind="python"):
    """Return the code blocks of a page."""
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


@pytest.fixture
def registries():
    """Forget what a snippet registers."""
    from lightning_gradcam import attacks, layers, loggers, methods, targets

    registries = (attacks.ATTACKS, layers.RULES, loggers.WRITERS, methods.METHODS, targets.TARGETS)
    copies = [dict(r) for r in registries]
    yield
    for registry, entries in zip(registries, copies, strict=True):
        registry.clear()
        registry.update(entries)


def test_recipes_cover_every_registry():
    assert [title for title, _ in RECIPES] == ["A method", "A layer rule", "A target", "An attack", "A logger"]


@pytest.mark.parametrize(("title", "code"), RECIPES, ids=[t for t, _ in RECIPES])
@pytest.mark.usefixtures("registries")
def test_recipe_runs_and_is_under_20_lines(title, code, tmp_path):
    assert len(code.splitlines()) < 20
    names = {"model": Lit(), "images": torch.rand(3, 3, 16, 16), "labels": torch.arange(3)}
    exec(compile(code, title, "exec"), names)
    if title == "A logger":
        from lightning_gradcam.loggers import find_writer

        logger = type("FolderLogger", (), {"path": tmp_path})()
        find_writer(logger)(logger, "gradcam/layer", torch.zeros(3, 4, 4, dtype=torch.uint8), 7)
        assert [p.name for p in tmp_path.iterdir()] == ["gradcam-layer-7.png"]


@pytest.mark.parametrize("code", [*snippets("README.md"), *snippets("docs/reference.md")])
@pytest.mark.usefixtures("registries")
def test_readme_and_reference_snippet(code, tmp_path, monkeypatch):
    """Run a snippet with a model and data."""
    monkeypatch.chdir(tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "log_every_n_steps": 1}
    data = Bars(4)
    names = {
        "Trainer": lambda **kwargs: Trainer(**{"max_epochs": 1, **quiet, **kwargs}),
        "model": Lit(),
        "train_loader": loader(),
        "val_loader": loader(36, seed=1),
        "images": torch.stack([data[i][0] for i in range(4)]),
        "labels": data.labels[:4],
    }
    Image.new("RGB", (20, 24)).save("photo.png")
    exec(compile(code.replace("from pytorch_lightning import Trainer\n", ""), "README.md", "exec"), names)
    if "trainer" in names:
        assert torch.isfinite(names["trainer"].callback_metrics["gradcam/drift"])
        assert list(tmp_path.rglob("events*"))
    elif "report" in names:
        assert names["report"].findings[0].mean == 1
    elif "explanation" in names:
        explanation = names["explanation"]
        assert explanation.heatmaps()["features"].shape == (len(explanation.logits), *explanation.size)
        assert set(names["explanation"].degenerate["features"]) != {"no gradient"}
    else:
        assert code.count("GradCAMCallback(") == 1  # arguments only; a wrong one raises


READERS_OWN = {"model", "images", "labels", "train_loader", "val_loader"}


@pytest.mark.parametrize("code", [*snippets("README.md"), *snippets("docs/reference.md")])
def test_snippet_defines_the_names_that_it_uses(code):
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    imported = {alias.name for node in ast.walk(ast.parse(code)) for alias in getattr(node, "names", ())}
    assigned = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    assert {name.id for name in names} <= imported | assigned | READERS_OWN | set(dir(builtins))


@pytest.mark.parametrize("page", ["README.md", "docs/reference.md"])
def test_yaml_of_callback_is_accepted_by_lightning_cli(page, monkeypatch, tmp_path):
    [code] = snippets(page, "yaml")
    models, data = types.ModuleType("my_project.models"), types.ModuleType("my_project.data")
    models.call_image_tower, data.load_probe = call_image_tower, load_probe
    for module in (types.ModuleType("my_project"), models, data):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    (tmp_path / "config.yaml").write_text(code)
    arguments = [f"--config={tmp_path / 'config.yaml'}", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    cli = LightningCLI(Lit, args=arguments, run=False)
    tags = [callback.config.tag for callback in cli.trainer.callbacks if isinstance(callback, GradCAMCallback)]
    assert tags == (["gradcam"] if page == "README.md" else ["gradcam", "smooth"])


def call_image_tower(model, probe):
    return model(probe.images)


def load_probe() -> Probe:
    return Probe(torch.rand(2, 3, 16, 16), labels=torch.arange(2))


@pytest.mark.parametrize("code", snippets("docs/methods.md"))
def test_methods_snippet(code):
    calls = []

    def recorded_explain(*args, **kwargs):
        calls.append(explain(*args, **kwargs))
        return calls[-1]

    names = {"model": Lit(), "vit": TinyViT(), "images": torch.rand(2, 3, 16, 16), "explain": recorded_explain}
    exec(compile(code, "methods.md", "exec"), names)
    assert all(evidence.isfinite().all() for explanation in calls for evidence in explanation.evidence.values())
    assert calls or "GradCAMCallback(" in code


def test_targets_snippets():
    """Run the snippets of the page in order."""
    pictures = torch.stack([Bars(4)[i][0] for i in range(4)])
    names = {"model": Lit(), "embedder": Lit(), "images": pictures, "others": pictures.flip(0)}
    names |= {"labels": torch.arange(4) % 3, "ages": torch.rand(4, 1), "tokens": torch.arange(4)}
    names |= {"two_inputs": TwoInputs(), "two_heads": TwoHeads(), "vision_model": Named(), "clip": Clip()}
    names |= {"age_model": Lit(1), "binary_model": Lit(1)}
    for code in snippets("docs/targets.md"):
        names.pop("explanation", None)
        exec(compile(code, "targets.md", "exec"), names)
        explanation = names.get("explanation")
        assert "GradCAMCallback(" in code or all(e.abs().max() > 0 for e in explanation.evidence.values())
        keys = re.search(r"list\(explanation.evidence\)  # (\[.*?\])", code)
        assert not keys or list(explanation.evidence) == json.loads(keys.group(1))


class TwoInputs(Lit):
    def forward(self, images, ages):
        return super().forward(images) + ages


class TwoHeads(Lit):
    def forward(self, images):
        return {"organ": torch.zeros(len(images), 4), "malignant": super().forward(images)[:, :1]}


class Named(Lit):
    def forward(self, *, pixel_values):
        return type("Output", (), {"logits": super().forward(pixel_values)})()


class Clip:
    def __init__(self):
        self.vision = Lit()

    def text(self, tokens):
        return torch.stack([tokens + 1.0, 2.0 - tokens, tokens * 0.5], 1)


@pytest.mark.parametrize("code", snippets("docs/adversarial.md"))
def test_adversarial_snippet(code):
    names = {"torch": torch, "model": Lit(), "labels": torch.arange(3)}
    names["images"] = torch.stack([Bars(3)[i][0] for i in range(3)])
    exec(compile(code, "adversarial.md", "exec"), names)
    results = [value for name, value in names.items() if name in ("loss", "callback", "Robust")]
    assert results
    for value in results:
        if isinstance(value, torch.Tensor):
            assert value.isfinite()
        elif isinstance(value, type):
            module, pixels = value(), torch.rand(3, 3, 16, 16)
            assert module.training_step((pixels, names["labels"]), 0).isfinite()


@pytest.mark.parametrize("code", snippets("docs/regression.md"))
def test_regression_snippet(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Bars(4)
    names = {"model": Lit().eval(), "images": torch.stack([data[i][0] for i in range(4)]), "labels": data.labels}
    exec(compile(code, "regression.md", "exec"), names)
    assert names["report"].findings[0].mean == 1


@pytest.mark.parametrize("page", ["dense.md", "inputs.md"])
def test_dense_and_inputs_snippets(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = snippets(f"docs/{page}")
    array = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    picture = Image.fromarray(array)
    picture.save("photo.png")
    data = Bars(2)
    names = {
        "model": Lit().eval(), "array": array, "picture": picture,
        "images": torch.stack([data[i][0] for i in range(2)]),
        "segmenter": Segments().eval(), "masks": torch.stack([Masked(2)[i][1] for i in range(2)]),
        "detector": Spots(16, 8, 4),
    }  # fmt: skip
    for code in codes:
        exec(compile(code.replace("explain(detector, images", "explain(detector, images[:, :1]"), page, "exec"), names)
        if "explanation = " in code:
            assert all(evidence.isfinite().all() for evidence in names["explanation"].evidence.values())
    assert len(codes) > 4
