"""Origin of a module's output, and the tensors located before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from lightning_gradcam.layers.axes import CHANNELS_FIRST, Axes, LocatedTensor, list_layouts


@dataclass(frozen=True)
class TensorOrigin:
    """Origin of a tensor in a traced pass.

    Args:
        maker: The innermost module that returned it.
        returned: The tensor that this module returned.
        passed_on: The clone that went on to the next module.
        inputs: The tensors that the module received.
        first_inner: Number of tensors in the trace when the module began; later ones were computed inside it.
    """

    maker: nn.Module
    returned: Tensor
    passed_on: Tensor
    inputs: Sequence[Tensor] = ()
    first_inner: int = 0


@dataclass
class TensorHistory:
    """The images and all tensors of a pass so far, with their axes, in order of execution.

    Args:
        images: Signals ``(n, C, L)``.
    """

    images: Tensor
    outputs: list[LocatedTensor] = field(default_factory=list)

    @property
    def tensors(self) -> list[LocatedTensor]:
        """The images, and then the outputs of modules."""
        return [LocatedTensor(self.images, CHANNELS_FIRST), *self.outputs]

    def find_source(self, tensor: Tensor) -> LocatedTensor | None:
        """Find the earlier tensor that ``tensor`` is, or of which it is a view with its dimensions reordered.

        Returns:
            The tensor with its own axes; None if it is neither. The axes are None for an earlier tensor without axes.
        """
        for earlier, axes in reversed(self.tensors):
            if earlier is tensor:
                return LocatedTensor(tensor, axes)
            if axes and earlier.ndim == tensor.ndim and _get_base(earlier) is _get_base(tensor):
                layouts = _match_strides(tensor, earlier, axes)
                if len(layouts) == 1:
                    return LocatedTensor(tensor, layouts[0])
        return None


def _match_strides(view: Tensor, earlier: Tensor, axes: Axes) -> list[Axes]:
    """List the axes of a view in which channels and positions step through memory as those of ``earlier`` do."""
    channels = (earlier.shape[axes.channels], earlier.stride(axes.channels))
    return [
        layout
        for layout in list_layouts(view, earlier, axes)
        if (view.shape[layout.channels], view.stride(layout.channels)) == channels
        and view.stride(layout.sequence) == earlier.stride(axes.sequence)
    ]


def _get_base(tensor: Tensor) -> Tensor:
    return tensor if tensor._base is None else tensor._base
