"""Settings that the user passes, or that are found in the data or the model, with the place where they were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_gradcam.callback.checks import check_normalization
from lightning_gradcam.probe.band_info import find_bands
from lightning_gradcam.probe.dataset_info import find_class_names, find_model_normalization, find_normalization
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe


def find_pixels(
    passed: Normalization | None, probe: Probe, data_sources: Sequence[Any], module: nn.Module
) -> tuple[Normalization | None, str]:
    """Return the normalization and its source: the user's, else the probe's, else that of the data, else of the model.

    Raises:
        ValueError: The normalization that was found does not fit the number of channels.
    """
    if passed is not None or probe.pixels is not None:
        return passed or probe.pixels, ""
    normalization, path = find_normalization(data_sources)
    if normalization is None:
        normalization, path = find_model_normalization(module, probe.images)
        path += ", the model's configuration, which fits the images; no transform was found"
    if normalization is None:
        return None, ""
    check_normalization(normalization, probe.images.shape[1])
    return normalization, f"found in {path}"


def find_color_bands(probe: Probe, data_sources: Sequence[Any]) -> tuple[tuple[int, ...] | None, str]:
    """Return the channels of red, green and blue and their source, if the data names them and the user chose none."""
    if probe.pixels is not None and probe.pixels.bands is not None:
        return None, ""
    bands, path = find_bands(data_sources, probe.images.shape[1])
    if bands is None:
        return None, ""
    return bands, f"channels {', '.join(map(str, bands))} are red, green and blue, found in {path}"


def find_names(
    passed: Sequence[str] | None, num_classes: int | None, data_sources: Sequence[Any]
) -> tuple[Sequence[str] | None, str]:
    """Return the class names and their source: the user's, else those of the data if there is one per class."""
    if passed is not None:
        return passed, ""
    class_names, path = find_class_names(data_sources)
    return (None, "") if class_names is None or len(class_names) != num_classes else (class_names, f"found in {path}")
