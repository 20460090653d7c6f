"""Sequence axis of signals, followed from tensor to tensor through the model."""

from __future__ import annotations

from torch import Tensor

from lightning_gradcam.layers.axes import Axes, LocatedTensor
from lightning_gradcam.layers.axis_rules import infer_axes
from lightning_gradcam.layers.tensor_history import TensorHistory, TensorOrigin


class AxisTracker:
    """Tracks the sequence axis of signals ``(n, C, L)``; reads every tensor of a pass in order of execution.

    Shapes cannot distinguish ``(n, C, L)`` from ``(n, L, C)``. The rules of `axis_rules` use what can: which tensor a
    module received, and whether that is an earlier tensor or a transposed view of one; the dimension on which PyTorch's
    layers work; and the sizes of earlier tensors. If these leave the axes open, they are None.

    Args:
        images: The signals.
    """

    def __init__(self, images: Tensor) -> None:
        self._history = TensorHistory(images)

    def read(self, origin: TensorOrigin) -> Axes | None:
        """Return the axes of a tensor; None if they cannot be known, or if it is not a sequence."""
        axes = infer_axes(origin, self._history) if origin.returned.ndim == 3 else None
        if axes and origin.returned.shape[axes.batch] != len(self._history.images):
            axes = None
        self._history.outputs.append(LocatedTensor(origin.passed_on, axes))
        return axes

    def restore_order(self) -> Axes | None:
        """Mark the positions of the last tensor as in order again, as its length equals that of an earlier grid."""
        tensor, axes = self._history.outputs[-1]
        axes = axes and axes._replace(is_mixed=False)
        self._history.outputs[-1] = LocatedTensor(tensor, axes)
        return axes
