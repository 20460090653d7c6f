"""The channels of a data set that are red, green and blue, by the names of its bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_gradcam.probe.dataset_info import get_attribute, walk_datasets_and_transforms

_BAND_LISTS = ("bands", "all_bands", "band_names", "all_band_names", "channels", "channel_names")
_RGB_LISTS = ("rgb_bands", "rgb_band_names", "RGB_BANDS")

_USUAL_NAMES = (
    ("red", "r", "b04", "b4"),
    ("green", "g", "b03", "b3"),
    ("blue", "b", "b02", "b2"),
)
"""Usual names of red, green and blue; "B4" is red of Sentinel-2 and of Landsat 8 and 9, which also have a "B10"."""

_SHORT_NUMBERS = ("b4", "b3", "b2")


def find_bands(holders: Sequence[Any], channels: int) -> tuple[tuple[int, ...] | None, str]:
    """Find the channels of red, green and blue in datasets or datamodules; return them and their location.

    A list of names, one for each channel, must hold the data set's ``rgb_bands`` or the usual names of the three
    colors. Nothing is searched for images of one or three channels.

    Args:
        holders: Datasets and datamodules.
        channels: The number of channels of the images.

    >>> class Data:
    ...     all_bands = ("B01", "B02", "B03", "B04", "B08")
    ...     rgb_bands = ("B04", "B03", "B02")
    >>> find_bands([Data()], channels=5)
    ((3, 2, 1), 'Data.all_bands')
    """
    if channels in (1, 3):
        return None, ""
    for holder in holders:
        for item, path in walk_datasets_and_transforms(holder):
            for attribute in _BAND_LISTS:
                names = _read_names(item, attribute)
                bands = _choose_bands(item, names) if len(names) == channels else None
                if bands is not None:
                    return bands, f"{path}.{attribute}"
    return None, ""


def _choose_bands(item: Any, names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the indices of red, green and blue among the names, or None."""
    for attribute in _RGB_LISTS:
        rgb = _read_names(item, attribute)
        if len(rgb) == 3 and set(rgb) <= set(names):
            return tuple(names.index(name) for name in rgb)
    lowered = [name.lower() for name in names]
    has_short_numbers = "b10" in lowered or "b8a" in lowered
    positions = []
    for usual in _USUAL_NAMES:
        name = next((n for n in usual if n in lowered and (has_short_numbers or n not in _SHORT_NUMBERS)), None)
        if name is None:
            return None
        positions.append(lowered.index(name))
    return tuple(positions)


def _read_names(item: Any, attribute: str) -> list[str]:
    names = get_attribute(item, attribute)
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return list(names) if is_list else []
