"""Status of a map: readable, or the reason why it is degenerate."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from lightning_gradcam.utils.numerics import CONSTANT


class MapStatus(IntEnum):
    """Reason why a map is degenerate; the first that applies is reported.

    Tensors of a status are uint8. The numbers are part of checkpoints and baseline files, so they must not change.

    >>> [status.text for status in MapStatus]
    [None, 'not finite', 'no gradient', 'all zero', 'constant', 'no label']
    """

    READABLE = 0
    NOT_FINITE = 1
    NO_GRADIENT = 2
    ALL_ZERO = 3
    CONSTANT = 4
    NO_LABEL = 5
    """The image has no label to explain, so its map does not count as degenerate."""

    @property
    def text(self) -> str | None:
        """The reason in words; None for a readable map."""
        return self.name.lower().replace("_", " ") if self else None


def find_status(evidence: Tensor, gradients: Tensor | None = None) -> Tensor:
    """Find the maps that cannot be interpreted.

    Args:
        evidence: ``(N, *s)`` signed evidence.
        gradients: ``(N, ...)`` the gradients that the evidence was computed from, if any.

    Returns:
        ``(N,)`` uint8, each a `MapStatus`, on the evidence's device.

    >>> codes = find_status(torch.tensor([[1.0, 0.0], [-1.0, -2.0], [2.0, 2.0], [torch.nan, 0.0]]))
    >>> [MapStatus(code).text for code in codes.tolist()]
    [None, 'all zero', 'constant', 'not finite']
    """
    flat = evidence.flatten(1)
    maps = flat.relu()
    low, high = maps.aminmax(dim=1)
    code = torch.zeros(len(flat), dtype=torch.uint8, device=flat.device)
    code.masked_fill_(high - low < CONSTANT * high, MapStatus.CONSTANT)
    code.masked_fill_(high == 0, MapStatus.ALL_ZERO)
    if gradients is not None:
        low, high = gradients.flatten(1).aminmax(dim=1)  # abs() would copy all of them
        code.masked_fill_((low == 0) & (high == 0), MapStatus.NO_GRADIENT)
    return code.masked_fill_(~flat.isfinite().all(1), MapStatus.NOT_FINITE)


def compute_degenerate_fraction(codes: Tensor) -> Tensor:
    """Return the fraction of degenerate maps among the images that have a label, 0-dimensional.

    Args:
        codes: ``(N,)`` uint8, each a `MapStatus`.

    >>> compute_degenerate_fraction(torch.tensor([0, 3, MapStatus.NO_LABEL]))
    tensor(0.5000)
    """
    has_label = codes != MapStatus.NO_LABEL
    return ((codes > 0) & has_label).sum().float() / has_label.sum().clamp_min(1)
