"""A model and images, with what the callback prepares once per run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2.functional import pil_to_tensor

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets import TARGETS


@dataclass(frozen=True)
class ClockedPlan(Explainer):
    """An explainer that records how long each of its calls takes, in seconds."""

    laps: list[float] = field(default_factory=list)

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """Explain, and record the time."""
        start = perf_counter()
        explanations = super().__call__(model, probe, targets)
        self.laps.append(perf_counter() - start)
        return explanations


@dataclass(frozen=True)
class Case:
    """A model and images.

    Args:
        model: In eval mode.
        probe: Images ``(N, 3, h, w)``; their labels are the classes that the model predicts.
        plan: The prepared explainer.
        monitor: What the callback takes snapshots with.
        logger: Where figures are written.
        parts: Milliseconds per snapshot, see `contestants.PARTS`; `contestants.take_snapshot` fills it.
    """

    model: nn.Module
    probe: Probe
    plan: ClockedPlan
    monitor: ProbeMonitor
    logger: TensorBoardLogger
    parts: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def layer(self) -> Layer:
        """The explained layer."""
        return self.plan.layers[0]

    @property
    def module(self) -> nn.Module:
        """The module of that layer."""
        return self.model.get_submodule(self.layer.name)

    @property
    def tokens(self) -> bool:
        """True if that module returns tokens instead of a map of channels."""
        return any(shape.tokens for shape in self.plan.shapes if shape.name == self.layer.name)

    @property
    def classes(self) -> Tensor:
        """``(N,)`` classes that all contestants explain."""
        assert self.probe.classes is not None
        return self.probe.classes


@contextmanager
def prepared(
    name: str, images: int, pixels: int = 224, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Iterator[Case]:
    """Yield a case with a TensorBoard logger that writes to a temporary directory.

    Args:
        name: A torchvision model; its weights are random.
        images: The number of images.
        pixels: Their height and width.
        device: The device of model and images.
        dtype: The precision of model and images.
    """
    torch.manual_seed(0)
    model, crops = get_model(name, weights=None).to(device), photos(max(images, 2), pixels).to(device)
    settle(model, crops[:32])
    model, crops = model.to(dtype), crops[:images].to(dtype)
    with torch.inference_mode():
        labels = model(crops).argmax(1)
    probe, target = Probe(crops, labels=labels.clone()), TARGETS["label"]
    plan = ClockedPlan(**vars(prepare(model, probe, target=target)))
    with TemporaryDirectory() as folder:
        logger = TensorBoardLogger(folder)
        yield Case(model, probe, plan, ProbeMonitor(probe, ShardedExplainer(plan), target, DisplayConfig()), logger)
        logger.finalize("success")


def photos(count: int, pixels: int = 224) -> Tensor:
    """Return crops of matplotlib's sample photo ``(count, 3, pixels, pixels)``, since JPEG size depends on content."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        whole = pil_to_tensor(photo.convert("RGB"))
    crop = RandomResizedCrop(pixels, scale=(0.1, 1.0))
    return torch.stack([crop(whole / 255) for _ in range(count)]).clamp(0, 1)


@torch.no_grad()
def settle(model: nn.Module, pixels: Tensor) -> None:
    """Set BatchNorm statistics from the images: with the initial ones MobileNet's gradients are around 1e-24."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(pixels)
    model.eval()
