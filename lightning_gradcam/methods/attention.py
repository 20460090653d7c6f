"""Methods on all attention matrices of a pass: attention rollout and gradient-weighted attention relevance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import ATTENTION
from lightning_gradcam.capture.layouts import Tokens
from lightning_gradcam.capture.passes import AttentionMap, CapturedPass
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods.base import METHODS, BasePassMethod

_HEAD_FUSIONS = {"mean": lambda a: a.mean(1), "max": lambda a: a.amax(1), "min": lambda a: a.amin(1)}


@dataclass(frozen=True)
class Rollout(BasePassMethod):
    r"""Attention rollout: how much of each patch reaches the token that the classifier reads.

    .. math:: R = \hat A_L \cdots \hat A_1, \qquad \hat A = \operatorname{rows}\big(\operatorname{fuse}_h A_h + I\big)

    Abnar and Zuidema 2020, arXiv:2005.00928. Rows are normalized to sum up to 1; the identity stands for the residual
    connection. The map is the same for every class. Costs one more forward pass, without gradients.

    Args:
        head_fusion: How the heads are fused: ``"mean"`` (as in the paper), ``"max"`` or ``"min"``.
        discard_ratio: The fraction of each matrix's entries that are set to zero, the smallest first, in [0, 1).
        reader: The token that the classifier reads: ``"class"``, the first token; ``"mean"``, the mean of all patch
            tokens; or ``"auto"``, the class token if there are tokens other than patches.

    Raises:
        ValueError: An option is unknown, or the ratio is out of range.

    >>> Rollout("max", discard_ratio=0.9).name
    'rollout, max of heads, 0.9 discarded'
    """

    location: ClassVar[str] = ATTENTION

    head_fusion: Literal["mean", "max", "min"] = "mean"
    discard_ratio: float = 0.0
    reader: Literal["auto", "class", "mean"] = "auto"

    def __post_init__(self) -> None:
        if self.head_fusion not in _HEAD_FUSIONS:
            raise ValueError(f"Expected `head_fusion` to be 'mean', 'max' or 'min', but got {self.head_fusion!r}.")
        if not 0 <= self.discard_ratio < 1:
            raise ValueError(f"Expected `discard_ratio` in [0, 1), but got {self.discard_ratio!r}.")
        _check_reader(self.reader)

    @property
    def name(self) -> str:
        """The name in figures and keys, with the options that differ from their defaults."""
        heads = "" if self.head_fusion == "mean" else f", {self.head_fusion} of heads"
        discarded = f", {self.discard_ratio:g} discarded" if self.discard_ratio else ""
        return "rollout" + heads + discarded + ("" if self.reader == "auto" else f", {self.reader}")

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return non-negative evidence ``(n, *grid)``."""
        tokens = _get_tokens(passes)
        attention_maps = passes.attention()
        check_global_attention(attention_maps, len(passes.probe), tokens)
        matrices = [
            discard_smallest(_HEAD_FUSIONS[self.head_fusion](attention.weights), self.discard_ratio)
            for attention in attention_maps
        ]
        return {ATTENTION: read_attention(compute_rollout(matrices), tokens, self.reader)}


