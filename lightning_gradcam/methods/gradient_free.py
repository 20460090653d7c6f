"""Methods of forward passes only: how much the score hangs on each channel of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.methods.base import METHODS
from lightning_gradcam.methods.cam import sum_weighted

PATIENCE = 2.0
"""Seconds after which a bar says how far a method is."""

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class ScoreCAM:
    r"""Score-CAM: channels weighted by the score of the image of which only their part is left.

    .. math:: \sum_k \operatorname{softmax}_k\big(S(x \cdot m_k)\big) A_k, \qquad
        m_k = \operatorname{minmax}\big(\operatorname{up}(A_k)\big)

    Wang et al. 2020, arXiv:1910.01279, with the score as the target says it (for classes, the logit), as in
    pytorch-grad-cam. As there, channels are enlarged with their corners on those of the image, and masks multiply what
    the model takes: of normalised images, what is masked becomes the mean colour, not black. The softmax is over the
    channels of one image. A channel that is the same everywhere masks all of the image.

    One forward pass for each channel and image.

    Args:
        chunk: How many masked images are put through the model at once.

    >>> ScoreCAM(chunk=64)
    ScoreCAM(chunk=64)
    """

    name: ClassVar[str] = "scorecam"

    chunk: int = 32

    def __post_init__(self) -> None:
        _check_chunk(self.chunk)

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *s)`` per layer."""
        evidence = {}
        with _bar(self.name, passes) as done:
            for key, activations in passes.activations.items():
                scores = self._scores(passes, activations, done)
                evidence[key] = sum_weighted(scores.softmax(1), activations)
        return evidence

    def _scores(self, passes: CapturedPass, activations: Tensor, done: Callable[[int], object]) -> Tensor:
        """``(n, C)``, of the images masked by each channel."""
        images, channels = activations.shape[:2]
        pairs = [(row, channel) for row in range(images) for channel in range(channels)]
        found = []
        for at in range(0, len(pairs), self.chunk):
            rows, numbers = zip(*pairs[at : at + self.chunk], strict=True)
            probe = passes.probe[rows]
            masked = (
                make_masks(activations[list(rows), list(numbers)], passes.probe.size).to(probe.images.dtype)
                * probe.images
            )
            found.append(_total(passes.scores(replace(probe, images=masked), rows)))
            done(len(rows))
        return torch.cat(found).reshape(images, channels)


@dataclass(frozen=True)
class AblationCAM:
    r"""Ablation-CAM: channels weighted by the share of the score that is lost without them.

    .. math:: \sum_k \frac{S - S_k}{|S|}\, A_k, \qquad S_k = S \text{ with } A_k = 0

    Desai and Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360; there the score has no bars, which turns the map over
    where it is negative. Channels are set to zero, as in the paper; pytorch-grad-cam sets them to minus ten million
    where no activation of the layer is zero. Of tokens, those of patches are.

    One pass for each channel and image, from the layer on: what comes before runs once (see `passes.ForwardFromLayer`).

    Args:
        chunk: How many passes are made at once.

    >>> AblationCAM(chunk=8)
    AblationCAM(chunk=8)
    """

    name: ClassVar[str] = "ablationcam"

    chunk: int = 32

    def __post_init__(self) -> None:
        _check_chunk(self.chunk)

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *s)`` per layer."""
        evidence = {}
        with _bar(self.name, passes) as done:
            for key, activations in passes.activations.items():
                rows = range(len(activations))
                lost = torch.stack([self._lost(passes, key, row, activations.shape[1], done) for row in rows])
                evidence[key] = sum_weighted(lost, activations)
        return evidence

    def _lost(self, passes: CapturedPass, key: str, row: int, channels: int, done: Callable[[int], object]) -> Tensor:
        """``(C,)``: the share of one image's score that is lost without each channel."""
        scores, found = passes.scores_from_layer(key, row), []
        everyone = [None, *range(channels)]  # the whole comes first
        for at in range(0, len(everyone), self.chunk):
            some = everyone[at : at + self.chunk]
            found.append(_total(scores(len(some), Ablation(some, passes.layers[key]))))
            done(len(some) - (at == 0))
        left = torch.cat(found)
        whole = left[0]
        return (whole - left[1:]) / torch.where(whole == 0, 1, whole.abs())


@dataclass(frozen=True)
class Ablation:
    """Sets a channel of each row of a layer's output to zero, wherever it lies there.

    Args:
        channels: One per row; None leaves it as it is.
        layer: Whose output it is.

    >>> Ablation([1, None], Layer("conv"))(torch.ones(2, 3, 1))[..., 0]
    tensor([[1., 0., 1.],
            [1., 1., 1.]])
    """

    channels: Sequence[int | None]
    layer: Layer

    def __call__(self, output: Tensor) -> Tensor:
        """The output without them."""
        gone = [(row, channel) for row, channel in enumerate(self.channels) if channel is not None]
        if not gone:
            return output
        with torch.enable_grad():
            # What a channel of the grid is made of has a gradient there, whatever the layout.
            leaf = output.detach().clone().requires_grad_()
            rows, channels = map(list, zip(*gone, strict=True))
            [there] = torch.autograd.grad(self.layer.to_grid(leaf)[rows, channels].sum(), leaf)
        return output.masked_fill(there != 0, 0)


def make_masks(channels: Tensor, size: tuple[int, ...]) -> Tensor:
    """Channels ``(m, *s)`` enlarged to ``size``, each from 0 to 1, as ``(m, 1, *size)``; zero where one is constant.

    >>> make_masks(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), (3,))[:, 0]
    tensor([[0.0000, 0.5000, 1.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    large = F.interpolate(channels[:, None], size, mode=_MODES[len(size)], align_corners=True)
    low, high = (end.reshape(-1, *[1] * (large.ndim - 1)) for end in large.flatten(1).aminmax(dim=1))
    low_before, high_before = channels.flatten(1).aminmax(dim=1)
    constant = (low_before == high_before).reshape(low.shape) | (low == high)  # enlarged, it is so up to rounding
    return torch.where(constant, 0, (large - low) / torch.where(constant, 1, high - low))


def _check_chunk(chunk: int) -> None:
    if not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"Expected `chunk` to be a number of passes from 1, but got {chunk!r}.")


def _total(scores: Tensor) -> Tensor:
    """Scores ``(m,)``, or ``(m, k)`` that are explained together, as ``(m,)`` in at least float32."""
    total = scores.detach().reshape(len(scores), -1).sum(1)
    return total if total.dtype == torch.float64 else total.float()


@contextmanager
def _bar(name: str, passes: CapturedPass) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal where it takes long; what is yielded takes how many passes more are done."""
    from tqdm import tqdm  # not needed by who asks for other methods

    total = sum(activations.shape[0] * activations.shape[1] for activations in passes.activations.values())
    with tqdm(desc=name, total=total, unit="pass", delay=PATIENCE, leave=False, disable=None) as bar:
        yield bar.update


METHODS.register("scorecam")(ScoreCAM())
METHODS.register("ablationcam")(AblationCAM())
