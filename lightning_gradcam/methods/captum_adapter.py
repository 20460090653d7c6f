"""The explained score in the form that Captum calls: many images at once, each with its index in the probe."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.capture.isolation import frozen
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods.progress import show_progress
from lightning_gradcam.probe.probe import Probe

BATCH_SIZE = 16
"""Images per forward pass, from the probe or derived from it: memory does not grow with samples or steps."""

_PROGRESS_DELAY = 3.0  # seconds

Score = Callable[[Probe, Sequence[int]], Tensor]
"""From other images and their indices in the probe to scores ``(n,)`` or ``(n, k)``, see `CapturedPass.scores`."""


@dataclass(frozen=True)
class CaptumScore:
    """The ``forward_func`` of Captum: ``(images (n, C, *s), indices (n,)) -> (n,)``.

    Captum repeats the indices, an additional forward argument, whenever it repeats the images.

    Args:
        passes: The captured pass, with the model and the probe.
        score: The score that is explained.
        advance: A function that is told how many images have run.
    """

    passes: CapturedPass
    score: Score
    advance: Callable[[int], Any]

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """Return the scores ``(n,)``; several scores of an image are summed."""
        samples, probe = indices.tolist(), self.passes.probe
        scores = self.score(replace(probe[samples], images=images.to(probe.images.dtype)), samples)
        self.advance(len(samples))
        return scores.reshape(len(samples), -1).sum(1)

    def iterate_batches(self, batch_size: int = BATCH_SIZE) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the probe's images in batches, in at least float32, with their indices."""
        images = self.passes.probe.images.detach()
        images = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
        for start in range(0, len(images), batch_size):
            indices = torch.arange(start, min(start + batch_size, len(images)))
            yield images[start : start + batch_size], indices


@contextmanager
def adapt_for_captum(passes: CapturedPass, name: str, total: int, score: Score | None = None) -> Iterator[CaptumScore]:
    """Yield the score for Captum, with frozen weights and a progress bar on a terminal.

    Args:
        passes: The captured pass, with the model and the probe.
        name: The text of the progress bar.
        total: How many images will run, those of the probe and those derived from them.
        score: The score that is explained; by default the target's score, for the classes of the captured pass.
    """
    with (
        frozen(passes.model),
        show_progress(name, total, "img", _PROGRESS_DELAY) as advance,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", category=UserWarning, module="captum")  # about its own defaults
        yield CaptumScore(passes, score or passes.scores, advance)


def compute_image_gradients(
    forward_fn: CaptumScore,
    inputs: tuple[Tensor, ...],
    target_ind: None,  # noqa: ARG001  # the score already belongs to one class
    additional_forward_args: tuple[Tensor],
) -> tuple[Tensor, ...]:
    """Compute the score's gradients at images ``(n, C, *s)``: a ``gradient_func`` for Captum.

    Raises:
        NotExplainableError: The graph from the images to the score is cut.
    """
    (images,), (indices,) = inputs, additional_forward_args
    with torch.enable_grad():
        total = forward_fn(images, indices).sum()
    gradients = torch.autograd.grad(total, images, allow_unused=True) if total.requires_grad else (None,)
    if gradients[0] is None:
        raise NotExplainableError(
            "No gradient of the score reaches the images, even with grad enabled: the model's forward or the target "
            "cuts the graph (no_grad, detach, or a computation outside PyTorch). Use `method='occlusion'`, which needs "
            "no gradient, or `method='gradcam'` at a layer after the cut."
        )
    return gradients
