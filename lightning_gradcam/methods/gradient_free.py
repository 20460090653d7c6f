"""CAM methods without gradients: Score-CAM and Ablation-CAM weight channels by forward passes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.methods.base import METHODS, BasePassMethod
from lightning_gradcam.methods.cam import sum_weighted
from lightning_gradcam.methods.progress import show_progress

PROGRESS_DELAY = 2.0
"""Seconds until a progress bar appears."""

_INTERPOLATION_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class ChannelMethod(BasePassMethod):
    """Base class of the methods that run one forward pass per channel and image.

    Args:
        chunk: How many images run through the model at once.

    Raises:
        ValueError: ``chunk`` is not a positive integer.
    """

    chunk: int = 32

    def __post_init__(self) -> None:
        if not isinstance(self.chunk, int) or self.chunk < 1:
            raise ValueError(f"Expected `chunk` to be a positive integer, but got {self.chunk!r}.")

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return evidence ``(n, *s)`` per layer."""
        total = sum(activations.shape[0] * activations.shape[1] for activations in passes.activations.values())
        with show_progress(self.name, total, "pass", PROGRESS_DELAY) as advance:
            return {
                key: sum_weighted(self._compute_weights(passes, key, advance), activations)
                for key, activations in passes.activations.items()
            }

    @abstractmethod
    def _compute_weights(self, passes: CapturedPass, key: str, advance: Callable[[int], object]) -> Tensor:
        """Compute the channels' weights ``(n, C)`` at one layer; ``advance`` takes the number of finished passes."""


@dataclass(frozen=True)
class ScoreCAM(ChannelMethod):
    r"""Score-CAM: channels weighted by the score of the image masked by the channel.

    .. math:: \sum_k \operatorname{softmax}_k\big(S(x \cdot m_k)\big) A_k, \qquad
        m_k = \operatorname{minmax}\big(\operatorname{up}(A_k)\big)

    Wang et al. 2020, arXiv:1910.01279. The score is that of the target (the logit, for classes), channels are upsampled
    with aligned corners, and masks multiply the model's input, all as in pytorch-grad-cam: masked pixels of normalized
    images become the mean color, not black. The softmax is over the channels of one image. A constant channel masks
    the whole image.

    Costs one forward pass per channel and image.

    Args:
        chunk: How many masked images run through the model at once.

    Raises:
        ValueError: ``chunk`` is not a positive integer.

    >>> ScoreCAM(chunk=64)
    ScoreCAM(chunk=64)
    """

    name: ClassVar[str] = "scorecam"

    def _compute_weights(self, passes: CapturedPass, key: str, advance: Callable[[int], object]) -> Tensor:
        activations = passes.activations[key]
        count, channels = activations.shape[:2]
        pairs = [(sample, channel) for sample in range(count) for channel in range(channels)]
        scores = []
        for start in range(0, len(pairs), self.chunk):
            sample_indices, channel_indices = zip(*pairs[start : start + self.chunk], strict=True)
            probe = passes.probe[sample_indices]
            masks = make_masks(activations[list(sample_indices), list(channel_indices)], passes.probe.size)
            masked = replace(probe, images=masks.to(probe.images.dtype) * probe.images)
            scores.append(sum_scores(passes.scores(masked, sample_indices)))
            advance(len(sample_indices))
        return torch.cat(scores).reshape(count, channels).softmax(1)


