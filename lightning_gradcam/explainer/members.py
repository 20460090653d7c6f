"""Ensembles in one model: several rows of logits per image, which are explained by their mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.outputs import map_tensors
from lightning_gradcam.capture.random_state import reseed
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward
from lightning_gradcam.targets.logits import find_logits


@dataclass(frozen=True)
class MemberMean:
    """A forward pass whose outputs ``(M n, ...)`` become means over M members, ``(n, ...)``.

    Args:
        forward: The wrapped forward pass.
        count: Number of members M.
        is_member_first: Whether all images of one member come first, as in packed ensembles; else all members of one
            image do.
    """

    forward: Forward
    count: int
    is_member_first: bool

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """Return the model's output with the mean over the members."""
        rows = self.count * len(probe)

        def average(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point() or not tensor.ndim or len(tensor) != rows:
                return tensor
            shape = (self.count, len(probe)) if self.is_member_first else (len(probe), self.count)
            return tensor.reshape(*shape, *tensor.shape[1:]).mean(0 if self.is_member_first else 1)

        return map_tensors(self.forward(model, probe), average)

    @property
    def note(self) -> str:
        """A sentence for the user about what is explained."""
        return (
            f"The model returns {self.count} rows of logits per image; their mean is explained. Pass `forward=` to "
            "explain one member."
        )


def find_members(model: nn.Module, images: Probe, forward: Forward) -> MemberMean:
    """Find which rows of logits belong to which image: those that change if an image is changed.

    Args:
        model: The model.
        images: Two images.
        forward: Calls the model.

    Raises:
        NotExplainableError: The rows are not M for each image.
    """
    with isolated(model):
        original = find_logits(forward(model, images))
        reseed(images.images.device)
        changed = find_logits(forward(model, _change_first(images)))
    assert original is not None
    assert changed is not None
    count, remainder = divmod(len(original), len(images))
    if not remainder and original.shape == changed.shape:
        of_first = (original != changed).flatten(1).any(1).tolist()
        for is_member_first in (True, False):
            rows = [(row % 2 if is_member_first else row // count) == 0 for row in range(len(original))]
            if rows == of_first:
                return MemberMean(forward, count, is_member_first)
    raise NotExplainableError(
        f"Expected one row of logits per image, or the same number for each, but got {len(original)} for {len(images)} "
        "images. Pass `forward=`, a callable of (model, probe) that returns logits of shape (N, classes)."
    )


def _change_first(images: Probe) -> Probe:
    """Return the images with another first one, of values in the same range."""
    first = images.images[:1]
    return replace(images, images=torch.cat([(first.amin() + first.amax() - first).to(first.dtype), images.images[1:]]))
