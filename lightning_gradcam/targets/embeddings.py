"""Scores of embeddings: how similar two are, and how long one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lightning_gradcam.capture.pre_softmax import NORMALIZATIONS, find_softmax_input
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target

_NAMES = ("embeddings", "embedding", "image_embeds", "pooler_output", "features")


def find_embeddings(output: Any) -> Tensor:
    """The embeddings ``(n, D)`` in what a model returned: a tensor, or the first such one in a tuple, list or mapping.

    What a mapping or an object calls ``embeddings``, ``embedding``, ``image_embeds``, ``pooler_output`` or
    ``features`` comes first.

    Raises:
        NotExplainableError: There are none.

    >>> import torch
    >>> find_embeddings({"loss": torch.zeros(()), "embedding": torch.ones(1, 2)})
    tensor([[1., 1.]])
    """
    found = _find(output)
    if found is None:
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        raise NotExplainableError(
            f"Expected embeddings of shape (N, D) in the model's output, but got a {type(output).__name__}{shape}. "
            "Pass `forward=`, a callable of (model, probe) that returns them."
        )
    return found


def _find(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.ndim == 2 else None
    if isinstance(output, Mapping):
        items = [output[name] for name in (*_NAMES, *output) if name in output]
    else:
        named = [getattr(output, name) for name in _NAMES if hasattr(output, name)]
        items = named + (list(output) if isinstance(output, (tuple, list)) else [])
    return next((found for item in items if (found := _find(item)) is not None), None)


@dataclass(frozen=True)
class CosineSimilarity:
    r"""How similar the embedding of each image is to that of its reference: :math:`a \cdot b / (|a| |b|)`, in [-1, 1].

    The probe's ``references`` are embeddings ``(N, D)``; or images as the others ``(N, C, *spatial)``: then both sides
    run as one batch, and each has a map of its own, the reference's under a key that ends in ``/reference``. The map of
    one side is that of the score with the other side's embedding as it is.

    >>> import torch
    >>> probe = Probe(torch.rand(1, 1, 4, 4), references=torch.tensor([[0.0, 2.0]]))
    >>> CosineSimilarity()(torch.tensor([[3.0, 3.0]]), probe)
    tensor([0.7071])
    """

    embeds = True

    @property
    def name(self) -> str:
        """How pictures name it."""
        return "cosine similarity of the pair"

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """The scores, ``(n,)``.

        Raises:
            ValueError: The probe has no references, or other ones.
        """
        embeddings = find_embeddings(output)
        if probe.references is None or probe.references.shape != embeddings.shape:
            got = "none" if probe.references is None else f"those of shape {tuple(probe.references.shape)}"
            raise ValueError(
                f"Expected `references` of shape {tuple(embeddings.shape)} in the probe, as the embeddings are, or of "
                f"shape {tuple(probe.images.shape)}, as the images are, but got {got}."
            )
        return F.cosine_similarity(embeddings, probe.references.to(embeddings), dim=1)


@dataclass(frozen=True)
class EmbeddingNorm:
    """How long each embedding is before it is normalised: what the image has of anything that the model looks for.

    Raises:
        NotExplainableError: When called: all embeddings have the same length.

    >>> import torch
    >>> EmbeddingNorm()(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), Probe(torch.rand(2, 1, 4, 4)))
    tensor([5., 1.])
    """

    embeds = True

    @property
    def name(self) -> str:
        """How pictures name it."""
        return "norm of the embedding"

    def __call__(self, output: Any, _probe: Probe) -> Tensor:
        """The scores, ``(n,)``."""
        return self._lengths(output)

    @staticmethod
    def _lengths(output: Any) -> Tensor:
        found = find_embeddings(output)
        given = find_softmax_input(found, NORMALIZATIONS)
        lengths: Tensor = (found if given is None else given).norm(dim=1)
        return lengths

    def check(self, output: Any) -> None:
        """Raise where all embeddings have length 1, so that no gradient tells anything. (Waits for the device.)

        Raises:
            NotExplainableError: With the remedy.
        """
        if bool(((self._lengths(output) - 1).abs() < 1e-3).all()):
            raise NotExplainableError(
                "All embeddings have length 1: the model normalises them, and behind that the gradient of their length "
                "is zero. Pass `forward=`, a callable of (model, probe) that returns them before (`F.normalize` at the "
                "end is seen through; a division by the norm is not)."
            )


def is_embedding_target(target: Target) -> bool:
    """Whether the model's output is embeddings to it, and no logits."""
    return bool(getattr(target, "embeds", False))


def compares_images(target: Target, probe: Probe) -> bool:
    """Whether it explains both images of a pair."""
    return isinstance(target, CosineSimilarity) and probe.references is not None and probe.references.ndim > 2


def stack_pairs(probe: Probe) -> Probe:
    """The images, and behind them their references, as one batch of pairs: every row has its partner as reference.

    Raises:
        ValueError: The references are images of another shape.

    >>> import torch
    >>> stack_pairs(Probe(torch.zeros(2, 1, 4, 4), references=torch.ones(2, 1, 4, 4))).references[:, 0, 0, 0]
    tensor([1., 1., 0., 0.])
    """
    references = probe.references
    if references is None or references.shape != probe.images.shape:
        got = "none" if references is None else f"those of shape {tuple(references.shape)}"
        raise ValueError(f"Expected `references` of shape {tuple(probe.images.shape)}, as the images, but got {got}.")
    swapped = replace(probe, images=references.to(probe.images), references=probe.images)
    return Probe.cat([probe, swapped])


def with_partners(output: Any, pairs: Probe) -> Probe:
    """The batch of `stack_pairs` with the partners' embeddings ``(2 N, D)`` for references, which are held fixed."""
    embeddings = find_embeddings(output).detach()
    return replace(pairs, references=embeddings.roll(len(embeddings) // 2, 0))


@dataclass(frozen=True)
class MutualTarget:
    """A target of pairs in a batch of `stack_pairs`: each side's score, with the other side as it is."""

    target: Target

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """The scores, ``(2 n,)``."""
        return self.target(output, with_partners(output, probe))
