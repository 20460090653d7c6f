"""Base class of the methods at the pixels that run on Captum."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from torch import Tensor

from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.methods.base import BasePassMethod


class PixelMethod(BasePassMethod):
    """Base class of the methods whose evidence has the image's size and the key `layer.PIXELS`."""

    requires: ClassVar[str] = "captum"
    location: ClassVar[str] = PIXELS
    base_name: ClassVar[str]
    """The registered name, to which `name` adds the options."""

    @property
    def name(self) -> str:
        """The name in figures and keys, with the options that differ from their defaults."""
        return describe_options(self.base_name, self)


def max_over_channels(gradients: Tensor) -> Tensor:
    """Return the largest absolute gradient ``(n, *s)`` over the channels of ``(n, C, *s)``.

    The sign is dropped: whether a brighter or a darker pixel raises the score is not evidence for or against the class.

    Simonyan et al. 2014, arXiv:1312.6034, section 3.1.

    >>> import torch
    >>> max_over_channels(torch.tensor([[[1.0, 2.0], [-3.0, 0.5]]]))
    tensor([[3., 2.]])
    """
    return gradients.abs().amax(1)


def describe_options(name: str, method: Any) -> str:
    """Append the options of a dataclass that differ from their defaults to a method's name.

    >>> from lightning_gradcam import SmoothGrad
    >>> describe_options("smoothgrad", SmoothGrad(samples=8))
    'smoothgrad with samples 8'
    """
    values = [(field.name, getattr(method, field.name), field.default) for field in fields(method)]
    options = [f"{option} {getattr(value, '__name__', value)}" for option, value, default in values if value != default]
    return f"{name} with {', '.join(options)}" if options else name
