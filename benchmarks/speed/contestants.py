"""Who is measured: a plain forward pass, our explanation and look, the peers' explanations and the usual callbacks.

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
TRACED = "ours, with its trace"
LOOK = "ours: a look"
PEERS = {"pytorch-grad-cam": "pytorch_grad_cam", "torchcam": "torchcam.methods", "captum": "captum.attr"}
"""What is imported, by the name of the package."""

PARTS = ("explain", "measure, draw", "copy, encode", "write")


def forward(case: Case) -> object:
    """What the others are compared with."""
    with torch.inference_mode():
        return case.model(case.probe.images)


def explanation(case: Case) -> object:
    """As the callback explains at each look: the layer was chosen before."""
    return case.plan(case.model, case.probe, [case.monitor.target])


def traced(case: Case) -> object:
    """`explain()`, which traces the model on two images and chooses the layer at every call."""
    return explain(case.model, case.probe, target="label")


def look(case: Case) -> None:
    """One look of the callback, until the picture is in the events file."""
    start = perf_counter()
    found = case.monitor.take_snapshot(case.model, "epoch 1 · step 100")
    drawn = perf_counter()
    writer = find_writer(case.logger)
    assert writer is not None
    for key, picture in found.figures.items():
        writer(case.logger, f"gradcam/{key}", picture.cpu(), 100)
    encoded = perf_counter()
    case.logger.experiment.flush()  # the callback leaves this to TensorBoard's thread
    explained = case.plan.laps[-1]
    parts = (explained, drawn - start - explained, encoded - drawn, perf_counter() - encoded)
    case.parts.append(tuple(1000 * seconds for seconds in parts))


def pytorch_grad_cam(case: Case, name: str = "GradCAM", modules: Sequence[str] = (), one: int | None = None) -> Tensor:
    """Maps ``(N, h, w)``, scaled to the images and normalised, in NumPy.

    Args:
        case: What is explained.
        name: Of its methods.
        modules: Where, instead of at the case's layer.
        one: A class that is explained in all images, instead of the case's classes.
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
    """Signed evidence at the layer's resolution, as ours."""
    from captum.attr import LayerGradCam

    return LayerGradCam(case.model, case.module).attribute(case.probe.images, target=case.classes)


def torchcam(case: Case, name: str = "GradCAM") -> object:
    """Maps at the layer's resolution, normalised."""
    with getattr(import_module("torchcam.methods"), name)(case.model, target_layer=case.module) as cam:
        scores = case.model(case.probe.images)
        return cam(case.classes.tolist(), scores)


def usual_callback(case: Case) -> None:
    """What is written most often: pytorch-grad-cam's overlay, and one `add_image` per picture."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    maps, images = pytorch_grad_cam(case).numpy(), case.probe.images.permute(0, 2, 3, 1).float().cpu().numpy()
    for i, (image, heat) in enumerate(zip(images, maps, strict=True)):
        shown = show_cam_on_image(image, heat, use_rgb=True)
        case.logger.experiment.add_image(f"usual/{i}", shown, 100, dataformats="HWC")
    case.logger.experiment.flush()


def figure_callback(case: Case) -> None:
    """The same maps in a figure of matplotlib, eight a row, by `add_figure`: captum explains, which costs least."""
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
    """A plain forward pass, our explanation, and those of the peers that can explain this model.

    captum and torchcam take the tokens of a Vision Transformer for channels: they return something, but no map.
    """
    yield FORWARD, forward
    yield OURS, explanation
    able: dict[str, Contestant] = {"pytorch-grad-cam": pytorch_grad_cam}
    if not case.tokens:
        able |= {"torchcam": torchcam, "captum": captum}
    yield from ((name, able[name]) for name in PEERS if name in peers and name in able)


def bound(case: Case, contestants: Mapping[str, Contestant]) -> dict[str, Callable[[], object]]:
    """Contestants, called with their case; what one leaves on the model is removed, so that nobody inherits it."""
    parameters = list(case.model.parameters())  # to look for them takes a small model's 50th part

    def run(contestant: Contestant) -> None:
        contestant(case)
        for parameter in parameters:
            parameter.grad = None

    return {name: partial(run, contestant) for name, contestant in contestants.items()}


def installed_peers() -> dict[str, str]:
    """The peers that can be imported; what is left out is said."""
    found = {}
    for name, module in PEERS.items():
        try:
            import_module(module)
        except ImportError as error:
            print(f"{name} is left out: {error}")
        else:
            found[name] = module
    return found
