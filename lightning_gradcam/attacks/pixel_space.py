"""Pixel space of attacks: a wrapper that takes pixels in [0, 1], whatever the model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor, nn

from lightning_gradcam.capture.isolation import frozen, isolated
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward
from lightning_gradcam.targets import require_logits
from lightning_gradcam.utils.registry import Registry

Attack: TypeAlias = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
"""``(pixel-space model, images in [0, 1], labels) -> images in [0, 1]``."""

_RANGE_TOLERANCE = 0.02
"""Tolerance at both ends of [0, 1], since decoders and resizing overshoot a little."""

ATTACKS = Registry[Attack]("attack")
"""Attacks by name; ``ATTACKS.register("name")(attack)`` adds one."""


class PixelSpace(nn.Module):
    """A model that takes pixels in [0, 1], normalizes them, and returns logits.

    It is a module, so that attacks of other libraries accept it.

    Args:
        model: Model that takes normalized images.
        pixels: Their normalization; None if the model takes pixels.
        probe: Labels and extras of the images, which ``call`` may need.
        call: Calls the model, a `Forward`; by default ``model(images)``.

    >>> import torch
    >>> model = PixelSpace(nn.Flatten(), Normalization((0.5,), (0.25,)))
    >>> model(torch.tensor([[[0.0, 1.0]]]))
    tensor([[-2.,  2.]])
    """

    def __init__(
        self,
        model: nn.Module,
        pixels: Normalization | None = None,
        probe: Probe | None = None,
        call: Forward | None = None,
    ) -> None:
        super().__init__()
        self.model, self.pixels, self.probe, self.call = model, pixels, probe, call
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(N, K)`` of images ``(N, C, *spatial)`` in [0, 1]."""
        inputs = images if self.pixels is None else self.pixels.normalize(images)
        if self.call is None:
            return require_logits(self.model(inputs))
        probe = Probe(inputs) if self.probe is None else replace(self.probe, images=inputs)
        return require_logits(self.call(self.model, probe))


@contextmanager
def preserve_state(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Isolate and freeze a module inside the context; do nothing for any other callable."""
    if not isinstance(model, nn.Module):
        yield
        return
    with isolated(model), frozen(model):
        yield


def check_range(images: Tensor) -> None:
    """Check that images lie in [0, 1], with a small tolerance. (Synchronizes with the device.)

    Raises:
        ValueError: A pixel is outside of [0, 1].
    """
    low, high = images.aminmax()
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
        raise ValueError(
            f"Expected images in [0, 1], but got {float(low):.3g} to {float(high):.3g}. If they are normalized, pass "
            "`pixels=Normalization(mean, std)`."
        )
