"""Order of the images' dimensions: clips with frames before channels, and spectrograms without channels."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn

ImageAxes: TypeAlias = Literal["channels first", "frames first", "no channels"]
"""How a model takes its images: ``(N, C, *spatial)``, clips ``(N, T, C, H, W)``, or spectrograms ``(N, T, F)``."""

CHANNELS_FIRST: ImageAxes = "channels first"

_CONVOLUTIONS = ((nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3))
_COLOR_CHANNELS = (1, 3)


def put_channels_first(images: Tensor, axes: ImageAxes) -> Tensor:
    """Return images, as the model takes them, as ``(N, C, *spatial)``: frames become the first spatial dimension."""
    if axes == "frames first":
        return images.transpose(1, 2)
    return images[:, None] if axes == "no channels" else images


def restore_axes(images: Tensor, axes: ImageAxes) -> Tensor:
    """Return images ``(N, C, *spatial)`` as the model takes them."""
    if axes == "frames first":
        return images.transpose(1, 2).contiguous()
    return images[:, 0] if axes == "no channels" else images


def find_axes(images: Tensor, model: nn.Module) -> ImageAxes:
    """Find the order of the images' dimensions by the model's first convolution, or by the number of channels.

    A model of clips has a convolution that takes as many channels as there are in the third dimension, and not in the
    second; without a convolution, these must be one or three. A model of spectrograms begins with a convolution of two
    dimensions and one channel.

    Args:
        images: The images as the model takes them.
        model: The model.

    >>> import torch
    >>> find_axes(torch.rand(2, 6, 3, 8, 8), nn.Conv2d(3, 4, 3)), find_axes(torch.rand(2, 9, 8), nn.Conv2d(1, 4, 3))
    ('frames first', 'no channels')
    """
    dimensions, channels = next(iter(list_convolutions(model)), (None, None))
    if images.ndim == 3:
        return "no channels" if (dimensions, channels) == (2, 1) else CHANNELS_FIRST
    if images.ndim != 5:
        return CHANNELS_FIRST
    second, third = images.shape[1:3]
    if channels is None:
        is_clip = third in _COLOR_CHANNELS and second not in (*_COLOR_CHANNELS, 4)
    else:
        is_clip = channels == third and (channels != second or dimensions == 2)
    return "frames first" if is_clip else CHANNELS_FIRST


def list_convolutions(model: nn.Module) -> list[tuple[int, int]]:
    """List the numbers of dimensions and of input channels of a model's convolutions.

    >>> list_convolutions(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 1)))
    [(2, 3), (1, 8)]
    """
    return [
        (dimensions, module.in_channels)
        for module in model.modules()
        for convolution, dimensions in _CONVOLUTIONS
        if isinstance(module, convolution)
    ]
