"""What is kept of an explanation, to be compared with: the data of a baseline, and how a file holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.probe.normalization import Normalization


@dataclass(frozen=True)
class BaselineMetadata:
    """What a baseline is of, in plain values.

    Args:
        methods: Names of the methods.
        layers: Names of the layers, as `layers=` takes them.
        target: What was explained, in words.
        pixels: The normalisation of the images, where known.
        probe: The hash of the images, see `identity.hash_pixels`.
        weights: The hash of the weights.
        surroundings: Versions, device and number format.
        noise: 1 - the least mean rank correlation when the same model explains the same images in other batch sizes;
            None where it was recorded like another one.
        recorded: When, in UTC.
    """

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    target: str
    pixels: Normalization | None
    probe: str
    weights: str
    surroundings: Mapping[str, str]
    noise: float | None
    recorded: str


@dataclass(frozen=True)
class BaselineData:
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
    about: BaselineMetadata

    def __len__(self) -> int:
        return len(self.explanation.logits)


def serialize(kept: BaselineData) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what JSON can say."""
    explanation = kept.explanation
    keys = list(explanation.evidence)
    tensors = {"logits": explanation.logits}
    for i, key in enumerate(keys):
        tensors |= {f"evidence.{i}": explanation.evidence[key], f"flaws.{i}": explanation.map_status[key]}
    optional = {"classes": explanation.classes, "labels": kept.labels, "images": kept.images}
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    places = [[layer.name, layer.call, layer.reason] for layer in (explanation.layers[key] for key in keys)]
    return tensors, {**asdict(kept.about), "keys": keys, "places": places, "size": list(explanation.size)}


def deserialize(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> BaselineData:
    """What `serialize` was given, where all parts fit together; any error that Python knows of where they do not."""
    about = dict(facts)
    keys, places, size = about.pop("keys"), about.pop("places"), tuple(about.pop("size"))
    if not 1 <= len(size) <= 3 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError("size")
    count = len(tensors["logits"])
    images, labels, classes = (tensors.get(name) for name in ("images", "labels", "classes"))
    if images is not None:
        _check(images.shape[:1] + images.shape[2:] == (count, *size), images, torch.float32, "images")
    for numbers in (labels, classes):
        if numbers is not None:
            _check(numbers.shape == (count,), numbers, torch.int64, "classes")
    layers = {key: Layer(str(n), int(c), str(r)) for key, (n, c, r) in zip(keys, places, strict=True)}
    explanation = Explanation(
        {key: tensors[f"evidence.{i}"] for i, key in enumerate(keys)},
        tensors["logits"],
        classes,
        size,
        layers,
        {key: tensors[f"flaws.{i}"] for i, key in enumerate(keys)},
    )
    _check_explanation(explanation)
    found = _about(about, [*keys])
    if images is not None and found.pixels is not None and len(found.pixels.mean) not in (1, images.shape[1]):
        raise ValueError("pixels")
    return BaselineData(explanation, images, labels, found)


def _check_explanation(found: Explanation) -> None:
    if not found.evidence or found.logits.ndim != 2 or found.logits.dtype != torch.float32:
        raise ValueError("logits")
    for key, evidence in found.evidence.items():
        fits = len(evidence) == len(found.logits) and evidence.ndim == len(found.size) + 1
        _check(fits, evidence, torch.float32, "evidence")
        flaws = found.map_status[key]
        _check(flaws.shape == evidence.shape[:1], flaws, torch.uint8, "flaws")
        if int(flaws.max()) >= len(MapStatus):
            raise ValueError("flaws")


def _check(fits: bool, tensor: Tensor, dtype: torch.dtype, what: str) -> None:
    if not fits or not tensor.numel() or tensor.dtype != dtype:
        raise ValueError(what)


def _about(facts: dict[str, Any], keys: list[Any]) -> BaselineMetadata:
    words = [
        *keys,
        *facts["methods"],
        *facts["layers"],
        *(facts[n] for n in ("target", "probe", "weights", "recorded")),
    ]
    words += [word for pair in facts["surroundings"].items() for word in pair]
    if not all(isinstance(word, str) for word in words) or not isinstance(facts["noise"], (int, float, type(None))):
        raise TypeError("about")
    read: dict[str, Any] = {
        "methods": tuple(facts["methods"]),
        "layers": tuple(facts["layers"]),
        "pixels": None if facts["pixels"] is None else Normalization(**facts["pixels"]),
        "noise": None if facts["noise"] is None else float(facts["noise"]),
    }
    return BaselineMetadata(**{**facts, **read})
