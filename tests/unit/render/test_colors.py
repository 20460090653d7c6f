"""The same evidence reads the same on dark and on bright pixels, and does not hide what is under it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import color, data, transform
from sklearn.datasets import load_digits

from lightning_gradcam import overlay

LEVELS = (0.25, 0.5, 0.75, 1.0)
COLORMAPS = ["inferno", "viridis", "magma", "plasma", "cividis", "turbo", "jet", "Reds", "coolwarm", "gray"]


def draw(gray: float, colormap: str = "inferno") -> np.ndarray:
    """Return the colors of no evidence and of all levels over one gray, in CIELAB."""
    image = np.full((8, 8, 3), gray, np.float32)
    return np.stack(
        [color.rgb2lab(overlay(image, np.full((8, 8), level), colormap=colormap))[4, 4] for level in (0.0, *LEVELS)]
    )


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_evidence_differs_from_none_as_much_on_black_as_on_white(colormap):
    """CIEDE2000: 1 can just be seen by experts, 2 to 3 by everybody, 5 at a glance."""
    differences = []
    for gray in (0.0, 0.5, 1.0):
        drawn = draw(gray, colormap)
        differences.append(color.deltaE_ciede2000(drawn[1:], drawn[:1]))
    assert (np.max(differences, 0) / np.min(differences, 0)).max() < 1.4  # measured before: 3.3 for inferno
    assert np.min(differences) > 5  # a quarter of the scale is seen at a glance
    if colormap == "inferno":
        assert np.min(differences) > 15
        assert (np.diff(differences, axis=1) > 3).all()  # and more evidence differs more


def square(image: np.ndarray) -> np.ndarray:
    """Return the middle of an image, gray in [0, 1], as float32 (96, 96)."""
    image = np.asarray(image, float) / np.max(image)
    gray = image @ [0.299, 0.587, 0.114] if image.ndim == 3 else image
    side = min(gray.shape)
    top, left = (gray.shape[0] - side) // 2, (gray.shape[1] - side) // 2
    middle = gray[top : top + side, left : left + side]
    return np.clip(transform.resize(middle, (96, 96), anti_aliasing=True), 0, 1).astype(np.float32)


PHOTOS = {
    "digit": lambda: square(load_digits().images[3]),
    "x-ray": lambda: square(data.shepp_logan_phantom()) ** 0.7,
    "person": lambda: square(data.astronaut()),
    "animal": lambda: square(data.chelsea()),
    "night": lambda: square(data.astronaut()) ** 3 * 0.35,
    "white background": lambda: np.where(square(data.coffee()) > 0.5, 1, square(data.coffee())).astype(np.float32),
}


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("level", [0.25, 1.0])
def test_object_is_as_visible_under_evidence_as_without(name, level):
    photo = np.repeat(PHOTOS[name]()[..., None], 3, 2)
    without, under = (color.rgb2lab(overlay(photo, np.full((96, 96), heat)))[..., 0].ravel() for heat in (0.0, level))
    shown = color.rgb2lab(photo)[..., 0].ravel()
    assert np.corrcoef(without, under)[0, 1] > 0.98
    assert np.corrcoef(shown, under)[0, 1] > 0.9
    assert 0.8 < under.std() / without.std() < 1.25


def test_bar_has_the_colors_of_the_evidence():
    """Over the gray of the bar, each level looks more like itself than like a level a quarter above or below."""
    bar = draw(0.6)
    for gray in (0.0, 1.0):
        chroma = draw(gray)[:, 1:]
        distance = np.linalg.norm(chroma[:, None] - bar[None, :, 1:], axis=2)
        assert distance.argmin(1).tolist() == list(range(5))


def test_overlay_of_negative_changes_is_another_color():
    from lightning_gradcam.render.colors import blend_changes

    gray = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    more, less = (blend_changes(gray, torch.full((1, 1, 2), sign))[0, :, 0].float() for sign in (1.0, -1.0))
    assert (more[0] - more[2] > 40).all()
    assert (less[2] - less[0] > 40).all()
