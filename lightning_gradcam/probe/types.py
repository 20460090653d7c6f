"""Types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from lightning_gradcam.probe.probe import Probe

Forward: TypeAlias = Callable[[torch.nn.Module, Probe], Any]
"""How a model is called on a probe; by default ``model(probe.images)``."""

Target: TypeAlias = Callable[[Any, Probe], Tensor]
"""``(output, the same rows of the probe) -> scores``, ``(n,)`` or ``(n, k)``: what is explained."""


@runtime_checkable
class HoldableTarget(Protocol):
    """A `Target` that chooses for each image what is explained, the predicted class say."""

    def freeze(self, output: Any, probe: Probe) -> Target:
        """The target that stays with what is chosen for this output, whatever other images of these rows give."""

    def select_rows(self, rows: slice | Sequence[int]) -> Target:
        """The target for some rows of its probe."""
