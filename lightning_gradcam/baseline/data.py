"""Data model of a baseline, and its conversion to and from the contents of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import MapStatus
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.targets.output_kinds import OutputName, check_output_name
from lightning_gradcam.utils.cell_centers import CellCenters, Placement, check_placement


@dataclass(frozen=True)
class BaselineMetadata:
    """Description of a baseline in plain values.

    Args:
        methods: Names of the methods.
        layers: Names of the layers, as `layers=` takes them.
        target: The target that was explained, in words.
        normalization: The normalization of the images, if known.
        image_hash: The hash of the images, see `fingerprint.hash_pixels`.
        weights_hash: The hash of the weights, see `fingerprint.hash_weights`.
        environment: Versions, device and dtype.
        noise: 1 - the lowest mean rank correlation when the same model explains the same images in other batch sizes;
            None if the baseline was recorded with ``like``.
        recorded: Time of the recording, in UTC.
        output: What the model's output was read as; "auto" in files of earlier versions.
        placement: How cells were placed in the images; files of version 1 stretched maps.
    """

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    target: str
    normalization: Normalization | None
    image_hash: str
    weights_hash: str
    environment: Mapping[str, str]
    noise: float | None
    recorded: str
    output: OutputName = "auto"
    placement: Placement = "stretch"

    @property
    def bands(self) -> tuple[int, ...] | None:
        """The channels to show as red, green and blue, if known."""
        return None if self.normalization is None else self.normalization.bands

    def describe_normalization(self) -> str:
        """Return the normalization in words."""
        if self.normalization is None:
            return "none"
        return f"mean {list(self.normalization.mean)}, std {list(self.normalization.std)}"


@dataclass(frozen=True)
class BaselineData:
    """Explanations of fixed images, on the CPU.

    Args:
        explanation: The explanations.
        images: ``(N, C, *spatial)`` float32 before normalization; None if only their hash is stored.
        labels: ``(N,)`` int64; None if there are no labels.
        metadata: Methods, layers, target, hashes and environment.
    """

    explanation: Explanation
    images: Tensor | None
    labels: Tensor | None
    metadata: BaselineMetadata

    def __len__(self) -> int:
        return len(self.explanation.logits)


_FILE_KEYS = {
    "normalization": "pixels",
    "image_hash": "probe",
    "weights_hash": "weights",
    "environment": "surroundings",
}
"""Keys in a file that differ from the names of the fields of `BaselineMetadata`."""


def serialize(baseline: BaselineData) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert a baseline to tensors by name and to metadata that JSON can represent."""
    explanation = baseline.explanation
    keys = list(explanation.evidence)
    tensors = {"logits": explanation.logits}
    for i, key in enumerate(keys):
        tensors |= {f"evidence.{i}": explanation.evidence[key], f"flaws.{i}": explanation.map_status[key]}
    optional = {"classes": explanation.classes, "labels": baseline.labels, "images": baseline.images}
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    layers = [explanation.layers[key] for key in keys]
    metadata = asdict(baseline.metadata)
    if metadata["output"] == "auto":
        del metadata["output"]  # as in files of earlier versions
    facts = {
        **{_FILE_KEYS.get(name, name): value for name, value in metadata.items()},
        "keys": keys,
        "places": [[layer.name, layer.call, layer.reason, *([layer.calls] if layer.calls else [])] for layer in layers],
        "size": list(explanation.size),
        "centers": {key: [centers.offset, centers.step] for key, centers in explanation.centers.items()},
    }
    return tensors, facts


