"""What is measured of methods: every registered one of ours, its peers, and several layers beside one.

All of ours are timed as the callback explains at each look: the layers were chosen before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from weakref import WeakKeyDictionary

import torch

from benchmarks.contestants import Case, Contestant
from benchmarks.report import BARE, STAGES
from lightning_gradcam.fusion import in_order
from lightning_gradcam.methods import EQUATIONS
from lightning_gradcam.pipeline import Plan, prepare

GRAD_CAM = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "gradcam_elementwise": "GradCAMElementWise",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
}
TORCHCAM = {"gradcam": "GradCAM", "gradcam++": "GradCAMpp", "xgradcam": "XGradCAM", "layercam": "LayerCAM"}

_PLANS: WeakKeyDictionary[torch.nn.Module, dict[str, Plan]] = WeakKeyDictionary()


def ours(case: Case, method: str, layers: str | None = None) -> object:
    """The plan is made at the first call, in a round that does not count."""
    plans = _PLANS.setdefault(case.model, {})
    key = f"{method} {layers}"
    if key not in plans:
        chosen = layers or [layer.name for layer in case.plan.layers]
        plans[key] = prepare(case.model, case.probe, target=case.watch.target, layers=chosen, method=method)
    return plans[key](case.model, case.probe, [case.watch.target])


def bare(case: Case) -> object:
    """What several layers cannot do without: a forward pass, and the gradient from the score to the earliest layer.

    Parameters want no gradient meanwhile: what autograd would keep for theirs makes it a third slower.
    """
    stages = prepare_stages(case)
    earliest = in_order(stages.layers, stages.shapes)[0]
    kept: list[torch.Tensor] = []

    def tap(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return kept[0].clone()

    handle = case.model.get_submodule(earliest.name).register_forward_hook(tap)
    case.model.requires_grad_(False)
    try:
        with torch.no_grad():
            scores = case.model(case.probe.images).gather(1, case.classes[:, None])
            return torch.autograd.grad(scores.sum(), kept)
    finally:
        case.model.requires_grad_()
        handle.remove()


def prepare_stages(case: Case) -> Plan:
    """The plan of all stages."""
    if "gradcam stages" not in _PLANS.get(case.model, {}):
        ours(case, "gradcam", "stages")
    return _PLANS[case.model]["gradcam stages"]


def grad_cam(case: Case, name: str) -> object:
    """pytorch-grad-cam's: scaled to the images and normalised, in NumPy."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(c) for c in case.classes.tolist()]
    with getattr(import_module("pytorch_grad_cam"), name)(model=case.model, target_layers=[case.layer]) as cam:
        return cam(input_tensor=case.probe.images, targets=targets)


def torchcam(case: Case, name: str) -> object:
    """torchcam's: normalised, at the layer's resolution."""
    with getattr(import_module("torchcam.methods"), name)(case.model, target_layer=case.layer) as cam:
        scores = case.model(case.probe.images)
        return cam(case.classes.tolist(), scores)


def contestants(peers: set[str], pooled: bool) -> dict[str, Contestant]:
    """By name, those of one method behind one another.

    Args:
        peers: Which packages are there.
        pooled: Whether the head takes the mean of the whole map, as CAM needs it.
    """
    found: dict[str, Contestant] = {}
    for method in EQUATIONS:
        if method != "cam" or pooled:
            found[f"ours: {method}"] = partial(ours, method=method)
        sources: tuple[tuple[str, dict[str, str], Callable[..., object]], ...] = (
            ("pytorch-grad-cam", GRAD_CAM, grad_cam),
            ("torchcam", TORCHCAM, torchcam),
        )
        for package, names, run in sources:
            if method in names and package in peers:
                found[f"{package}: {method}"] = partial(run, name=names[method])
    return {**found, BARE: bare, STAGES: partial(ours, method="gradcam", layers="stages")}
