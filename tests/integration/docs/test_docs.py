"""What README and docs show is run."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from scipy import stats

from benchmarks import adversarial, gate
from lightning_gradcam import GradCAMCallback, Probe, attack_probe, explain
from lightning_gradcam.methods import METHODS
from tests.helpers.detectors import Spots
from tests.helpers.lit import Bars, Lit, loader
from tests.helpers.models import TinyViT
from tests.regimes.dense import Masked, Segments
from tests.regimes.page import PAGE, generated

ROOT = Path(__file__).parents[3]
RECIPES = re.findall(r"### (.*?)\n.*?```python recipe\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


@pytest.fixture
def registries(monkeypatch):
    """Forget what a snippet registers."""
    from lightning_gradcam import attacks, layers, loggers, methods, targets

    registries = (attacks.ATTACKS, layers.RULES, loggers.WRITERS, methods.METHODS, targets.TARGETS)
    kept = [dict(r) for r in registries]
    yield
    for registry, entries in zip(registries, kept, strict=True):
        registry.clear()
        registry.update(entries)


def test_there_is_a_recipe_for_each_choice():
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


README = (ROOT / "README.md").read_text()
ADVERSARIAL_PAGE = (ROOT / "docs" / "adversarial.md").read_text("utf-8")
REGRESSION_PAGE = (ROOT / "docs" / "regression.md").read_text("utf-8")
METHODS_PAGE = (ROOT / "docs" / "methods.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
@pytest.mark.usefixtures("registries")
def test_readme_snippet(code, tmp_path, monkeypatch):
    """Every Python snippet of the README runs, with a model and data at hand."""
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
        "photo": data.pixels[0],
        "mean": data.transform.mean,
        "std": data.transform.std,
    }
    Image.new("RGB", (20, 24)).save("photo.png")
    exec(compile(code.replace("from pytorch_lightning import Trainer\n", ""), "README.md", "exec"), names)
    if "trainer" in names:
        assert torch.isfinite(names["trainer"].callback_metrics["gradcam/drift"])
        assert list(tmp_path.rglob("events*"))
    elif "report" in names:
        assert names["report"].findings[0].mean == 1
    elif "explanation" in names:
        assert names["explanation"].heatmaps()["features"].shape == (4, 16, 16)
        assert set(names["explanation"].degenerate["features"]) != {"no gradient"}
    else:
        assert code.count("GradCAMCallback(") == 1  # arguments only; a wrong one raises


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", METHODS_PAGE, re.DOTALL))
def test_snippet_of_the_page_of_methods(code):
    calls = []

    def kept(*args, **kwargs):
        calls.append(explain(*args, **kwargs))
        return calls[-1]

    names = {"model": Lit(), "vit": TinyViT(), "images": torch.rand(2, 3, 16, 16), "explain": kept}
    exec(compile(code, "methods.md", "exec"), names)
    assert all(evidence.isfinite().all() for explanation in calls for evidence in explanation.evidence.values())
    assert calls or "GradCAMCallback(" in code


def test_snippets_of_the_page_of_targets():
    """One after the other, as they stand."""
    pictures = torch.stack([Bars(4)[i][0] for i in range(4)])
    names = {"model": Lit(), "embedder": Lit(), "images": pictures, "others": pictures.flip(0)}
    names |= {"labels": torch.arange(4) % 3, "ages": torch.rand(4, 1), "tokens": torch.arange(4)}
    names |= {"two_inputs": TwoInputs(), "two_heads": TwoHeads(), "vision_model": Named(), "clip": Clip()}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "targets.md").read_text("utf-8"), re.DOTALL):
        names.pop("explanation", None)
        exec(compile(code, "targets.md", "exec"), names)
        explanation = names.get("explanation")
        assert "GradCAMCallback(" in code or all(e.abs().max() > 0 for e in explanation.evidence.values())
        said = re.search(r"list\(explanation.evidence\)  # (\[.*?\])", code)
        assert not said or list(explanation.evidence) == json.loads(said.group(1))


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


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", ADVERSARIAL_PAGE, re.DOTALL))
def test_snippet_of_the_page_of_adversarial_training(code):
    names = {"torch": torch, "model": Lit(), "labels": torch.arange(3)}
    names["images"] = torch.stack([Bars(3)[i][0] for i in range(3)])
    exec(compile(code, "adversarial.md", "exec"), names)
    made = [value for name, value in names.items() if name in ("loss", "callback", "Robust")]
    assert made
    for value in made:
        if isinstance(value, torch.Tensor):
            assert value.isfinite()
        elif isinstance(value, type):
            module, pixels = value(), torch.rand(3, 3, 16, 16)
            assert module.training_step((pixels, names["labels"]), 0).isfinite()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # foolbox is of 2024
def test_the_snippet_with_foolbox_attacks_where_foolbox_is_installed():
    pytest.importorskip("foolbox", reason="foolbox is not among the packages of the tests")
    [code] = re.findall(r"```python foolbox\n(.*?)```", ADVERSARIAL_PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "adversarial.md", "exec"), names)
    probe = Probe(torch.rand(3, 3, 16, 16), labels=torch.arange(3))
    moved = attack_probe(Lit(), probe, names["linf_pgd"]).images - probe.images
    assert 7 / 255 < moved.abs().max() <= 8 / 255 + 1e-6


def test_the_page_of_adversarial_training_says_what_was_measured():
    rows = json.loads(adversarial.RESULTS.read_text("utf-8"))
    assert {(row["training"], row["seed"]) for row in rows} == set(
        itertools.product(("natural", "PGD", "TRADES", "consistency"), range(10))
    )
    again = "`python -m benchmarks.adversarial --report` writes it"
    assert adversarial.page(ADVERSARIAL_PAGE, rows) == ADVERSARIAL_PAGE, f"docs/adversarial.md is out of date: {again}"
    after, before = (adversarial.column(rows, name, "similarity") for name in ("consistency", "PGD"))
    expected = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert adversarial.paired_interval(after, before)[1:] == pytest.approx((expected.low, expected.high))


def test_the_page_of_the_regression_check_says_what_was_measured():
    results = json.loads(gate.RESULTS.read_text("utf-8"))
    for kinds in results["cells"].values():
        assert {len(cell["statuses"]) for cell in kinds.values()} == {100}
    again = "`python -m benchmarks.gate --report` writes it"
    assert gate.written(REGRESSION_PAGE, results) == REGRESSION_PAGE, f"docs/regression.md is out of date: {again}"
    shortcut = gate.Cell(**results["cells"]["next-checkpoint"]["a shortcut in the data, eight epochs"]).row()
    assert shortcut[1:] == ("90 of 100", "82%–95%", "10", "100 of 100", "96%–100%")  # as the page says in words


def test_the_page_of_methods_lists_every_method():
    assert re.findall(r"^\| `([\w+]+)` \|", METHODS_PAGE, re.MULTILINE) == list(METHODS)


def test_readme_lists_every_argument_and_only_these():
    signature = inspect.signature(GradCAMCallback).parameters
    table = README.split("## Every argument")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    assert list(rows) == list(signature)
    assert {name: default.strip("`") for name, default in rows.items()} == {
        name: '"' + p.default + '"' if isinstance(p.default, str) else repr(p.default) for name, p in signature.items()
    }


def test_readme_table_of_messages_has_what_the_code_says():
    """Each message of the table begins with words that are in the package."""
    source = " ".join(p.read_text() for p in (ROOT / "lightning_gradcam").rglob("*.py"))
    source = re.sub(r'"\s+f?"', "", source)
    table = README.split("## Warnings and errors")[1].split("\n## ")[0]
    said = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)[2:]
    assert len(said) > 10
    for message in said:
        for part in re.split(r"`[^`]*`|…", message):
            words = part.strip(" .:,()'")
            assert words in source, words


def test_the_page_of_regimes_is_what_the_tests_run():
    assert PAGE.read_text("utf-8") == generated(), "docs/regimes.md is out of date: `make regimes` writes it"


def test_readme_states_the_oldest_versions_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [f"python{project['requires-python']}", *project["dependencies"]]
    stated = re.findall(r"([\w-]+) (\d[\d.]*\d)", README.split("## Versions")[1].split("\n## ")[0])
    assert [f"{name.lower()}>={oldest}" for name, oldest in stated] == asked


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)  # code is no prose
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", REGRESSION_PAGE, re.DOTALL))
def test_snippet_of_the_page_of_the_regression_check(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Bars(4)
    names = {"model": Lit().eval(), "images": torch.stack([data[i][0] for i in range(4)]), "labels": data.labels}
    exec(compile(code, "regression.md", "exec"), names)
    assert names["report"].findings[0].mean == 1


@pytest.mark.parametrize("page", ["dense.md", "inputs.md"])
def test_snippets_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)
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
