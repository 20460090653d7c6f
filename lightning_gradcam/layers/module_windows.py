"""Windows of convolutions, poolings and paddings, from the attributes of their modules."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_gradcam.layers.receptive_field import Window


def list_windows(module: nn.Module, input_size: Sequence[int], size: Sequence[int]) -> list[Window] | None:
    """Return the windows of a module, one per spatial axis.

    Args:
        module: Any module.
        input_size: Spatial dimensions of its input.
        size: Spatial dimensions of its output.

    Returns:
        The windows; None if the module has none, or if they do not give this size.

    >>> list_windows(nn.Conv1d(1, 1, 3, stride=2, padding=1), (8,), (4,))
    [Window(kernel=3, stride=2, padding=1, dilation=1)]
    >>> list_windows(nn.ZeroPad2d((1, 0, 2, 0)), (4, 4), (6, 5))
    [Window(kernel=1, stride=1, padding=2, dilation=1), Window(kernel=1, stride=1, padding=1, dilation=1)]
    """
    padding = getattr(module, "padding", None)
    if padding is None or len(input_size) != len(size) or getattr(module, "transposed", False):
        return None
    if not hasattr(module, "kernel_size"):
        return _list_padding(padding, input_size, size)
    kernel, dilation = (_repeat(getattr(module, name, 1), len(size)) for name in ("kernel_size", "dilation"))
    stride = _repeat(module.stride or kernel, len(size))  # type: ignore[arg-type]
    if padding == "same":
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    paddings = _repeat(0 if padding == "valid" else padding, len(size))
    windows = list(map(Window, kernel, stride, paddings, dilation))
    fits = all(_fits(*axis) for axis in zip(windows, input_size, size, strict=True))
    return windows if fits else None


def _fits(window: Window, length: int, new_length: int) -> bool:
    """Return whether a window gives this length, where poolings may round it up or down."""
    free = length + 2 * window.padding - window.dilation * (window.kernel - 1) - 1
    return new_length in (free // window.stride + 1, -(-free // window.stride) + 1)


def _list_padding(padding: Sequence[int], input_size: Sequence[int], size: Sequence[int]) -> list[Window] | None:
    """Return the windows of a padding, whose amounts before and after are given from the last axis to the first."""
    amounts = _repeat(padding, 2 * len(size))
    paddings, end_paddings = amounts[::2][::-1], amounts[1::2][::-1]
    if any(b + a != new - old for b, a, new, old in zip(paddings, end_paddings, size, input_size, strict=True)):
        return None
    return [Window(1, padding=amount) for amount in paddings]


def _repeat(value: int | Sequence[int], count: int) -> list[int]:
    """Return one value per axis."""
    return [value] * count if isinstance(value, int) else list(value)
