"""Every value that an argument of the callback documents survives being loaded, saved and loaded again."""

from __future__ import annotations

import inspect
import io
import sys
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from typing import get_args

import pytest
import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_gradcam import GradCAMCallback, Layer, Probe
from lightning_gradcam.attacks import ATTACKS
from lightning_gradcam.layers import RULES
from lightning_gradcam.methods import METHODS
from lightning_gradcam.targets import TARGETS
from lightning_gradcam.targets.output_kinds.names import OutputName
from tests.helpers.lightning_packages import NAMES, package_of
from tests.helpers.lit import fit

OURS = "lightning_gradcam.GradCAMCallback"
HERE = __name__


def cam(activations, gradients):
    return (activations * gradients).sum(1)


class Sharper:
    def __init__(self, power: float = 2.0) -> None:
        self.power = power

    def __call__(self, activations, gradients):
        return (activations * gradients).sum(1) * self.power

    def __eq__(self, other):
        return isinstance(other, Sharper) and self.power == other.power

    __hash__ = None

    def __repr__(self):
        return f"Sharper({self.power})"


def mean_logit(output, probe):
    return output.mean(1)


def brighter(model, images, labels):
    return (images + 0.1).clamp(0, 1)


def half(model, probe):
    return model(probe.images / 2)


def first_layer(records):
    return [Layer(records[0].name)]


def load_probe() -> Probe:
    return Probe(torch.zeros(2, 3, 16, 16), labels=torch.tensor([0, 1]))


def spec(name, /, **init):
    return {"class_path": name if "." in name else f"lightning_gradcam.{name}", "init_args": init}


METHOD_OBJECTS = [
    spec("Variant", method="gradcam", gradients="abs", smooth="principal"),
    spec("ScoreCAM", chunk=4),
    spec("AblationCAM", chunk=4),
    spec("Rollout", head_fusion="max", discard_ratio=0.5),
    spec("AttentionRelevance", reader="mean"),
    spec("Saliency"),
    spec("SmoothGrad", samples=4),
    spec("IntegratedGradients", steps=5),
    spec("Occlusion", window=[4, 4], stride=2),
    spec("Lime", samples=20),
    spec("KernelShap", samples=20),
    spec("GuidedBackprop", neuron=[5, 2, 2]),
    spec(f"{HERE}.Sharper", power=3.0),
]
TARGET_OBJECTS = [
    spec("TopK", k=2), spec("Margin", of="label"), spec("EachLabel", k=2), spec("EmbeddingNorm"),
    spec("SegmentationScore"), spec("BoxScore"),
]  # fmt: skip
ATTACK_OBJECTS = [spec("FGSM", eps=0.1), spec("PGD", eps=0.1, steps=3), spec("PGD")]
PROBE = spec(f"{HERE}.load_probe")

VALUES = {
    "layers": [
        *RULES, "features", "features.2", ["features", "features.2"], spec("Layer", name="features", call=1),
        ["features", spec("Layer", name="features.2")], f"{HERE}.first_layer",
    ],
    "method": [
        *(name for name in METHODS if name not in ("lime", "kernel_shap")), *METHOD_OBJECTS, ["gradcam", "layercam"],
        ["gradcam", *METHOD_OBJECTS], f"{HERE}.cam", f"{HERE}.Sharper", [f"{HERE}.cam", "gradcam"],
    ],
    "target": [
        *(name for name in TARGETS if name != "cosine"), "auto", 0, 1, *TARGET_OBJECTS, f"{HERE}.mean_logit",
        "lightning_gradcam.TopK",
    ],
    "output": list(get_args(OutputName)),
    "probe": [1, 64, PROBE],
    "every_n_epochs": [1, 5],
    "max_overhead": [None, 0.05],
    "chunk": [None, 4],
    "pixels": [None, {"mean": [0.5], "std": [0.2]}, spec("Normalization", mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3])],
    "forward": [None, f"{HERE}.half"],
    "fuse": [None, "mean", "max", "weighted"],
    "flips": [False, True],
    "attack": [None, *ATTACKS, *ATTACK_OBJECTS, f"{HERE}.brighter"],
    "baseline": [None, "golden.safetensors", "/data/runs/golden.safetensors"],
    "class_names": [None, ["cat", "dog", "1", "null"]],
    "scale": ["image", "shared", 0.5, 2],
    "colormap": ["inferno", "viridis"],
    "interpolation": ["bilinear", "nearest", "bicubic"],
    "placement": ["receptive_field", "stretch"],
    "film": [0, 8],
    "curves": ["main", "all"],
    "tag": ["gradcam", "a/b", "1"],
    "save_probe": ["images", "hash"],
    "on_error": ["warn", "raise"],
}  # fmt: skip
"""The documented values of every argument, as YAML has them."""

CASES = [{name: value} for name, values in VALUES.items() for value in values]
CASES.append({"target": [1, 2], "probe": PROBE})  # one class per image, for images that are passed


