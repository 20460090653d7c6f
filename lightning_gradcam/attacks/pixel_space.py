"""Where attacks happen: pixels in [0, 1], whatever the model takes."""

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

_SLACK = 0.02
"""Of the range: decoders and resizing overshoot a little."""

ATTACKS = Registry[Attack]("attack")
"""Attacks by name; ``ATTACKS.register("name")(attack)`` adds one."""


class PixelSpace(nn.Module):
    """A model that takes pixels in [0, 1] and returns logits: the normalisation is inside.

    It is a module, so that other libraries' attacks take it, too.

    Args:
        model: Takes normalised images.
        pixels: Their normalisation; None where the model takes pixels.
        probe: The rows beside the images, which ``forward`` may need.
        call: How the model is called, a `Forward`; by default ``model(images)``.

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
        """Logits ``(N, K)`` of images ``(N, C, *spatial)`` in [0, 1]."""
        taken = images if self.pixels is None else self.pixels.normalize(images)
        if self.call is None:
            return require_logits(self.model(taken))
        rows = Probe(taken) if self.probe is None else replace(self.probe, images=taken)
        return require_logits(self.call(self.model, rows))


@contextmanager
def preserve_state(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, a module and its parameters are as `isolated` and `frozen` make them; any other callable is as it is."""
    if not isinstance(model, nn.Module):
        yield
        return
    with isolated(model), frozen(model):
        yield


def check_range(images: Tensor) -> None:
    """Raise a ValueError where images do not lie in [0, 1]. (Waits for the device.)"""
    low, high = images.aminmax()
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise ValueError(
            f"Expected images in [0, 1], but got {float(low):.3g} to {float(high):.3g}. Where they are normalised, say "
            "how: `pixels=Normalization(mean, std)`."
        )
