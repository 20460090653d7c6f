"""The contestants: a plain forward pass, our explanation and snapshot, peers' explanations and typical callbacks.

Every contestant is called with a `Case`, explains the same class in the same images at the same layer, and registers
and removes its hooks within the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import TypeAlias

import torch
from torch import Tensor

from benchmarks.speed.cases import Case
from lightning_gradcam.explainer.pipeline import explain
from lightning_gradcam.loggers import find_writer

Contestant: TypeAlias = Callable[[Case], object]

FORWARD = "plain forward"
OURS = "ours"
TRACED = "ours, with tracing"
SNAPSHOT = "ours: a snapshot"
PEERS = {"pytorch-grad-cam": "pytorch_grad_cam", "torchcam": "torchcam.methods", "captum": "captum.attr"}
"""The module to import, by the name of the package."""

PARTS = ("explain", "measure, draw", "copy, encode", "write")


def forward(case: Case) -> object:
    """Run the plain forward pass that others are compared with."""
    with torch.inference_mode():
        return case.model(case.probe.images)


def explanation(case: Case) -> object:
    """Explain as the callback does in each snapshot, with a layer chosen in advance."""
    return case.plan(case.model, case.probe, [case.monitor.target])


def traced(case: Case) -> object:
    """Call `explain()`, which traces the model on two images and chooses the layer in every call."""
    return explain(case.model, case.probe, target="label")


def take_snapshot(case: Case) -> None:
    """Take one snapshot as the callback does, until the figure is in the events file."""
    start = perf_counter()
    snapshot = case.monitor.take_snapshot(case.model, "epoch 1 · step 100")
    drawn = perf_counter()
    writer = find_writer(case.logger)
    assert writer is not None
    for key, picture in snapshot.figures.items():
        writer(case.logger, f"gradcam/{key}", picture.cpu(), 100)
    encoded = perf_counter()
    case.logger.experiment.flush()  # the callback leaves this to TensorBoard's thread
    explained = case.plan.laps[-1]
    parts = (explained, drawn - start - explained, encoded - drawn, perf_counter() - encoded)
    case.parts.append(tuple(1000 * seconds for seconds in parts))


def pytorch_grad_cam(case: Case, name: str = "GradCAM", modules: Sequence[str] = (), one: int | None = None) -> Tensor:
    """Return maps ``(N, h, w)``, scaled to the images and normalized, from NumPy.

    Args:
        case: The model and images.
        name: The name of the peer's method.
        modules: The layers, instead of the case's layer.
        one: A class to explain in all images, instead of the case's classes.
    """
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    method = getattr(import_module("pytorch_grad_cam"), name)
    classes = case.classes.tolist() if one is None else [one] * len(case.probe)
    places = [case.model.get_submodule(module) for module in modules] or [case.module]
    arrange = {"reshape_transform": case.layer.to_grid} if case.tokens else {}
    with method(model=case.model, target_layers=places, **arrange) as cam:
        found: Tensor = torch.from_numpy(
            cam(input_tensor=case.probe.images, targets=[ClassifierOutputTarget(c) for c in classes])
        )
    return found


def captum(case: Case) -> object:
    """Return signed evidence at the resolution of the layer, as ours."""
    from captum.attr import LayerGradCam

    return LayerGradCam(case.model, case.module).attribute(case.probe.images, target=case.classes)


def torchcam(case: Case, name: str = "GradCAM") -> object:
    """Return normalized maps at the resolution of the layer."""
    with getattr(import_module("torchcam.methods"), name)(case.model, target_layer=case.module) as cam:
        scores = case.model(case.probe.images)
        return cam(case.classes.tolist(), scores)


def usual_callback(case: Case) -> None:
    """Log what tutorials do: pytorch-grad-cam's overlay, and one `add_image` per image."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    maps, images = pytorch_grad_cam(case).numpy(), case.probe.images.permute(0, 2, 3, 1).float().cpu().numpy()
    for i, (image, heat) in enumerate(zip(images, maps, strict=True)):
        shown = show_cam_on_image(image, heat, use_rgb=True)
        case.logger.experiment.add_image(f"usual/{i}", shown, 100, dataformats="HWC")
    case.logger.experiment.flush()


def figure_callback(case: Case) -> None:
    """Log captum's maps, the cheapest, in a matplotlib figure with eight images per row, with `add_figure`."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    evidence = torch.as_tensor(captum(case)).relu()[:, 0]
    images = case.probe.images.permute(0, 2, 3, 1).float().cpu().numpy()
    figure, axes = pyplot.subplots(-(-len(images) // 8), 8, squeeze=False, figsize=(10.2, 1.6 * -(-len(images) // 8)))
    for axis, image, heat in zip(axes.flat, images, evidence.detach().float().cpu().numpy(), strict=False):
        axis.imshow(image)
        axis.imshow(heat, cmap="inferno", alpha=0.5, extent=(0, image.shape[1], image.shape[0], 0))
        axis.axis("off")
    case.logger.experiment.add_figure("figure", figure, 100)  # which closes it
    case.logger.experiment.flush()


def explainers(case: Case, peers: Mapping[str, str]) -> Iterator[tuple[str, Contestant]]:
    """Yield a plain forward pass, our explanation, and those of the peers that can explain this model.

    captum and torchcam treat the tokens of a Vision Transformer as channels, so what they return is not a map.
    """
    yield FORWARD, forward
    yield OURS, explanation
    able: dict[str, Contestant] = {"pytorch-grad-cam": pytorch_grad_cam}
    if not case.tokens:
        able |= {"torchcam": torchcam, "captum": captum}
    yield from ((name, able[name]) for name in PEERS if name in peers and name in able)


def bound(case: Case, contestants: Mapping[str, Contestant]) -> dict[str, Callable[[], object]]:
    """Bind contestants to a case; gradients that one leaves on the model are removed before the next."""
    parameters = list(case.model.parameters())  # searching for them takes 2 % of a small model's time

    def run(contestant: Contestant) -> None:
        contestant(case)
        for parameter in parameters:
            parameter.grad = None

    return {name: partial(run, contestant) for name, contestant in contestants.items()}


def installed_peers() -> dict[str, str]:
    """Return the peers that can be imported, and print the others."""
    found = {}
    for name, module in PEERS.items():
        try:
            import_module(module)
        except ImportError as error:
            print(f"Skipping {name}: {error}")
        else:
            found[name] = module
    return found