def deserialize(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> BaselineData:
    """Restore the baseline that `serialize` converted.

    Raises:
        Exception: Any built-in one, if parts are missing, invalid or inconsistent.
    """
    facts = dict(facts)
    keys, layers, size = facts.pop("keys"), facts.pop("places"), tuple(facts.pop("size"))
    if not 1 <= len(size) <= 3 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError("size")
    centers = {key: _parse_centers(values, len(size)) for key, values in facts.pop("centers", {}).items()}
    count = len(tensors["logits"])
    images, labels, classes = (tensors.get(name) for name in ("images", "labels", "classes"))
    if images is not None:
        _check_tensor("images", images, torch.float32, images.shape[:1] + images.shape[2:] == (count, *size))
    for indices in (labels, classes):
        if indices is not None:
            _check_tensor("classes", indices, torch.int64, indices.shape == (count,))
    explanation = Explanation(
        {key: tensors[f"evidence.{i}"] for i, key in enumerate(keys)},
        tensors["logits"],
        classes,
        size,
        {key: _parse_layer(*layer) for key, layer in zip(keys, layers, strict=True)},
        {key: tensors[f"flaws.{i}"] for i, key in enumerate(keys)},
        centers=centers,
    )
    _check_explanation(explanation)
    metadata = _parse_metadata(facts, [*keys])
    if images is not None and metadata.normalization is not None:
        channels = images.shape[1]
        if len(metadata.normalization.mean) not in (1, channels) or max(metadata.bands or (0,)) >= channels:
            raise ValueError("pixels")
    return BaselineData(explanation, images, labels, metadata)


def _parse_layer(name: Any, call: Any, reason: Any, calls: Sequence[Any] = ()) -> Layer:
    """Return a layer from its facts; files without summed calls have no ``calls``."""
    return Layer(str(name), int(call), str(reason), calls=tuple(map(int, calls)))


def are_equal(baseline: BaselineData, candidate: BaselineData) -> bool:
    """Return whether the files of two baselines are equal, apart from the time of the recording."""
    (tensors, facts), (candidate_tensors, candidate_facts) = map(serialize, (baseline, candidate))
    if _normalize_facts(facts) != _normalize_facts(candidate_facts) or tensors.keys() != candidate_tensors.keys():
        return False
    pairs = [(tensor, candidate_tensors[name]) for name, tensor in tensors.items()]
    return all(a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes() for a, b in pairs)


def _normalize_facts(facts: Mapping[str, Any]) -> Any:
    """Return metadata as a file holds it, without the time of the recording."""
    return json.loads(json.dumps({**facts, "recorded": ""}))


def _check_explanation(explanation: Explanation) -> None:
    logits = explanation.logits
    if not explanation.evidence or logits.ndim != 2 or logits.dtype != torch.float32:
        raise ValueError("logits")
    for key, evidence in explanation.evidence.items():
        has_valid_shape = len(evidence) == len(logits) and evidence.ndim == len(explanation.size) + 1
        _check_tensor("evidence", evidence, torch.float32, has_valid_shape)
        status = explanation.map_status[key]
        _check_tensor("flaws", status, torch.uint8, status.shape == evidence.shape[:1])
        if int(status.max()) >= len(MapStatus):
            raise ValueError("flaws")


def _parse_centers(values: Any, dimensions: int) -> CellCenters:
    """Return the cell centers in the facts of a file."""
    offset, step = (tuple(map(float, numbers)) for numbers in values)
    numbers = (*offset, *step)
    if len(offset) != dimensions or len(step) != dimensions or not all(map(isfinite, numbers)) or not all(step):
        raise ValueError("centers")
    return CellCenters(offset, step)


def _check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, has_valid_shape: bool) -> None:
    if not has_valid_shape or not tensor.numel() or tensor.dtype != dtype:
        raise ValueError(name)


def _parse_metadata(facts: dict[str, Any], keys: list[Any]) -> BaselineMetadata:
    """Parse the metadata of a file, whose types nothing guarantees; ``keys`` must be text as well."""
    facts = {"output": "auto", "placement": "stretch", **facts}  # files of version 1 have neither
    check_placement(facts["placement"])
    values = {field.name: facts.pop(_FILE_KEYS.get(field.name, field.name)) for field in fields(BaselineMetadata)}
    check_output_name(values["output"])
    if facts:
        raise ValueError("unknown keys")
    texts = [*keys, *values["methods"], *values["layers"]]
    texts += [values[name] for name in ("target", "image_hash", "weights_hash", "recorded")]
    texts += [text for item in values["environment"].items() for text in item]
    noise, normalization = values["noise"], values["normalization"]
    if not all(isinstance(text, str) for text in texts) or not isinstance(noise, (int, float, type(None))):
        raise TypeError("metadata")
    converted: dict[str, Any] = {
        "methods": tuple(values["methods"]),
        "layers": tuple(values["layers"]),
        "normalization": None if normalization is None else Normalization(**normalization),
        "noise": None if noise is None else float(noise),
    }
    return BaselineMetadata(**{**values, **converted})