@dataclass(frozen=True)
class AttentionRelevance(BasePassMethod):
    r"""Attention relevance: attention weighted by its positive gradients, propagated to the token of the classifier.

    .. math:: R \leftarrow R + \operatorname{mean}_h \operatorname{relu}(\nabla A_h \odot A_h)\, R, \qquad R_0 = I

    Chefer et al. 2021, arXiv:2103.15679, the rule for self-attention (equations 5 and 6). Costs one more forward pass
    and a full backward pass, which keeps all tensors after the first attention in memory.

    Args:
        reader: The token that the classifier reads, see `Rollout`.

    Raises:
        ValueError: The option is unknown.
    """

    location: ClassVar[str] = ATTENTION

    reader: Literal["auto", "class", "mean"] = "auto"

    def __post_init__(self) -> None:
        _check_reader(self.reader)

    @property
    def name(self) -> str:
        """The name in figures and keys, with the options that differ from their defaults."""
        return "attention_relevance" + ("" if self.reader == "auto" else f", {self.reader}")

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return non-negative evidence ``(n, *grid)``."""
        tokens = _get_tokens(passes)
        attention_maps = passes.attention(gradients=True)
        check_global_attention(attention_maps, len(passes.probe), tokens)
        return {ATTENTION: read_attention(compute_relevance(attention_maps), tokens, self.reader)}


def compute_rollout(matrices: Sequence[Tensor]) -> Tensor:
    """Multiply attention matrices ``(n, L, L)``, each plus the identity and row-normalized, the first rightmost.

    >>> compute_rollout([torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])] * 2)
    tensor([[[0.2500, 0.7500],
             [0.0000, 1.0000]]])
    """
    first = matrices[0]
    identity = product = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)
    for matrix in matrices:
        residual = matrix + identity
        product = residual / residual.sum(-1, keepdim=True) @ product
    return product


def discard_smallest(attention: Tensor, ratio: float) -> Tensor:
    """Set a fraction of the entries of each matrix ``(n, L, L)`` to zero, the smallest first.

    >>> discard_smallest(torch.tensor([[[0.1, 0.9], [0.4, 0.6]]]), 0.5)
    tensor([[[0.0000, 0.9000],
             [0.0000, 0.6000]]])
    """
    flat = attention.flatten(1)
    smallest = flat.argsort(stable=True, dim=1)[:, : int(ratio * flat.shape[1])]
    return flat.scatter(1, smallest, 0).reshape(attention.shape)


def compute_relevance(attention_maps: Sequence[AttentionMap]) -> Tensor:
    """Compute the relevance ``(n, L, L)`` of each token (last dimension) for each token, see `AttentionRelevance`."""
    first = attention_maps[0].weights
    total = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device).expand(len(first), -1, -1)
    for attention in attention_maps:
        assert attention.gradient is not None
        total = total + (attention.gradient * attention.weights).relu().mean(1) @ total
    return total


def read_attention(matrix: Tensor, tokens: Tokens, reader: str) -> Tensor:
    """Return the row of the token that the classifier reads, on the grid of patches ``(n, *grid)``.

    Args:
        matrix: ``(n, L, L)``, from each token (last dimension) to each token.
        tokens: The layout of the tokens.
        reader: ``"class"``, ``"mean"`` or ``"auto"``, see `Rollout`.

    >>> read_attention(torch.arange(9.0).reshape(1, 3, 3), Tokens((2,), extra=1), "auto")
    tensor([[1., 2.]])
    """
    has_class_token = reader == "class" or (reader == "auto" and tokens.prefix > 0)
    patches = matrix[:, tokens.prefix : matrix.shape[1] - tokens.suffix]
    row = matrix[:, 0] if has_class_token else patches.mean(1)
    return replace(tokens, rows=0)(row[..., None])[:, 0]


def _check_reader(reader: str) -> None:
    if reader not in ("auto", "class", "mean"):
        raise ValueError(f"Expected `reader` to be 'auto', 'class' or 'mean', but got {reader!r}.")


def _get_tokens(passes: CapturedPass) -> Tokens:
    tokens = passes.elsewhere[ATTENTION].to_grid
    assert isinstance(tokens, Tokens)
    return tokens


def check_global_attention(attention_maps: Sequence[AttentionMap], images: int, tokens: Tokens) -> None:
    """Check that every attention matrix is over all tokens of an image, so that the matrices can be multiplied.

    Args:
        attention_maps: All attention of a pass.
        images: The number of images in the pass.
        tokens: The layout of the tokens.

    Raises:
        NotExplainableError: An attention is windowed, not square, or over another number of tokens.
    """
    length = tokens.extra + math.prod(tokens.grid)
    for attention in attention_maps:
        shape = tuple(attention.weights.shape)
        n, _, queries, keys = shape
        if n != images:
            reason = f"of shape {shape} for {images} images, which is windowed attention, as in Swin"
        elif queries != keys:
            reason = f"of shape {shape}, which is not square: queries and keys are different tokens"
        elif queries != length:
            reason = f"over {queries} tokens instead of {length} ({tokens.extra} and a grid of {tokens.grid})"
        else:
            continue
        raise NotExplainableError(
            f"Expected attention over all tokens in every layer, but got one {reason}. Use a method that is computed "
            "at layers, for example `method='gradcam'` or `method='layercam'`."
        )


METHODS.register("rollout")(Rollout())
METHODS.register("attention_relevance")(AttentionRelevance())
