"""Every registered CAM method compared with the peers' of that name, and several layers in one forward pass.

Ours are timed as the callback explains in each snapshot, with layers chosen in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.speed.cases import Case, prepared
from benchmarks.speed.contestants import (
    FORWARD,
    Contestant,
    bound,
    captum,
    forward,
    installed_peers,
    pytorch_grad_cam,
    torchcam,
)
from benchmarks.speed.estimates import compared
from benchmarks.speed.rounds import Options, take_turns
from benchmarks.tables import table
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.fusion import sort_by_execution
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.methods import EQUATIONS

MODEL, IMAGES, SECONDS = "resnet18", 8, 50
STAGES = "ours: all stages"
BARE = "forward + backward to the earliest layer"
SEVERAL_GOAL = 1.1

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


def bare(case: Case, earliest: str) -> object:
    """Run the minimum for several layers: a forward pass, and the gradient from the score to the earliest layer.

    Parameters are frozen meanwhile: saving tensors for their gradients makes it a third slower.
    """
    kept: list[torch.Tensor] = []

    def tap(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return kept[0].clone()

    handle = case.model.get_submodule(earliest).register_forward_hook(tap)
    case.model.requires_grad_(False)
    try:
        with torch.no_grad():
            scores = case.model(case.probe.images).gather(1, case.classes[:, None])
            return torch.autograd.grad(scores.sum(), kept)
    finally:
        case.model.requires_grad_()
        handle.remove()


def contestants(case: Case, peers: Mapping[str, str]) -> dict[str, Contestant]:
    """Return the contestants by name, ordered by method."""
    found: dict[str, Contestant] = {FORWARD: forward}
    layers = [layer.name for layer in case.plan.layers]
    sources: tuple[tuple[str, dict[str, str], Callable[..., object]], ...] = (
        ("pytorch-grad-cam", GRAD_CAM, pytorch_grad_cam),
        ("torchcam", TORCHCAM, torchcam),
    )

    def ours(plan: Explainer) -> Contestant:
        return lambda case: plan(case.model, case.probe, [case.monitor.target])

    for method in EQUATIONS:
        plan = prepare(case.model, case.probe, target=case.monitor.target, layers=layers, method=method)
        found[f"ours: {method}"] = ours(plan)
        for package, names, run in sources:
            if method in names and package in peers:
                found[f"{package}: {method}"] = partial(run, name=names[method])
    if "captum" in peers:
        found["captum: gradcam"] = captum
    stages = prepare(case.model, case.probe, target=case.monitor.target, layers="stages")
    earliest = sort_by_execution(stages.layers, stages.shapes)[0].name
    return {**found, BARE: partial(bare, earliest=earliest), STAGES: ours(stages)}


def measure(options: Options) -> dict[str, Any]:
    """Measure all methods on one model."""
    with prepared(MODEL, IMAGES, device=options.device) as case:
        runs = bound(case, contestants(case, installed_peers()))
        return {"layer": case.layer.name, **take_turns(runs, FORWARD, options, SECONDS)}


def page(found: Mapping[str, Any]) -> str:
    """Return the section."""
    rows = [
        (name, f"{median(each):.0f}", str(compared(found, name, FORWARD)))
        for name, each in found["milliseconds"].items()
    ]
    return (
        f"{MODEL}, {IMAGES} images of 224x224 pixels, layer `{found['layer']}`.\n\n"
        f"{table(('', 'ms', 'times a plain forward pass'), rows)}\n\n"
        f"All stages take {compared(found, STAGES, BARE)} times as long as {BARE} (goal: at most {SEVERAL_GOAL})."
    )


def losses(found: Mapping[str, Any]) -> list[str]:
    """List the goal if it is missed."""
    several = compared(found, STAGES, BARE)
    return [f"all stages take {several} times the minimum; the goal is {SEVERAL_GOAL}"] * (several.value > SEVERAL_GOAL)
