"""Methods of all attention of a pass: what reaches the token that the score is read from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import ATTENTION, Tokens
from lightning_gradcam.capture.passes import AttentionMap, CapturedPass
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods.base import METHODS

_FUSIONS = {"mean": lambda a: a.mean(1), "max": lambda a: a.amax(1), "min": lambda a: a.amin(1)}


@dataclass(frozen=True)
class Rollout:
    r"""Attention rollout: how much of each patch reaches the token that the score is read from; for any class the same.

    .. math:: R = \hat A_L \cdots \hat A_1, \qquad \hat A = \operatorname{rows}\big(\operatorname{fuse}_h A_h + I\big)

    Abnar and Zuidema 2020, arXiv:2005.00928. Rows are divided by their sums; the identity is the residual connection.
    One more forward pass, which no gradient is asked of.

    Args:
        head_fusion: One matrix of several heads: their ``"mean"`` (the paper's), ``"max"`` or ``"min"``.
        discard_ratio: The share of a matrix's entries, the smallest, that count as zero, in [0, 1).
        reader: The token that the score is read from: ``"class"``, the first; ``"mean"`` of all patches; or ``"auto"``,
            the class token where there are tokens that are no patches.

    Raises:
        ValueError: A choice is unknown, or the ratio out of range.

    >>> Rollout("max", discard_ratio=0.9).name
    'rollout, max of heads, 0.9 discarded'
    """

    place: ClassVar[str] = ATTENTION

    head_fusion: Literal["mean", "max", "min"] = "mean"
    discard_ratio: float = 0.0
    reader: Literal["auto", "class", "mean"] = "auto"

    def __post_init__(self) -> None:
        if self.head_fusion not in _FUSIONS:
            raise ValueError(f"Expected `head_fusion` to be 'mean', 'max' or 'min', but got {self.head_fusion!r}.")
        if not 0 <= self.discard_ratio < 1:
            raise ValueError(f"Expected `discard_ratio` in [0, 1), but got {self.discard_ratio!r}.")
        _check_reader(self.reader)

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        heads = "" if self.head_fusion == "mean" else f", {self.head_fusion} of heads"
        discarded = f", {self.discard_ratio:g} discarded" if self.discard_ratio else ""
        return "rollout" + heads + discarded + ("" if self.reader == "auto" else f", {self.reader}")

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *grid)``, never negative."""
        tokens = _tokens(passes)
        attention = _checked(passes.attention(), len(passes.probe), tokens)
        fused = [_FUSIONS[self.head_fusion](each.weights) for each in attention]
        return {
            ATTENTION: read_attention(
                rollout([discard_smallest(each, self.discard_ratio) for each in fused]), tokens, self.reader
            )
        }


@dataclass(frozen=True)
class AttentionRelevance:
    r"""Attention weighted by the gradient: what of each patch, on its way to the last token, speaks for the score.

    .. math:: R \leftarrow R + \operatorname{mean}_h \operatorname{relu}(\nabla A_h \odot A_h)\, R, \qquad R_0 = I

    The rule for self-attention of Chefer et al. 2021, arXiv:2103.15679 (equations 5 and 6). One more forward pass and a
    whole backward pass, for which all behind the first attention is kept.

    Args:
        reader: The token that the score is read from, see `Rollout`.

    Raises:
        ValueError: The choice is unknown.
    """

    place: ClassVar[str] = ATTENTION

    reader: Literal["auto", "class", "mean"] = "auto"

    def __post_init__(self) -> None:
        _check_reader(self.reader)

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        return "attention_relevance" + ("" if self.reader == "auto" else f", {self.reader}")

    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Evidence ``(n, *grid)``, never negative."""
        tokens = _tokens(passes)
        return {
            ATTENTION: read_attention(
                relevance(_checked(passes.attention(gradients=True), len(passes.probe), tokens)), tokens, self.reader
            )
        }


def rollout(attention: Sequence[Tensor]) -> Tensor:
    """The product ``(n, L, L)`` of matrices of that shape, the first on the right, each with the identity, normalised.

    >>> rollout([torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])] * 2)
    tensor([[[0.2500, 0.7500],
             [0.0000, 1.0000]]])
    """
    total = torch.eye(attention[0].shape[-1], dtype=attention[0].dtype, device=attention[0].device)
    for each in attention:
        mixed = each + torch.eye(each.shape[-1], dtype=each.dtype, device=each.device)
        total = mixed / mixed.sum(-1, keepdim=True) @ total
    return total


def discard_smallest(attention: Tensor, ratio: float) -> Tensor:
    """Matrices ``(n, L, L)``, in each of which the smallest entries, that share of all, are zero.

    >>> discard_smallest(torch.tensor([[[0.1, 0.9], [0.4, 0.6]]]), 0.5)
    tensor([[[0.0000, 0.9000],
             [0.0000, 0.6000]]])
    """
    flat = attention.flatten(1)
    smallest = flat.argsort(stable=True, dim=1)[:, : int(ratio * flat.shape[1])]
    return flat.scatter(1, smallest, 0).reshape(attention.shape)


def relevance(attention: Sequence[AttentionMap]) -> Tensor:
    """What `AttentionRelevance` sums up, ``(n, L, L)``."""
    first = attention[0].weights
    total = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device).expand(len(first), -1, -1)
    for each in attention:
        assert each.gradient is not None
        total = total + (each.gradient * each.weights).relu().mean(1) @ total
    return total


def read_attention(matrix: Tensor, tokens: Tokens, reader: str) -> Tensor:
    """The patches' part ``(n, *grid)`` of what reaches the token that the score is read from.

    >>> read_attention(torch.arange(9.0).reshape(1, 3, 3), Tokens((2,), extra=1), "auto")
    tensor([[1., 2.]])
    """
    from_class = reader == "class" or (reader == "auto" and tokens.extra > 0)
    row = matrix[:, 0] if from_class else matrix[:, tokens.extra :].mean(1)
    return replace(tokens, rows=0)(row[..., None])[:, 0]


def _check_reader(reader: str) -> None:
    if reader not in ("auto", "class", "mean"):
        raise ValueError(f"Expected `reader` to be 'auto', 'class' or 'mean', but got {reader!r}.")


def _tokens(passes: CapturedPass) -> Tokens:
    tokens = passes.elsewhere[ATTENTION].to_grid
    assert isinstance(tokens, Tokens)
    return tokens


def _checked(attention: Sequence[AttentionMap], rows: int, tokens: Tokens) -> Sequence[AttentionMap]:
    """All attention, where it is that of all tokens to all tokens.

    Raises:
        NotExplainableError: With the reason.
    """
    length = tokens.extra + math.prod(tokens.grid)
    for each in attention:
        n, _, receivers, senders = each.weights.shape
        shape = tuple(each.weights.shape)
        if n != rows:
            why = f"of shape {shape} for {rows} images is attention inside of windows, as Swin has it"
        elif receivers != senders:
            why = f"of shape {shape} is not square: queries are other tokens than keys"
        elif receivers != length:
            why = f"is over {receivers} tokens, where {length} ({tokens.extra} and a grid of {tokens.grid}) are read"
        else:
            continue
        raise NotExplainableError(
            f"Expected attention of all tokens to all tokens, layer after layer, but one {why}: there is no product of "
            "these. Choose a method that is read at layers, 'gradcam' or 'layercam' say."
        )
    return attention


METHODS.register("rollout")(Rollout())
METHODS.register("attention_relevance")(AttentionRelevance())
