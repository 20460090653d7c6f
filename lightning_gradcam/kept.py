"""What is kept of an explanation, to be compared with: the data of a baseline, and how a file holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.explanation import FLAWS, Explanation
from lightning_gradcam.probe import Pixels
from lightning_gradcam.trace import Layer


class IncompatibleError(ValueError):
    """Two baselines, or a baseline and a model, cannot be compared; the message says why and what to do."""


@dataclass(frozen=True)
class About:
    """What a baseline is of, in plain values.

    Args:
        methods: Names of the methods.
        layers: Names of the layers, as `layers=` takes them.
        target: What was explained, in words.
        pixels: The normalisation of the images, where known.
        probe: The hash of the images, see `identity.pixels_hash`.
        weights: The hash of the weights.
        surroundings: Versions, device and number format.
        noise: 1 - the least mean rank correlation when the same model explains the same images in other batch sizes;
            None where it was recorded like another one.
        recorded: When, in UTC.
    """

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    target: str
    pixels: Pixels | None
    probe: str
    weights: str
    surroundings: Mapping[str, str]
    noise: float | None
    recorded: str


@dataclass(frozen=True)
class Kept:
    """Explanations of fixed images, on the CPU.

    Args:
        explanation: What was found.
        images: ``(N, C, *spatial)`` float32 before normalisation, where they are kept.
        labels: ``(N,)`` where there are any.
        about: What it is of.
    """

    explanation: Explanation
    images: Tensor | None
    labels: Tensor | None
    about: About

    def __len__(self) -> int:
        return len(self.explanation.logits)


def to_file(kept: Kept) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what JSON can say."""
    explanation = kept.explanation
    keys = list(explanation.evidence)
    tensors = {"logits": explanation.logits}
    for i, key in enumerate(keys):
        tensors |= {f"evidence.{i}": explanation.evidence[key], f"flaws.{i}": explanation.flaws[key]}
    optional = {"classes": explanation.classes, "labels": kept.labels, "images": kept.images}
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    places = [[layer.name, layer.call, layer.reason] for layer in (explanation.layers[key] for key in keys)]
    return tensors, {**asdict(kept.about), "keys": keys, "places": places, "size": list(explanation.size)}


def from_file(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Kept:
    """What `to_file` was given, where all parts fit together; any error that Python knows of where they do not."""
    about = dict(facts)
    keys, places, size = about.pop("keys"), about.pop("places"), tuple(about.pop("size"))
    count = len(tensors["logits"])
    evidence = {key: tensors[f"evidence.{i}"] for i, key in enumerate(keys)}
    flaws = {key: tensors[f"flaws.{i}"] for i, key in enumerate(keys)}
    if not keys or any(
        len(t) != count or t.ndim != len(size) + 1 or t.dtype != torch.float32 for t in evidence.values()
    ):
        raise ValueError("evidence")
    if any(t.shape != (count,) or t.dtype != torch.uint8 or int(t.max()) >= len(FLAWS) for t in flaws.values()):
        raise ValueError("flaws")
    images, labels, classes = (tensors.get(name) for name in ("images", "labels", "classes"))
    if any(t is not None and (t.shape != (count,) or t.dtype != torch.int64) for t in (labels, classes)):
        raise ValueError("classes")
    if not 1 <= len(size) <= 3 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError("size")
    if tensors["logits"].ndim != 2 or tensors["logits"].dtype != torch.float32:
        raise ValueError("logits")
    if images is not None and (
        images.shape[:1] + images.shape[2:] != (count, *size) or 0 in images.shape or images.dtype != torch.float32
    ):
        raise ValueError("images")
    layers = {key: Layer(str(n), int(c), str(r)) for key, (n, c, r) in zip(keys, places, strict=True)}
    explanation = Explanation(evidence, tensors["logits"], classes, size, layers, flaws)
    words = [
        *keys,
        *about["methods"],
        *about["layers"],
        about["target"],
        about["probe"],
        about["weights"],
        about["recorded"],
    ]
    words += [word for pair in about["surroundings"].items() for word in pair]
    if not all(isinstance(word, str) for word in words) or not isinstance(about["noise"], (int, float, type(None))):
        raise TypeError("about")
    about["pixels"] = None if about["pixels"] is None else Pixels(**about["pixels"])
    about |= {"methods": tuple(about["methods"]), "layers": tuple(about["layers"])}
    return Kept(explanation, images, labels, About(**about))
