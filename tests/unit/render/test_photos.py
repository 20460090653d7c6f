"""Images of many bands, reflectances and Hounsfield units as photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.render.canvas import restore_images
from lightning_gradcam.render.photos import restore_photos


def scans(metal: bool) -> torch.Tensor:
    """Hounsfield units: air at -1000, soft tissue at 40, a lesion at 160; some images hold a clip of metal."""
    images = torch.full((4, 1, 64, 64), -1000.0)
    images[:, :, 12:52, 12:52] = 40
    images[1::2, :, 20:30, 34:46] = 160
    if metal:
        images[:2, :, 44:47, 20:23] = 20000
    return images


def test_metal_does_not_hide_the_tissue_of_any_scan():
    with_metal, note = restore_photos(scans(True))
    without, _ = restore_photos(scans(False))
    assert torch.equal(with_metal[2:], without[2:])  # nor does it change other scans
    for photo in with_metal:
        assert photo[0, 16, 16] - photo[0, 0, 0] > 0.2
    assert with_metal[1, 0, 25, 40] - with_metal[1, 0, 40, 40] > 0.05
    assert "each stretched from its 1st to its 99th percentile" in note
    assert "-1e+03 to 2e+04" in note


def test_percentiles_are_those_of_numpy():
    images = torch.randn(3, 3, 31, 33) * torch.tensor([1.0, 50, 3000]).reshape(3, 1, 1, 1) - 7
    shown, _ = restore_photos(images)
    for photo, image in zip(shown, images.double().numpy(), strict=True):
        low, high = np.quantile(image, [0.01, 0.99], method="nearest")
        np.testing.assert_allclose(photo.numpy(), ((image - low) / (high - low)).clip(0, 1), atol=2e-3)


def test_small_object_on_a_constant_background_is_shown():
    images = torch.full((1, 1, 64, 64), -1.0)
    images[0, 0, 5, 5] = 1.0  # fewer pixels than the percentiles leave out
    shown, _ = restore_photos(images)
    assert (float(shown.max()), float(shown.min())) == (1.0, 0.0)


def test_bands_are_shown_as_red_green_and_blue():
    reflectances = torch.rand(2, 13, 9, 8) * 3000
    shown, note = restore_photos(reflectances, bands=(3, 2, 1))
    alone, _ = restore_photos(reflectances[:, [3, 2, 1]])
    assert torch.equal(shown, alone)
    assert "channels 3, 2, 1 are shown as red, green and blue" in note
    chosen, _ = restore_photos(reflectances, Normalization(bands=(7, 2, 1)), bands=(3, 2, 1))
    assert torch.equal(chosen, restore_photos(reflectances[:, [7, 2, 1]])[0])
    gray, note = restore_photos(reflectances, Normalization(bands=(7,)))
    assert torch.equal(gray, restore_photos(reflectances[:, [7]])[0])
    assert "channel 7 is shown as gray" in note


@pytest.mark.parametrize("bands", [None, (2, 1, 0)])
def test_pixels_that_overshoot_a_little_are_not_stretched(bands):
    pixels = torch.linspace(-0.01, 1.01, 2 * 3 * 64).reshape(2, 3, 8, 8)  # as bicubic resizing leaves them
    shown, note = restore_photos(pixels, Normalization(bands=bands))
    assert torch.equal(shown, pixels.clamp(0, 1) if bands is None else pixels.clamp(0, 1).flip(1))
    assert note.startswith("images lie in [0, 1] and are shown as they are")
    assert "stretched" in restore_photos(pixels)[1]  # nobody said that they are pixels


def test_normalized_reflectances_keep_their_colors():
    reflectances = torch.rand(2, 5, 9, 8) * torch.tensor([3000.0, 1500, 800, 2000, 4000]).reshape(1, 5, 1, 1)
    norm = Normalization((1500, 700, 400, 1000, 2000), (900, 400, 200, 600, 900), bands=(2, 1, 0))
    shown, note = restore_photos(norm.normalize(reflectances), norm)
    torch.testing.assert_close(shown, restore_photos(reflectances, bands=(2, 1, 0))[0], atol=1e-4, rtol=0)
    assert "colors restored" in note
    assert "not true" not in note


def test_mean_of_many_channels_is_not_dim():
    """The mean of thirteen channels has a small range: it is stretched."""
    shown, _ = restore_photos(0.1 + 0.1 * torch.rand(2, 13, 32, 32))
    assert shown.std() > 0.15
    assert shown.max() == 1


def test_bands_of_volumes_are_shown():
    volumes = torch.rand(2, 4, 3, 8, 8)
    shown, _ = restore_images(volumes, Normalization(bands=(3, 2, 0)))
    assert torch.equal(shown, (volumes[:, [3, 2, 0]] * 255 + 0.5).to(torch.uint8))
    gray, _ = restore_images(volumes)
    assert gray.shape[1] == 1


@pytest.mark.parametrize("bands", [(1, 2), (0, 1, 2, 3), (-1, 0, 1), ()])
def test_bands_must_be_one_or_three_channels(bands):
    with pytest.raises(ValueError, match="`bands` of one or three channels"):
        Normalization((0.5,), (0.5,), bands)
