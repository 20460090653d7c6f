"""The callback in the LightningCLI of either package: from YAML and from the command line, explained by ``--help``."""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
import sys
from contextlib import redirect_stdout
from importlib import import_module

import pytest
import yaml

from lightning_gradcam import (
    PGD,
    AblationCAM,
    AttentionRelevance,
    Deconvolution,
    GradCAMCallback,
    GuidedBackprop,
    GuidedGradCAM,
    IntegratedGradients,
    KernelShap,
    Lime,
    Margin,
    Normalization,
    Occlusion,
    Rollout,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    TopK,
)
from lightning_gradcam.methods import METHODS
from lightning_gradcam.targets import class_target, target_name
from tests.helpers.lit import loader
from tests.integration.callback.test_both_packages import NAMES, package_of

OURS = "lightning_gradcam.GradCAMCallback"
PIXELS = {"mean": [0.4, 0.4, 0.4], "std": [0.25, 0.25, 0.25]}
QUIET = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "log_every_n_steps": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


def sum_of_gradients(activations, gradients):
    return gradients.sum(1)


@pytest.fixture(params=NAMES)
def cli(request, tmp_path, monkeypatch):
    """Calls the LightningCLI of a package with these arguments, and returns it."""
    package = package_of(request.param)

    class Data(package.root.LightningDataModule):
        def train_dataloader(self):
            return loader(24)

        def val_dataloader(self):
            return loader(24, seed=1)

    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # without it Lightning warns and takes this one

    def call(*arguments, run=True):
        return import_module(f"{package.name}.cli").LightningCLI(package.Lit, Data, args=list(arguments), run=run)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's affair
    return call


def config(path, **init):
    path.write_text(yaml.safe_dump({"trainer": {**QUIET, "callbacks": [{"class_path": OURS, "init_args": init}]}}))
    return f"--config={path}"


def ours(cli):
    [callback] = [c for c in cli.trainer.callbacks if isinstance(c, GradCAMCallback)]
    return callback


def output_of(call, *arguments, **kwargs):
    with redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        call(*arguments, **kwargs)
    assert not ended.value.code
    return printed.getvalue()


@pytest.mark.parametrize(
    "pixels", [PIXELS, {"class_path": "lightning_gradcam.Pixels", "init_args": PIXELS}], ids=["plain", "class_path"]
)
def test_from_yaml_through_print_config_to_a_run(cli, pixels, tmp_path):
    asked = {"layers": ["features", "features.2"], "method": "gradcam", "target": 1, "scale": "shared", "probe": 4}
    written = config(tmp_path / "asked.yaml", pixels=pixels, class_names=["a", "b", "c"], **asked)
    (tmp_path / "printed.yaml").write_text(output_of(cli, "fit", written, "--print_config"))
    callback = ours(cli("fit", f"--config={tmp_path / 'printed.yaml'}"))
    choices = callback.config
    assert (choices.layers, choices.method, choices.probe) == (asked["layers"], "gradcam", 4)
    assert (choices.normalization, choices.display.scale, choices.class_names) == (
        Normalization(**PIXELS),
        "shared",
        ["a", "b", "c"],
    )
    assert callback.monitor.signature["target"] == ["class 1", [1, 1, 1, 1]]
    found = {p.parent.name for p in (tmp_path / "gradcam").rglob("*.png")}
    assert found == {"features", "features.2", "film"}


def test_from_the_command_line(cli, tmp_path):
    nothing = config(tmp_path / "nothing.yaml")
    given = {
        "layers": "[features,features.2]",
        "method": f"{__name__}.sum_of_gradients",
        "target": "1",
        "probe": "4",
        "pixels.mean": "[0.5]",
        "pixels.std": "[0.2]",
        "scale": "0.5",
    }
    arguments = [f"--trainer.callbacks.{name}={value}" for name, value in given.items()]
    choices = ours(cli(nothing, *arguments, run=False)).config
    assert (choices.target.name, choices.probe, choices.display.scale) == ("class 1", 4, 0.5)
    assert choices.method is sum_of_gradients
    assert choices.normalization == Normalization((0.5,), (0.2,))
    assert choices.layers == ["features", "features.2"]


OPTIONS = [ScoreCAM(chunk=64), AblationCAM(chunk=8), Rollout("max", 0.5), AttentionRelevance("mean")]


