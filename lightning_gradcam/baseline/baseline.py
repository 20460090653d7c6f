"""Explanations of fixed images, kept to be compared with."""

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
from lightning_gradcam.baseline.profiles import PROFILES
from lightning_gradcam.baseline.report import Report
from lightning_gradcam.baseline.storage import read_tensors, write_tensors
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.errors import IncompatibleError, NotExplainableError, UnreadableError
from lightning_gradcam.explainer.chunking import Chunks
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.pipeline import Targets, prepare
from lightning_gradcam.layers import Layers
from lightning_gradcam.methods import METHODS
from lightning_gradcam.methods.resolve import Methods
from lightning_gradcam.methods.variants import Variant, parse_variant
from lightning_gradcam.probe.probe import Probe, restore_pixels
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.stability import mean_and_error, spearman
from lightning_gradcam.targets import TARGETS, coerce_target, freeze_classes, target_name
from lightning_gradcam.targets.embeddings import compares_images

VERSION = 1
AT_ONCE = 32
"""Images that are explained at once, unless memory holds fewer."""


@dataclass(frozen=True)
class Baseline(BaselineData):
    """Explanations of fixed images that others are compared with; see `BaselineData` for what it holds.

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
    ) -> Baseline:
        """Explain the images and keep what was found; the model is left as it was.

        Args:
            model: Any module.
            probe: The images as the model takes them, or ``(images, labels)``, or a `Probe`; with ``pixels`` where they
                are normalised, since images are kept, and told apart, as they were before.
            layers: As for `explain`.
            method: As for `explain`, by name.
            target: As for `explain`; ``"auto"`` is the label where there are labels, else the predicted class.
            store: ``"images"`` keeps them, ``"hash"`` only what tells them apart: then they have to be given again.
            forward: As for `explain`.
            like: Layers, methods and classes are taken from this baseline instead.

        Raises:
            ValueError: As `explain`; or ``store`` is neither.
            NotExplainableError: As `explain`.
        """
        if store not in ("images", "hash"):
            raise ValueError(f"Expected `store` to be 'images' or 'hash', but got {store!r}.")
        probe = _as_probe(probe)
        score = _target(target, probe)
        if getattr(score, "parts", None) or compares_images(score, probe):
            raise ValueError(
                f"Expected a `target` of one score and one image, but got {target_name(score)!r}: record a baseline of "
                "each class (`target=`) by itself, and of pairs with `references` that are embeddings."
            )
        if like is not None:
            layers, method = like.locations
        own = next((t for t in model.parameters() if t.is_floating_point()), torch.empty(0))
        there = probe.to(own.device)
        there = replace(there, images=there.images.to(own.dtype))
        if like is not None and like.explanation.classes is not None:
            score = freeze_classes(like.explanation.classes.to(own.device))
        plan = prepare(model, there, layers=layers, method=method, target=score, forward=forward)
        found = _explained(plan, model, there, score, AT_ONCE)
        sizes = {max(len(probe) // 2, 1), min(7, len(probe))} if like is None else set()
        again = [_explained(plan, model, there, score, size) for size in sizes]
        noise = max((_moved(found, other) for other in again), default=None)
        pixels = restore_pixels(probe).float().cpu()
        about = BaselineMetadata(
            methods=tuple(plan.methods),
            layers=tuple(layer.key for layer in plan.layers) if like is None else like.about.layers,
            target=target_name(score) if like is None else like.about.target,
            pixels=probe.pixels,
            probe=hash_pixels(pixels),
            weights=hash_weights(model),
            surroundings=describe_environment(model),
            noise=noise,
            recorded=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        labels = None if probe.classes is None else probe.classes.cpu()
        return Baseline(found, pixels if store == "images" else None, labels, about)

    @property
    def locations(self) -> tuple[list[Layer], list[str | Variant]]:
        """Layers and methods, as `explain` takes them.

        Raises:
            IncompatibleError: A method is not registered here.
        """
        layers = dict.fromkeys((layer.name, layer.call) for layer in self.explanation.layers.values())
        return [Layer(name, call) for name, call in layers], [_method(name) for name in self.about.methods]

    @property
    def probe(self) -> Probe:
        """The images as the model took them.

        Raises:
            IncompatibleError: Only their hash is kept.
        """
        if self.images is None:
            raise IncompatibleError(
                "The baseline holds the hash of its images only: give them again (`probe=`), or record it with "
                "`store='images'`."
            )
        pixels = self.about.pixels
        images = self.images if pixels is None else pixels.normalize(self.images)
        return Probe(images, labels=self.labels, pixels=pixels)

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
        """Whether a candidate's explanations are still these.

        Args:
            candidate: A model, which explains the same images, or a baseline recorded from it.
            profile: What the comparison is for: ``"same-weights"``, ``"next-checkpoint"`` or ``"retrain"``.
            thresholds: Other thresholds than the profile's, see `Profile.with_thresholds`.
            probe: The images as the candidate takes them; by default those that are kept, normalised as they were.
            beside: Further baselines, of other trainings: ``"retrain"`` needs at least four.
            forward: As for `explain`.

        Raises:
            ValueError: There is no such profile or threshold.
            IncompatibleError: The images are neither kept nor given.
        """
        PROFILES.resolve(profile).with_thresholds(thresholds)
        if isinstance(candidate, nn.Module):
            images = self.probe if probe is None else _as_probe(probe)
            try:
                candidate = Baseline.record(candidate, images, like=self, forward=forward)
            except (NotExplainableError, ValueError) as error:  # of these images, at this layer, for these classes
                return Report(
                    "incompatible", f"The candidate cannot be explained likewise: {error}", profile, "", len(self)
                )
        return compare_baselines([self, *beside], candidate, profile, thresholds)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all.

        Raises:
            OSError: It could not be written; an older file is as it was.
        """
        tensors, about = serialize(self)
        write_tensors(path, tensors, about, VERSION)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Baseline:
        """Read a file that `save` has written; nothing of it is run.

        Raises:
            UnreadableError: It is no baseline, damaged, or of a later version; one line says which.
        """
        tensors, about = read_tensors(path, VERSION)
        try:
            return Baseline(**vars(deserialize(tensors, about)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
            raise UnreadableError(
                f"{os.fspath(path)!r} is no baseline: {type(error).__name__} in what it says."
            ) from error


def _as_probe(probe: Probe | tuple[Tensor, Tensor] | Tensor) -> Probe:
    if isinstance(probe, Tensor):
        probe = Probe(probe)
    if isinstance(probe, (tuple, list)):
        probe = replace(Probe(probe[0]), labels=probe[1])
    if not isinstance(probe, Probe):
        raise TypeError(f"Expected a Probe, (images, labels) or images, but got {type(probe).__name__}.")
    return probe.without_inference_tensors()


def _target(target: Targets, probe: Probe) -> Target:
    if isinstance(target, str) and target == "auto":
        return TARGETS["label" if probe.classes is not None else "predicted"]
    return coerce_target(target)


def _method(name: str) -> str | Variant:
    """The method that a baseline names."""
    found = name if name in METHODS else parse_variant(name)
    if found is None:
        raise IncompatibleError(
            f"The baseline was made by the method {name!r}, which is not registered here: `METHODS.register({name!r})`."
        )
    return found


def _explained(plan: Explainer, model: nn.Module, probe: Probe, target: Target, at_once: int) -> Explanation:
    """On the CPU."""
    return Chunks(at_once)(plan, model, probe, [target])[0].map(lambda tensor: tensor.detach().cpu())


def _moved(one: Explanation, other: Explanation) -> float:
    moved = [1 - float(mean_and_error(spearman(maps, other.maps[key]))[0]) for key, maps in one.maps.items()]
    return max((m for m in moved if m == m), default=0.0)