@pytest.fixture(scope="module", params=range(len(NAMES)), ids=NAMES)
def round_trip(request, tmp_path_factory):
    """The callbacks of a file with many cases, those of the file that LightningCLI saves of it, and its warnings.

    Each package has every second case, because they share the parser.
    """
    cases = CASES[request.param :: len(NAMES)]
    package, folder = package_of(NAMES[request.param]), tmp_path_factory.mktemp("yaml")
    patch = pytest.MonkeyPatch()
    patch.setenv("PL_GLOBAL_SEED", "0")
    patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    patch.setattr(sys, "argv", ["train.py"])

    def call(path, *arguments):
        cli = import_module(f"{package.name}.cli").LightningCLI
        return cli(package.Lit, args=[f"--config={path}", *arguments], run=False)

    def save(path, saved):
        with redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
            call(path, "--print_config")
        saved.write_text(printed.getvalue())

    def load(path):
        return [c for c in call(path).trainer.callbacks if isinstance(c, GradCAMCallback)]

    callbacks = [{"class_path": OURS, "init_args": case} for case in cases]
    trainer = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "callbacks": callbacks}
    asked, saved, again = (folder / name for name in ("asked.yaml", "saved.yaml", "again.yaml"))
    asked.write_text(yaml.safe_dump({"trainer": trainer}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # what cannot be serialized is no error, but a warning
        save(asked, saved)
        save(saved, again)
        callbacks = load(asked), load(saved)
    patch.undo()
    return cases, *callbacks, saved.read_text(), again.read_text(), [str(warning.message) for warning in caught]


def test_every_argument_has_documented_values():
    assert list(VALUES) == list(inspect.signature(GradCAMCallback).parameters)


def test_saved_file_is_complete_and_stable(round_trip):
    cases, _, _, saved, again, caught = round_trip
    assert not [message for message in caught if "serialize" in message]
    assert "Unable" not in saved
    assert saved == again
    arguments = [callback["init_args"] for callback in yaml.safe_load(saved)["trainer"]["callbacks"]]
    changed = {
        str(case): {name: args[name] for name in case}
        for case, args in zip(cases, arguments, strict=True)
        if any(not is_same(args[name], value) for name, value in case.items())
    }
    assert not changed


def is_same(saved, asked):
    """Whether a saved value stands for the asked one; defaults may be filled in, and a class may be spelled out."""
    if isinstance(asked, list):
        return isinstance(saved, list) and len(saved) == len(asked) and all(map(is_same, saved, asked))
    if isinstance(asked, dict):
        given = asked.get("init_args", asked)
        kept = saved.get("init_args", saved)
        return {name: kept.get(name) for name in given} == given
    return saved == asked and type(saved) in (type(asked), float)


def test_callbacks_of_saved_and_first_file_are_equal(round_trip):
    cases, first, second, *_ = round_trip
    assert len(first) == len(second) == len(cases)
    different = [case for case, a, b in zip(cases, first, second, strict=True) if describe(a) != describe(b)]
    assert not different


def describe(callback):
    """What a callback is configured with, without the addresses of objects."""
    fields = vars(callback.config).items()
    texts = {name: repr(value) for name, value in fields if name not in ("method", "target", "attack", "probe")}
    objects = [callback.config.method, callback.config.target, callback.config.attack]
    probe = callback.config.probe
    texts["probe"] = probe if isinstance(probe, int) else probe.digest
    return texts, repr(callback), [name_of(item) for item in objects]


def name_of(item):
    if isinstance(item, list):
        return [name_of(entry) for entry in item]
    if callable(item) and hasattr(item, "__dict__") and not hasattr(item, "__name__"):
        return type(item), repr({name: value for name, value in vars(item).items() if not callable(value)})
    return getattr(item, "__qualname__", None) or repr(item)


PATHS = {"method": cam, "target": mean_logit, "attack": brighter}


@pytest.mark.parametrize("argument", PATHS)
def test_import_path_stands_for_its_object(argument):
    callback = GradCAMCallback(**{argument: f"{HERE}.{PATHS[argument].__name__}"})
    assert getattr(callback.config, argument) is PATHS[argument]


def test_import_path_in_list_and_of_class():
    assert GradCAMCallback(method=["gradcam", f"{HERE}.Sharper"]).config.method == ["gradcam", Sharper()]


@pytest.mark.parametrize("argument", ["method", "target", "attack"])
@pytest.mark.parametrize("path", ["no_such_package.function", f"{HERE}.no_such_function"])
def test_wrong_import_path_names_argument(argument, path):
    with pytest.raises(
        MisconfigurationException, match=f"Expected `{argument}` to be a name or an import path.*{path}"
    ):
        GradCAMCallback(**{argument: path})


def test_layer_rule_is_given_by_its_import_path(tmp_path):
    callback = GradCAMCallback(layers=f"{HERE}.first_layer")
    fit(tmp_path, [callback], max_epochs=1)
    assert [layer.name for layer in callback.monitor.explainer.layers] == ["features.0"]


def test_unknown_layer_with_dots_has_suggestions(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"Did you mean 'features\.2'"):
        fit(tmp_path, [GradCAMCallback(layers="feature.2")])
