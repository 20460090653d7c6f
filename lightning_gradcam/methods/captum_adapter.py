"""The explained score as captum calls it: of many images at once, each with the row of the probe that it comes from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.capture.isolation import frozen
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe

AT_ONCE = 16
"""Images in one pass, whether of the probe or made from one of them: memory does not grow with samples or steps."""

_PATIENCE = 3.0  # seconds until a bar is shown

Score = Callable[[Probe, Sequence[int]], Tensor]
"""Of other images and the rows they come from to scores ``(n,)`` or ``(n, k)``, see `CapturedPass.scores`."""


@dataclass(frozen=True)
class CaptumScore:
    """What captum calls: ``(images (n, C, *s), rows (n,)) -> (n,)``. It repeats rows as it repeats images.

    Args:
        passes: Of the model and the probe.
        score: What is explained.
        advance: Told how many images have been seen.
    """

    passes: CapturedPass
    score: Score
    advance: Callable[[int], Any]

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """The scores, ``(n,)``; several of an image are explained together."""
        chosen, probe = rows.tolist(), self.passes.probe
        scores = self.score(replace(probe[chosen], images=images.to(probe.images.dtype)), chosen)
        self.advance(len(chosen))
        return scores.reshape(len(chosen), -1).sum(1)

    def portions(self, at_once: int = AT_ONCE) -> Iterator[tuple[Tensor, Tensor]]:
        """The probe's images, so many at once, in at least float32, and their rows."""
        images = self.passes.probe.images.detach()
        images = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
        for start in range(0, len(images), at_once):
            rows = torch.arange(start, min(start + at_once, len(images)))
            yield images[start : start + at_once], rows


@contextmanager
def adapt_for_captum(passes: CapturedPass, name: str, total: int, score: Score | None = None) -> Iterator[CaptumScore]:
    """What captum is given; inside, weights want no gradient, and there is a bar on a terminal where it takes long.

    Args:
        passes: Of the model and the probe.
        name: What the bar says.
        total: How many images there will be, of the probe and made from them.
        score: What is explained, by default the target's score for what it chose in the first pass.
    """
    from tqdm import tqdm  # which captum brings along

    with (
        frozen(passes.model),
        tqdm(total=total, desc=name, unit="img", leave=False, delay=_PATIENCE, disable=None) as bar,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", category=UserWarning, module="captum")  # on what it does by itself
        yield CaptumScore(passes, score or passes.scores, bar.update)


def make_gradient_func(
    forward_fn: CaptumScore,
    inputs: tuple[Tensor, ...],
    target_ind: None,  # noqa: ARG001  # the score is of one class already
    additional_forward_args: tuple[Tensor],
) -> tuple[Tensor, ...]:
    """What captum takes as ``gradient_func``: of the score with respect to images ``(n, C, *s)``.

    Raises:
        NotExplainableError: The graph from the images to the score is cut.
    """
    (images,), (rows,) = inputs, additional_forward_args
    with torch.enable_grad():
        total = forward_fn(images, rows).sum()
    gradients = torch.autograd.grad(total, images, allow_unused=True) if total.requires_grad else (None,)
    if gradients[0] is None:
        raise NotExplainableError(
            "No gradient of the score reaches the images, even with grad switched on: the model's forward or the "
            "target cuts the graph on the way (no_grad, detach, or a result computed outside of PyTorch). "
            "`method='occlusion'` needs no gradient, and layers behind the cut can be explained by `method='gradcam'`."
        )
    return gradients


def max_over_channels(gradients: Tensor) -> Tensor:
    """One number per place: the largest gradient ``(n, C, *s)`` of its channels, whatever its sign.

    Whether a brighter or a darker pixel raises the score speaks neither for nor against the class.

    Simonyan et al. 2014, arXiv:1312.6034, section 3.1.

    >>> max_over_channels(torch.tensor([[[1.0, 2.0], [-3.0, 0.5]]]))
    tensor([[3., 2.]])
    """
    return gradients.abs().amax(1)


def describe_method(name: str, method: Any) -> str:
    """How pictures and keys name a method with parameters: with those that are not as usual."""
    values = [(field.name, getattr(method, field.name), field.default) for field in fields(method)]
    own = [f"{what} {getattr(value, '__name__', value)}" for what, value, usual in values if value != usual]
    return f"{name} with {', '.join(own)}" if own else name