@dataclass(frozen=True)
class AblationCAM(ChannelMethod):
    r"""Ablation-CAM: channels weighted by the fraction of the score that is lost without them.

    .. math:: \sum_k \frac{S - S_k}{|S|}\, A_k, \qquad S_k = S \text{ with } A_k = 0

    Desai and Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360. The paper divides by :math:`S`, which inverts the map
    of a negative score; here it is :math:`|S|`. Channels are set to zero, as in the paper; pytorch-grad-cam sets them
    to -10,000,000 where no activation of the layer is zero. Of tokens, only patch tokens are ablated.

    Costs one pass per channel and image, from the layer on: the modules before the layer run once, see
    `passes.ForwardFromLayer`.

    Args:
        chunk: How many passes run at once.

    Raises:
        ValueError: ``chunk`` is not a positive integer.

    >>> AblationCAM(chunk=8)
    AblationCAM(chunk=8)
    """

    name: ClassVar[str] = "ablationcam"

    def _compute_weights(self, passes: CapturedPass, key: str, advance: Callable[[int], object]) -> Tensor:
        count = len(passes.activations[key])
        return torch.stack([self._compute_loss_fractions(passes, key, sample, advance) for sample in range(count)])

    def _compute_loss_fractions(
        self, passes: CapturedPass, key: str, sample: int, advance: Callable[[int], object]
    ) -> Tensor:
        """Compute the fraction ``(C,)`` of one image's score that is lost without each channel."""
        score_from_layer, scores = passes.scores_from_layer(key, sample), []
        ablations = [None, *range(passes.activations[key].shape[1])]  # the unchanged output comes first
        for start in range(0, len(ablations), self.chunk):
            channels = ablations[start : start + self.chunk]
            scores.append(sum_scores(score_from_layer(len(channels), Ablation(channels, passes.layers[key]))))
            advance(len(channels) - (start == 0))
        unchanged, ablated = torch.cat(scores).tensor_split([1])
        return (unchanged - ablated) / torch.where(unchanged == 0, 1, unchanged.abs())


@dataclass(frozen=True)
class Ablation:
    """Ablation of one channel per sample in a layer's output, in any tensor layout.

    Args:
        channels: The channel of each sample that becomes zero; None leaves the sample unchanged.
        layer: The layer of the output.

    >>> Ablation([1, None], Layer("conv"))(torch.ones(2, 3, 1))[..., 0]
    tensor([[1., 0., 1.],
            [1., 1., 1.]])
    """

    channels: Sequence[int | None]
    layer: Layer

    def __call__(self, output: Tensor) -> Tensor:
        """Return the output with the channels set to zero."""
        pairs = [(sample, channel) for sample, channel in enumerate(self.channels) if channel is not None]
        if not pairs:
            return output
        with torch.enable_grad():
            # The gradient of a grid channel marks the entries of the output that it consists of, whatever the layout.
            leaf = output.detach().clone().requires_grad_()
            samples, channels = map(list, zip(*pairs, strict=True))
            [entries] = torch.autograd.grad(self.layer.to_grid(leaf)[samples, channels].sum(), leaf)
        return output.masked_fill(entries != 0, 0)


def make_masks(channels: Tensor, size: tuple[int, ...]) -> Tensor:
    """Upsample channels ``(m, *s)`` to ``size`` and scale each to [0, 1], as ``(m, 1, *size)``; constant ones are zero.

    >>> make_masks(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), (3,))[:, 0]
    tensor([[0.0000, 0.5000, 1.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    upsampled = F.interpolate(channels[:, None], size, mode=_INTERPOLATION_MODES[len(size)], align_corners=True)
    low, high = (end.reshape(-1, *[1] * (upsampled.ndim - 1)) for end in upsampled.flatten(1).aminmax(dim=1))
    channel_low, channel_high = channels.flatten(1).aminmax(dim=1)
    # Upsampling makes a constant channel constant only up to rounding, so the channel itself is compared as well.
    is_constant = (channel_low == channel_high).reshape(low.shape) | (low == high)
    return torch.where(is_constant, 0, (upsampled - low) / torch.where(is_constant, 1, high - low))


def sum_scores(scores: Tensor) -> Tensor:
    """Sum scores ``(m,)`` or ``(m, k)`` to ``(m,)``, in at least float32.

    >>> sum_scores(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([3., 7.])
    """
    total = scores.detach().reshape(len(scores), -1).sum(1)
    return total if total.dtype == torch.float64 else total.float()


METHODS.register("scorecam")(ScoreCAM())
METHODS.register("ablationcam")(AblationCAM())
