"""Scores of embeddings: similarity of a pair, and norm."""

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
from lightning_gradcam.targets.unsupported import unsupported_output

EMBEDDING_NAMES = ("embeddings", "embedding", "image_embeds", "pooler_output", "features")


def find_embeddings(output: Any) -> Tensor:
    """Return the embeddings ``(n, D)`` in a model's output: a tensor, or the first one in a tuple, list or mapping.

    Items or attributes called ``embeddings``, ``embedding``, ``image_embeds``, ``pooler_output`` or ``features`` come
    first.

    Raises:
        NotExplainableError: The output has no embeddings.

    >>> import torch
    >>> find_embeddings({"loss": torch.zeros(()), "embedding": torch.ones(1, 2)})
    tensor([[1., 1.]])
    """
    embeddings = _find_matrix(output)
    if embeddings is None:
        raise unsupported_output("Expected embeddings of shape (N, D) in the model's output", output)
    return embeddings


def _find_matrix(output: Any) -> Tensor | None:
    """Return the first floating-point tensor of two dimensions, or None."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.ndim == 2 else None
    if isinstance(output, Mapping):
        items = [output[name] for name in (*EMBEDDING_NAMES, *output) if name in output]
    else:
        attributes = [getattr(output, name) for name in EMBEDDING_NAMES if hasattr(output, name)]
        items = attributes + (list(output) if isinstance(output, (tuple, list)) else [])
    return next((matrix for item in items if (matrix := _find_matrix(item)) is not None), None)


@dataclass(frozen=True)
class CosineSimilarity:
    r"""Cosine similarity of each image's embedding to its reference's: :math:`a \cdot b / (|a| |b|)`, in [-1, 1].

    The probe's ``references`` are embeddings ``(N, D)``, or images of the same shape as the probe's ``(N, C,
    *spatial)``. With images, both images of a pair run in one batch, and each has its own map; the keys of the
    reference's map end in ``/reference``. The map of one image explains the score with the other image's embedding
    held constant.

    >>> import torch
    >>> probe = Probe(torch.rand(1, 1, 4, 4), references=torch.tensor([[0.0, 2.0]]))
    >>> CosineSimilarity()(torch.tensor([[3.0, 3.0]]), probe)
    tensor([0.7071])
    """

    embeds = True

    @property
    def name(self) -> str:
        """Name in figures."""
        return "cosine similarity of the pair"

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """Compute the scores, ``(n,)``.

        Raises:
            ValueError: The probe has no references, or references of another shape.
        """
        embeddings = find_embeddings(output)
        if probe.references is None or probe.references.shape != embeddings.shape:
            raise ValueError(
                f"Expected `references` of shape {tuple(embeddings.shape)} in the probe, as the embeddings, or of "
                f"shape {tuple(probe.images.shape)}, as the images, but got {_describe_shape(probe.references)}."
            )
        return F.cosine_similarity(embeddings, probe.references.to(embeddings), dim=1)


def _describe_shape(references: Tensor | None) -> str:
    """Return the references' shape in words."""
    return "none" if references is None else f"those of shape {tuple(references.shape)}"


@dataclass(frozen=True)
class EmbeddingNorm:
    """Norm of each embedding before it is normalized: how much the image has of everything that the model detects.

    `check` raises a `NotExplainableError` if all embeddings have length 1.

    >>> import torch
    >>> EmbeddingNorm()(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), Probe(torch.rand(2, 1, 4, 4)))
    tensor([5., 1.])
    """

    embeds = True
    score_word = "norm"

    @property
    def name(self) -> str:
        """Name in figures."""
        return "norm of the embedding"

    def __call__(self, output: Any, _probe: Probe) -> Tensor:
        """Compute the scores, ``(n,)``."""
        return self._compute_norms(output)

    @staticmethod
    def _compute_norms(output: Any) -> Tensor:
        """Return the norms, ``(n,)``, before a last `F.normalize`."""
        embeddings = find_embeddings(output)
        unnormalized = find_softmax_input(embeddings, NORMALIZATIONS)
        norms: Tensor = (embeddings if unnormalized is None else unnormalized).norm(dim=1)
        return norms

    def check(self, output: Any) -> None:
        """Raise if all embeddings have length 1, so that the gradient of their norm is zero. (Waits for the device.)

        Raises:
            NotExplainableError: All embeddings have length 1.
        """
        if bool(((self._compute_norms(output) - 1).abs() < 1e-3).all()):
            raise NotExplainableError(
                "All embeddings have length 1: the model normalizes them, so the gradient of their norm is zero. Pass "
                "`forward=`, a callable of (model, probe) that returns them before normalization. (A last "
                "`F.normalize` is handled automatically, a division by the norm is not.)"
            )


def is_embedding_target(target: Target) -> bool:
    """Return whether the target reads the model's output as embeddings, not as logits."""
    return bool(getattr(target, "embeds", False))


def compares_images(target: Target, probe: Probe) -> bool:
    """Return whether the target explains both images of a pair."""
    return isinstance(target, CosineSimilarity) and probe.references is not None and probe.references.ndim > 2


def stack_pairs(probe: Probe) -> Probe:
    """Stack images and their references into one batch, where each image's reference is the other of its pair.

    Raises:
        ValueError: The references are images of another shape.

    >>> import torch
    >>> stack_pairs(Probe(torch.zeros(2, 1, 4, 4), references=torch.ones(2, 1, 4, 4))).references[:, 0, 0, 0]
    tensor([1., 1., 0., 0.])
    """
    references = probe.references
    if references is None or references.shape != probe.images.shape:
        raise ValueError(
            f"Expected `references` of shape {tuple(probe.images.shape)}, as the images, but got "
            f"{_describe_shape(references)}."
        )
    swapped = replace(probe, images=references.to(probe.images), references=probe.images)
    return Probe.cat([probe, swapped])


def with_partners(output: Any, pairs: Probe) -> Probe:
    """Replace the references of a `stack_pairs` batch by the partners' embeddings ``(2 N, D)``, without gradient."""
    embeddings = find_embeddings(output).detach()
    return replace(pairs, references=embeddings.roll(len(embeddings) // 2, 0))


@dataclass(frozen=True)
class MutualTarget:
    """Target of a `stack_pairs` batch: each image's score, with its partner's embedding held constant."""

    target: Target

    def __call__(self, output: Any, probe: Probe) -> Tensor:
        """Compute the scores, ``(2 n,)``."""
        return self.target(output, with_partners(output, probe))
