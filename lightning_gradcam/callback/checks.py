"""Validation of a probe, its names and its normalization against the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_gradcam.attacks import check_range
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe, restore_pixels
from lightning_gradcam.targets import check_classes


def check_class_names(class_names: Sequence[str] | None, classes: int | None) -> None:
    """Raise a ValueError if there are fewer names than classes of the model."""
    if class_names is not None and classes and len(class_names) < classes:
        raise ValueError(f"Expected {classes} class names, one per class of the model, but got {len(class_names)}.")


def check_normalization(pixels: Normalization | None, channels: int) -> None:
    """Raise a ValueError if a normalization does not have the channels of the images."""
    if pixels is not None and len(pixels.mean) not in (1, channels):
        raise ValueError(
            f"Expected a mean and std in `pixels` for each of {channels} channels, or one for all, but got "
            f"{len(pixels.mean)}."
        )
    if pixels is not None and pixels.bands is not None and max(pixels.bands) >= channels:
        raise ValueError(
            f"Expected `bands` in `pixels` from 0 to {channels - 1}, since images have {channels} channels, but got "
            f"{pixels.bands}."
        )


def check_attackable(explainer: Explainer) -> None:
    """Raise a ValueError if the model returns no logits, because an attack increases a loss of logits."""
    if not explainer.output_kind.num_logits:
        raise ValueError("Expected a model that returns logits (N, classes) for `attack=`, but it has none.")


def check_probe(probe: Probe, explainer: Explainer, is_attacked: bool) -> None:
    """Raise a ValueError if the model cannot explain the probe. (Waits for the device.)

    Args:
        probe: The images and labels, on the model's device.
        explainer: The prepared explainer.
        is_attacked: Whether the images are attacked, and must be pixels in [0, 1] without their normalization.
    """
    if not bool(probe.images.isfinite().all()):
        raise ValueError("Expected finite images in the probe, but some pixels are NaN or infinite.")
    if probe.classes is not None and explainer.output_kind.num_logits:
        check_classes(probe.classes, explainer.output_kind.num_logits)
    if is_attacked:
        check_range(restore_pixels(probe))


def check_baseline_maps(baseline_maps: Mapping[str, Tensor], explainer: Explainer) -> None:
    """Raise a ValueError if the model's maps have another size than the baseline's."""
    grids = {record.name: record.grid for record in explainer.records}
    for layer in explainer.layers:
        maps = next((maps for key, maps in baseline_maps.items() if key.split("/")[0] == layer.key), None)
        size = () if maps is None else tuple(maps.shape[1:])
        if maps is not None and grids.get(layer.name, size) != size:
            raise ValueError(
                f"Expected maps of {size} at layer {layer.key!r}, as in the baseline, but this model returns maps of "
                f"{grids[layer.name]}. Record the baseline again."
            )
