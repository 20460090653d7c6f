"""Types of the callables that are applied to a probe."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from lightning_gradcam.probe.probe import Probe

Forward: TypeAlias = Callable[[torch.nn.Module, Probe], Any]
"""A forward pass, ``(model, probe) -> output``; by default ``model(probe.images)``."""

Target: TypeAlias = Callable[[Any, Probe], Tensor]
"""The score to explain, ``(output, probe) -> scores`` of shape ``(n,)`` or ``(n, k)``, for the same n rows."""


@runtime_checkable
class FreezableTarget(Protocol):
    """A `Target` that chooses the explained score for each image, such as that of the predicted class."""

    def freeze(self, output: Any, probe: Probe) -> Target:
        """Return the target with its choices for this output, which it keeps for any other images in these rows."""

    def select_rows(self, rows: slice | Sequence[int]) -> Target:
        """Return the target for some rows of its probe."""


@runtime_checkable
class ComparableTarget(Protocol):
    """A `Target` that waits for the device anyway, so that what it scores can be compared with what others score."""

    def find_scored(self, output: Any, probe: Probe) -> Hashable:
        """Return which entries of the output are scored; scores of equal entries have equal gradients."""
