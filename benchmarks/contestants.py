"""What is measured: a plain forward pass, our explanation and look, and the peers' explanations, on the same images.

Every contestant is called with a `Case`, explains the same class in the same images at the same layer, and registers
and removes its hooks within the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TypeAlias

import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2.functional import pil_to_tensor

from lightning_gradcam.explanation import Explanation
from lightning_gradcam.gallery import Display
from lightning_gradcam.loggers import find_writer
from lightning_gradcam.pipeline import explain, prepare
from lightning_gradcam.plan import Plan
from lightning_gradcam.portions import Portions
from lightning_gradcam.probe import Probe, Target
from lightning_gradcam.targets import TARGETS
from lightning_gradcam.watch import Watch

PARTS = ("explain", "measure, draw", "copy, encode", "write")


@dataclass(frozen=True)
class ClockedPlan(Plan):
    """A plan that notes how long each of its calls took, in seconds."""

    laps: list[float] = field(default_factory=list)

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """As `Plan`."""
        start = perf_counter()
        explanations = super().__call__(model, probe, targets)
        self.laps.append(perf_counter() - start)
        return explanations


@dataclass(frozen=True)
class Case:
    """A model and images, with what the callback prepares once per run.

    Args:
        model: In eval mode.
        probe: Images ``(N, 3, 224, 224)``; their labels are the classes predicted at first.
        plan: Where and how to explain.
        watch: What the callback looks through.
        logger: Where pictures go.
        parts: Seconds per look, see `PARTS`; `look` fills it.
    """

    model: nn.Module
    probe: Probe
    plan: ClockedPlan
    watch: Watch
    logger: TensorBoardLogger
    parts: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def layer(self) -> nn.Module:
        """The module that evidence is read at."""
        return self.model.get_submodule(self.plan.layers[0].name)

    @property
    def classes(self) -> Tensor:
        """``(N,)``, explained by all."""
        assert self.probe.classes is not None
        return self.probe.classes


Contestant: TypeAlias = Callable[[Case], object]


@contextmanager
def prepared(name: str, images: int) -> Iterator[Case]:
    """A case with a TensorBoard logger that writes to a temporary directory.

    Args:
        name: One of torchvision's models; its weights are random.
        images: How many.
    """
    torch.manual_seed(0)
    pixels, model = photos(images), get_model(name, weights=None)
    settle(model, pixels)
    with torch.inference_mode():
        labels = model(pixels).argmax(1)
    probe, target = Probe(pixels, labels=labels.clone()), TARGETS["label"]
    plan = ClockedPlan(**vars(prepare(model, probe, target=target)))
    with TemporaryDirectory() as folder:
        logger = TensorBoardLogger(folder)
        yield Case(model, probe, plan, Watch(probe, Portions(plan), target, Display()), logger)
        logger.finalize("success")


def photos(count: int) -> Tensor:
    """Crops of matplotlib's sample photo, ``(count, 3, 224, 224)``: a JPEG's size depends on what is in the picture."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        whole = pil_to_tensor(photo.convert("RGB"))
    crop = RandomResizedCrop(224, scale=(0.1, 1.0))
    return torch.stack([crop(whole / 255) for _ in range(count)]).clamp(0, 1)


@torch.no_grad()
def settle(model: nn.Module, pixels: Tensor) -> None:
    """Take BatchNorm's statistics from the images: with the initial ones MobileNet's gradients are around 1e-24."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(pixels)
    model.eval()


def forward(case: Case) -> object:
    """What the others are compared with."""
    with torch.inference_mode():
        return case.model(case.probe.images)


def explanation(case: Case) -> object:
    """As the callback explains at each look: the layer was chosen before."""
    return case.plan(case.model, case.probe, [case.watch.target])


def whole_explain(case: Case) -> object:
    """`explain()` with the trace that it chooses the layer from."""
    return explain(case.model, case.probe, target="label")


def look(case: Case) -> None:
    """One look of the callback, until the picture is in the events file."""
    start = perf_counter()
    found = case.watch.look(case.model, "epoch 1 · step 100")
    drawn = perf_counter()
    writer = find_writer(case.logger)
    assert writer is not None
    for key, picture in found.pictures.items():
        writer(case.logger, f"gradcam/{key}", picture.cpu(), 100)
    encoded = perf_counter()
    case.logger.experiment.flush()  # the callback leaves this to TensorBoard's thread
    explained = case.plan.laps[-1]
    case.parts.append((explained, drawn - start - explained, encoded - drawn, perf_counter() - encoded))


def pytorch_grad_cam(case: Case) -> object:
    """Its result is scaled to the images and normalised, in NumPy."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(c) for c in case.classes.tolist()]
    with GradCAM(model=case.model, target_layers=[case.layer]) as cam:
        return cam(input_tensor=case.probe.images, targets=targets)


def captum(case: Case) -> object:
    """Its result is signed evidence at the layer's resolution, as ours."""
    from captum.attr import LayerGradCam

    return LayerGradCam(case.model, case.layer).attribute(case.probe.images, target=case.classes)


def torchcam(case: Case) -> object:
    """Its result is normalised, at the layer's resolution."""
    from torchcam.methods import GradCAM

    with GradCAM(case.model, target_layer=case.layer) as cam:
        scores = case.model(case.probe.images)
        return cam(case.classes.tolist(), scores)


OURS: dict[str, Contestant] = {
    "ours: explanation": explanation,
    "ours: explain(), with its trace": whole_explain,
    "ours: whole look": look,
}
PEERS: dict[str, tuple[str, Contestant]] = {
    "pytorch-grad-cam": ("pytorch_grad_cam", pytorch_grad_cam),
    "captum": ("captum.attr", captum),
    "torchcam": ("torchcam.methods", torchcam),
}


def installed_peers() -> dict[str, Contestant]:
    """The peers that can be imported; what is left out is said."""
    found: dict[str, Contestant] = {}
    for name, (module, contestant) in PEERS.items():
        try:
            import_module(module)
        except ImportError as error:
            print(f"{name} is left out: {error}")
        else:
            found[name] = contestant
    return found