@pytest.mark.parametrize("method", OPTIONS, ids=lambda method: type(method).__name__)
def test_methods_with_options_by_class(cli, method, tmp_path):
    said = {"class_path": f"lightning_gradcam.{type(method).__name__}", "init_args": vars(method)}
    for asked, expected in ((said, method), (["gradcam", said], ["gradcam", method])):
        assert ours(cli(config(tmp_path / "c.yaml", method=asked), run=False)).config.method == expected


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("lime", "kernel_shap")])
@pytest.mark.parametrize("target", ["auto", "label", "predicted"])
def test_names_stay_names(cli, method, target, tmp_path):
    choices = ours(cli(config(tmp_path / "c.yaml", method=method, target=target), run=False)).config
    assert choices.method == method
    assert getattr(choices.target, "name", "auto").startswith(target)


def brighter(model, images, labels):
    return (images + 0.1).clamp(0, 1)


def test_an_attack_by_name_by_class_and_by_path(cli, tmp_path):
    pgd = {"class_path": "lightning_gradcam.PGD", "init_args": {"eps": 0.1, "steps": 2, "norm": "l2", "toward": "next"}}
    cases = [("fgsm", "fgsm"), (pgd, PGD(0.1, 2, norm="l2", toward="next")), (f"{__name__}.brighter", brighter)]
    for said, expected in cases:
        written = config(tmp_path / "c.yaml", attack=said, probe=4)
        (tmp_path / "printed.yaml").write_text(output_of(cli, "fit", written, "--print_config"))
        callback = ours(cli("fit", f"--config={tmp_path / 'printed.yaml'}"))
        (tmp_path / "config.yaml").unlink()  # the LightningCLI writes no second one
        assert callback.config.attack == expected
        assert callback.monitor.tracker.last["adv_similarity"].isfinite()


PIXEL_METHODS = [
    GuidedBackprop((5, 2, 2)), Deconvolution(), GuidedGradCAM(), Saliency(), SmoothGrad(4, 0.2),
    IntegratedGradients(5, 1.0),
    Occlusion((4, 4), 2, 0.5), Lime(20, 3), KernelShap(20, fill=0.0),
]  # fmt: skip


@pytest.mark.parametrize("method", PIXEL_METHODS, ids=lambda method: type(method).__name__)
def test_methods_with_parameters_by_their_class(cli, method, tmp_path):
    said = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
    spec = {"class_path": f"lightning_gradcam.{type(method).__name__}", "init_args": plain}
    choices = ours(cli(config(tmp_path / "c.yaml", method=spec), run=False)).config
    assert choices.method == method


def test_by_its_short_name_once_imported(cli):
    assert ours(cli("--trainer.accelerator=cpu", "--trainer.callbacks=GradCAMCallback", run=False))


def test_help_explains_every_argument_with_its_type(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    printed = " ".join(output_of(cli, f"--trainer.callbacks.help={OURS}", run=False).split())
    described = inspect.getdoc(GradCAMCallback).split("Args:\n")[1].split("\n\n")[0]
    described = dict(re.findall(r"^    (\w+): (.*(?:\n     .*)*)", described, re.MULTILINE))
    assert list(described) == list(inspect.signature(GradCAMCallback).parameters)
    for name, text in described.items():
        rest = printed.split(f"--trainer.callbacks.{name} ")[-1]
        words = " ".join(text.split())
        assert re.search(rf"{re.escape(words)}[^()]* \(type: ", rest), name


def test_a_target_by_name_by_class_and_by_number(cli, tmp_path):
    two = {"class_path": "lightning_gradcam.TopK", "init_args": {"k": 2}}
    label = {"class_path": "lightning_gradcam.Margin", "init_args": {"of": "label"}}
    cases = [("topk", TopK(3)), (two, TopK(2)), (label, Margin("label")), ("margin", Margin()), (1, class_target(1))]
    for said, expected in cases:
        written = config(tmp_path / "c.yaml", target=said, probe=4)
        (tmp_path / "printed.yaml").write_text(output_of(cli, "fit", written, "--print_config"))
        callback = ours(cli("fit", f"--config={tmp_path / 'printed.yaml'}"))
        (tmp_path / "config.yaml").unlink()  # the LightningCLI writes no second one
        assert target_name(callback.config.target) == target_name(expected)
        assert type(callback.config.target) is type(expected)
        assert callback.monitor.tracker.last["drift"].isfinite()
