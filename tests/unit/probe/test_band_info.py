"""Channels of red, green and blue, by the names of bands as torchgeo and others keep them."""

from __future__ import annotations

import pytest
from torch.utils.data import Subset

from lightning_gradcam.probe.band_info import find_bands
from tests.unit.probe.test_dataset_info import Data, Module

SENTINEL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


@pytest.mark.parametrize(("attributes", "channels", "expected"), [
    ({"all_bands": SENTINEL}, 13, (3, 2, 1)),
    ({"all_band_names": SENTINEL, "rgb_bands": ("B08", "B04", "B03")}, 13, (7, 3, 2)),
    ({"bands": ["B02", "B03", "B04", "B08"], "all_bands": SENTINEL}, 4, (2, 1, 0)),
    ({"bands": [b.replace("B0", "B") for b in SENTINEL]}, 13, (3, 2, 1)),
    ({"band_names": ["Blue", "Green", "Red", "NIR"]}, 4, (2, 1, 0)),
    ({"channels": ("r", "g", "b", "depth")}, 4, (0, 1, 2)),
    ({"channel_names": ["VV", "VH"]}, 2, None),
    ({"bands": ["B1", "B2", "B3", "B4", "B5", "B7"]}, 6, None),  # of Landsat 7, where B4 is infrared
    ({"all_bands": SENTINEL}, 12, None),
    ({"bands": 4}, 4, None),
    ({"bands": ["red", "green", "blue"]}, 3, None),
])  # fmt: skip
def test_find_bands_by_their_names(attributes, channels, expected):
    for holder, path in ((Data(**attributes), "Data"), (Subset(Data(**attributes), [0]), "Subset.dataset")):
        bands, where = find_bands([Module(a=1), holder], channels)
        assert bands == expected
        assert where.startswith(path) == (expected is not None)


def test_find_bands_of_a_class_without_calling_properties():
    with_list = type("Satellite", (Data,), {"all_bands": SENTINEL})
    with_property = type("Satellite", (Data,), {"bands": property(lambda self: 1 / 0)})
    assert find_bands([with_property(), with_list()], 13)[0] == (3, 2, 1)
