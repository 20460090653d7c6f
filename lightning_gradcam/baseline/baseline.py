"""Baselines: recorded explanations of fixed images that later models are compared with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_gradcam.baseline.comparison import compare_baselines
from lightning_gradcam.baseline.data import BaselineData, BaselineMetadata, deserialize, serialize
from lightning_gradcam.baseline.fingerprint import describe_environment, hash_pixels, hash_weights
from lightning_gradcam.baseline.noise import explain_in_batches, measure_noise
from lightning_gradcam.baseline.profiles import PROFILES
from lightning_gradcam.baseline.report import Report
from lightning_gradcam.baseline.storage import read_tensors, write_tensors
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.errors import IncompatibleError, NotExplainableError, UnreadableError
from lightning_gradcam.explainer.pipeline import Targets, prepare
from lightning_gradcam.layers import Layers
from lightning_gradcam.methods import METHODS
from lightning_gradcam.methods.resolve import Methods
from lightning_gradcam.methods.variants import Variant, parse_variant
from lightning_gradcam.probe.probe import Probe, restore_pixels
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import TARGETS, coerce_target, freeze_classes, target_name
from lightning_gradcam.targets.embeddings import compares_images
from lightning_gradcam.targets.output_kinds import OutputName
from lightning_gradcam.utils.cell_centers import Placement

VERSION = 2
"""Version of the file format."""


@dataclass(frozen=True)
class Baseline(BaselineData):
    """Explanations of fixed images that later models are compared with; see `BaselineData` for the fields.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        >>> baseline = Baseline.record(model, Probe(torch.rand(64, 1, 8, 8)))
        >>> baseline.compare(model).status
        'pass'
    """

    @staticmethod
    def record(
        model: nn.Module,
        probe: Probe | tuple[Tensor, Tensor] | Tensor,
        *,
        layers: Layers = "auto",
        method: Methods = "gradcam",
        target: Targets = "auto",
        store: Literal["images", "hash"] = "images",
        forward: Forward | None = None,
        like: Baseline | None = None,
        output: OutputName = "auto",
        placement: Placement = "receptive_field",
    ) -> Baseline:
        """Explain the images and record the result; the model is left unchanged.

        Args:
            model: Any module.
            probe: The preprocessed images, or ``(images, labels)``, or a `Probe`. Pass a `Probe` with ``pixels`` if
                the images are normalized, because images are stored and compared before normalization.
            layers: As for `explain`.
            method: As for `explain`, by name.
            target: As for `explain`; ``"auto"`` is the label if there are labels, otherwise the predicted class.
            store: ``"images"`` stores the images; ``"hash"`` stores only their hash, so that they must be passed
                again to compare.
            forward: As for `explain`.
            like: A baseline whose layers, methods, classes, kind of output and placement are used instead.
            output: As for `explain`.
            placement: As for `explain`. Comparisons of maps on a layer's grid do not depend on it.

        Raises:
            ValueError: As for `explain`, or if ``store`` is invalid.
            NotExplainableError: As for `explain`.
        """
        if store not in ("images", "hash"):
            raise ValueError(f"Expected `store` to be 'images' or 'hash', but got {store!r}.")
        probe = _coerce_probe(probe)
        score = _coerce_target(target, probe)
        if score is not None:
            _check_single_score(score, probe)
        weight = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        inputs = probe.to(weight.device)
        inputs = replace(inputs, images=inputs.images.to(weight.dtype))
        if like is not None:
            (layers, method), output, placement = like.locations, like.metadata.output, like.metadata.placement
            if like.explanation.classes is not None:
                score = freeze_classes(like.explanation.classes.to(weight.device))
        explainer = prepare(
            model,
            inputs,
            layers=layers,
            method=method,
            target=score,
            forward=forward,
            output=output,
            placement=placement,
        )
        kind = explainer.output_kind
        score = kind.resolve(score, inputs)
        explanation = explain_in_batches(explainer, model, inputs, score)
        noise = None if like is not None else measure_noise(explanation, explainer, model, inputs, score)
        pixels = restore_pixels(probe).float().cpu()
        metadata = BaselineMetadata(
            methods=tuple(explainer.methods),
            layers=tuple(layer.key for layer in explainer.layers) if like is None else like.metadata.layers,
            target=target_name(score) if like is None else like.metadata.target,
            normalization=probe.pixels,
            image_hash=hash_pixels(pixels),
            weights_hash=hash_weights(model),
            environment=describe_environment(model),
            noise=noise,
            recorded=datetime.now(UTC).isoformat(timespec="seconds"),
            output=kind.name if kind.is_chosen or kind.name in ("regression", "embedding", "image") else "auto",
            placement=placement,
        )
        labels = None if probe.classes is None else probe.classes.cpu()
        return Baseline(explanation, pixels if store == "images" else None, labels, metadata)

    @property
    def locations(self) -> tuple[list[Layer], list[str | Variant]]:
        """Layers and methods, in the form that `explain` takes.

        Raises:
            IncompatibleError: A method is not registered in this process.
        """
        layers = dict.fromkeys((layer.name, layer.call, layer.calls) for layer in self.explanation.layers.values())
        resolved = [Layer(name, call, calls=calls) for name, call, calls in layers]
        return resolved, [_resolve_method(name) for name in self.metadata.methods]

    @property
    def probe(self) -> Probe:
        """The images, normalized as they were for the model.

        Raises:
            IncompatibleError: The baseline stores only the hash of its images.
        """
        if self.images is None:
            raise IncompatibleError(
                "The baseline stores only the hash of its images. Pass the same images with `probe=`, or record the "
                "baseline with `store='images'`."
            )
        normalization = self.metadata.normalization
        images = self.images if normalization is None else normalization.normalize(self.images)
        return Probe(images, labels=self.labels, pixels=normalization)

    def compare(
        self,
        candidate: nn.Module | Baseline,
        *,
        profile: str = "same-weights",
        thresholds: Mapping[str, float] | None = None,
        probe: Probe | tuple[Tensor, Tensor] | Tensor | None = None,
        beside: Sequence[Baseline] = (),
        forward: Forward | None = None,
    ) -> Report:
        """Compare a candidate's explanations with this baseline.

        Args:
            candidate: A model, which explains the same images, or a baseline recorded from it.
            profile: Purpose of the comparison: ``"same-weights"``, ``"next-checkpoint"`` or ``"retrain"``.
            thresholds: Thresholds that replace those of the profile, see `Profile.with_thresholds`.
            probe: The images, preprocessed for the candidate; by default the stored images, normalized as recorded.
            beside: Further baselines from other training runs; ``"retrain"`` needs at least four.
            forward: As for `explain`.

        Raises:
            ValueError: ``profile`` or ``thresholds`` is invalid.
            IncompatibleError: The images are neither stored nor passed.
        """
        PROFILES.resolve(profile).with_thresholds(thresholds)
        if isinstance(candidate, nn.Module):
            images = self.probe if probe is None else _coerce_probe(probe)
            try:
                candidate = Baseline.record(candidate, images, like=self, forward=forward)
            except (NotExplainableError, ValueError) as error:  # for these images, this layer or these classes
                reason = f"The candidate cannot be explained like the baseline: {error}"
                return Report("incompatible", reason, profile, "", len(self))
        return compare_baselines([self, *beside], candidate, profile, thresholds)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file atomically.

        Raises:
            OSError: The file could not be written; an existing file is unchanged.
        """
        tensors, facts = serialize(self)
        write_tensors(path, tensors, facts, VERSION)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Baseline:
        """Read a file written by `save`; no code in it is executed.

        Raises:
            UnreadableError: The file is not a baseline, is damaged, or has a later version; the message is one line.
        """
        tensors, facts = read_tensors(path, VERSION)
        try:
            return Baseline(**vars(deserialize(tensors, facts)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
            raise UnreadableError(
                f"{os.fspath(path)!r} is not a baseline: its contents are invalid ({type(error).__name__})."
            ) from error


def _coerce_probe(probe: Probe | tuple[Tensor, Tensor] | Tensor) -> Probe:
    if isinstance(probe, Tensor):
        probe = Probe(probe)
    if isinstance(probe, (tuple, list)):
        probe = replace(Probe(probe[0]), labels=probe[1])
    if not isinstance(probe, Probe):
        raise TypeError(f"Expected `probe` to be a Probe, (images, labels) or images, but got {type(probe).__name__}.")
    return probe.without_inference_tensors()


def _coerce_target(target: Targets, probe: Probe) -> Target | None:
    """Return the target; None for "auto" with labels, which the output may or may not have."""
    if isinstance(target, str) and target == "auto":
        return None if probe.classes is not None else TARGETS["predicted"]
    return coerce_target(target)


def _check_single_score(target: Target, probe: Probe) -> None:
    """Raise a ValueError for a target that explains several scores, or pairs of images."""
    if getattr(target, "parts", None) or compares_images(target, probe):
        raise ValueError(
            f"Expected a `target` with one score for one image, but got {target_name(target)!r}. Record one baseline "
            "per class (`target=`); for pairs, pass `references` that are embeddings."
        )


def _resolve_method(name: str) -> str | Variant:
    method = name if name in METHODS else parse_variant(name)
    if method is None:
        raise IncompatibleError(
            f"The baseline was recorded with the method {name!r}, which is not registered. Register it with "
            f"`METHODS.register({name!r})`."
        )
    return method
