"""One image, however it is given, gives one explanation; and what cannot be understood is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from lightning_gradcam import Normalization, Preprocess, Probe, explain, overlay
from lightning_gradcam.probe.image_loading import as_probe
from tests.helpers.models import assert_close, examples, perturbed, plain_cnn

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
BYTES = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)


def forms(folder, array=BYTES):
    """The same image in every form that pixels come in."""
    picture = Image.fromarray(array.squeeze())
    picture.save(folder / "image.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    return {
        "uint8 array": array,
        "float array": array.astype(np.float32) / 255,
        "float64 array": array / 255,
        "array of a batch": array[None],
        "list": [array],
        "PIL": picture,
        "list of PIL": [picture],
        "file": str(folder / "image.png"),
        "path": folder / "image.png",
        "uint8 tensor": tensor,
        "float tensor": tensor / 255,
        "batch": tensor[None] / 255,
        "list of tensors": [tensor / 255],
    }


FORMS = [
    "uint8 array", "float array", "float64 array", "array of a batch", "list", "PIL", "list of PIL", "file", "path",
    "uint8 tensor", "float tensor", "batch", "list of tensors",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_one_image_in_every_form_gives_the_same_evidence(form, tmp_path):
    model, every = perturbed(plain_cnn()), forms(tmp_path)
    assert list(every) == FORMS
    taken = (torch.from_numpy(BYTES / 255) - torch.tensor(MEAN)) / torch.tensor(STD)
    expected = explain(model, taken.permute(2, 0, 1)[None].float())
    compose = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    for preprocess in (Preprocess(MEAN, STD), Normalization(MEAN, STD), compose):
        found = explain(model, every[form], preprocess=preprocess)
        assert_close(found.evidence["5"], expected.evidence["5"], 1e-5)
        assert_close(found.photos[0].permute(1, 2, 0), torch.from_numpy(BYTES / 255), 1e-5)


@pytest.mark.parametrize("form", ["uint8 array", "PIL", "path", "list"])
def test_transforms_of_torchvisions_first_version_get_what_they_take(form, tmp_path):
    steps = [v1.Resize(12), v1.CenterCrop(10), v1.ToTensor(), v1.Normalize(MEAN, STD)]
    found = as_probe(forms(tmp_path)[form], plain_cnn(), v1.Compose(steps))
    assert torch.equal(found.images, v1.Compose(steps)(Image.fromarray(BYTES))[None])
    assert found.pixels == Normalization(MEAN, STD)


def test_without_a_preprocess_pixels_lie_in_0_to_1_and_tensors_stay_as_they_are(tmp_path):
    every = forms(tmp_path)
    for form in ("uint8 array", "float array", "PIL", "file"):
        found = as_probe(every[form], plain_cnn())
        assert_close(found.images[0].permute(1, 2, 0), torch.from_numpy(BYTES / 255), 1e-6)
        assert torch.equal(found.photos, found.images)
    normalised = torch.randn(2, 3, 20, 28).to(memory_format=torch.channels_last)
    assert as_probe(normalised, plain_cnn()).images is normalised
    assert explain(perturbed(plain_cnn()), normalised).photos is None


@pytest.mark.parametrize(("shape", "conv", "rows"), [
    ((3, 12, 12), nn.Conv2d, 1), ((5, 3, 12, 12), nn.Conv2d, 5), ((3, 12), nn.Conv1d, 1), ((5, 3, 12), nn.Conv1d, 5),
    ((3, 4, 12, 12), nn.Conv3d, 1), ((5, 3, 4, 12, 12), nn.Conv3d, 5),
])  # fmt: skip
def test_the_models_convolutions_tell_one_image_from_a_batch(shape, conv, rows):
    model = nn.Sequential(conv(3, 4, 3, padding=1), nn.ReLU())
    assert len(as_probe(torch.rand(shape), model)) == rows
    mixed = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv2d(3, 4, 3))
    assert len(as_probe(torch.rand(5, 3, 12), mixed)) == 5  # not told, so as a batch


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_pictures_are_grey_or_coloured_as_the_model_takes_them(channels, mode, tmp_path):
    model = plain_cnn(channels)
    for kind in ("L", "1", "RGB", "RGBA", "P", "CMYK", "YCbCr"):
        picture = Image.fromarray(BYTES).convert(kind)
        expected = np.asarray(picture.convert(mode), np.float32).reshape(20, 28, channels) / 255
        assert_close(as_probe([picture], model).images[0].permute(1, 2, 0), torch.from_numpy(expected), 1e-6)


def test_a_photo_taken_sideways_is_turned(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(BYTES).save(tmp_path / "a.png", exif=tags)
    found = as_probe(tmp_path / "a.png").images[0].permute(1, 2, 0)
    assert_close(found, torch.from_numpy(np.rot90(BYTES, -1) / 255), 1e-6)


@pytest.mark.parametrize(("images", "error", "said"), [
    (BYTES.astype(np.float32), ValueError, "floats from 0 to 255.*Divide by 255"),
    (BYTES / 255 - 0.5, ValueError, r"floats from -0\.5 to 0\.5"),
    (np.full((4, 4, 3), np.nan), ValueError, "floats from nan"),
    (BYTES.astype(np.int64), TypeError, "array of uint8.*int64"),
    (BYTES.transpose(2, 0, 1), ValueError, "With channels first"),
    (BYTES[None, None], ValueError, r"\(H, W, C\)"),
    (Image.new("I;16", (4, 4)), ValueError, "mode 'I;16'"),
    (Image.new("F", (4, 4)), ValueError, "mode 'F'"),
    ([BYTES, BYTES[:10]], ValueError, r"one size.*\(3, 10, 28\) and \(3, 20, 28\).*Preprocess"),
    ([], TypeError, "an empty list"),
    (5, TypeError, "got int"),
    ([5], TypeError, "got int"),
    ([torch.zeros(3, 4, 4).long()], TypeError, "uint8 or floats"),
    ("no/such/file.png", FileNotFoundError, "no/such/file"),
])  # fmt: skip
def test_what_cannot_be_told_is_refused(images, error, said):
    with pytest.raises(error, match=said):
        explain(plain_cnn(), images)


@pytest.mark.parametrize(("preprocess", "error", "said"), [
    (5, TypeError, "Preprocess, a Normalization, or a callable.*got int"),
    (lambda image: np.asarray(image), TypeError, "return a float tensor.*ndarray"),
    (lambda image: torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, r"torch\.uint8 \(3, 4, 4\)"),
])  # fmt: skip
def test_a_wrong_preprocess_is_refused(preprocess, error, said):
    with pytest.raises(error, match=said):
        explain(plain_cnn(), BYTES, preprocess=preprocess)


def test_a_file_that_is_no_image_and_a_preprocess_beside_a_probe(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        explain(plain_cnn(), tmp_path / "a.png")
    with pytest.raises(ValueError, match="no `preprocess` beside a Probe"):
        explain(plain_cnn(), Probe(torch.rand(1, 3, 8, 8)), preprocess=Normalization(MEAN, STD))
    with pytest.raises(ValueError, match="Expected `size`"):
        Preprocess(MEAN, STD, size=0)


@pytest.mark.parametrize("size", [8, (8, 12), (16, 6), 40])
def test_the_size_covers_and_cuts_the_middle_out(size):
    height, width = (size, size) if isinstance(size, int) else size
    down, across = torch.meshgrid(torch.arange(20.0) + 0.5, torch.arange(28.0) + 0.5, indexing="ij")
    image = torch.stack([down / 20, across / 28, torch.ones_like(down)])
    made = Preprocess((0.0,), (1.0,), size)(image)
    assert made.shape == (3, height, width)
    scale = max(height / 20, width / 28)  # the same for both sides, so nothing is distorted
    inner = made[:, height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2]
    for channel, side in ((0, 20), (1, 28)):  # the middle, but for half a pixel
        assert float(inner[channel].mean()) == pytest.approx(0.5, abs=0.55 / (side * scale))
    assert float((inner[0, 1:] - inner[0, :-1]).mean()) == pytest.approx(1 / (20 * scale), rel=0.1)
    assert float((inner[1, :, 1:] - inner[1, :, :-1]).mean()) == pytest.approx(1 / (28 * scale), rel=0.1)


def slow_overlay(array, heat, alpha, colours):
    """Pixel by pixel, in float64."""
    drawn = np.zeros((*heat.shape, 3))
    for y, x in np.ndindex(heat.shape):
        grey = 0.1 + 0.75 * float(array[y, x] @ np.array([0.299, 0.587, 0.114])) / 255
        step = int(heat[y, x] * 255 + 0.5)
        opacity = alpha * step / 255
        for k in range(3):
            shaded = colours[step][k] * (0.65 + 0.5 * grey)
            drawn[y, x, k] = np.clip(255 * (grey + opacity * (shaded - grey)), 0, 255)
    return drawn


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("form", ["uint8 array", "float array", "PIL", "file", "uint8 tensor", "float tensor"])
def test_overlay_equals_a_slow_replica_for_every_form(form, alpha, tmp_path):
    import matplotlib

    heat = np.random.default_rng(1).random((20, 28))
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, 256))
    expected = slow_overlay(BYTES, heat, alpha, colours)
    image = forms(tmp_path)[form]
    drawn = overlay(image, heat, alpha=alpha, colormap="viridis")
    if isinstance(image, torch.Tensor):
        assert isinstance(drawn, torch.Tensor)
        drawn = drawn.permute(1, 2, 0).numpy()
    assert drawn.dtype == np.uint8
    assert np.abs(drawn - expected).max() <= 1.01  # half a step of the 256 greys, and half a byte
    as_pil = overlay(image, torch.from_numpy(heat), alpha, "viridis", as_pil=True)
    assert isinstance(as_pil, Image.Image)
    assert np.array_equal(np.asarray(as_pil), drawn)


@examples(30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 255))
def test_overlay_of_no_evidence_is_the_grey_photo_at_any_size_of_the_heatmap(height, width, level):
    array = np.full((7, 11, 3), level, np.uint8)
    drawn = overlay(array, np.zeros((height, width)))
    assert np.abs(drawn - (25.5 + 0.75 * level)).max() <= 0.51


def test_overlay_enlarges_a_small_heatmap_as_heatmaps_are():
    small, image = torch.rand(3, 4), torch.rand(3, 12, 16)
    enlarged = nn.functional.interpolate(small[None, None], (12, 16), mode="bilinear")[0, 0]
    assert torch.equal(overlay(image, small), overlay(image, enlarged))


@pytest.mark.parametrize(("arguments", "error", "said"), [
    ((BYTES, np.full((2, 2), 1.5)), ValueError, r"`heatmap` in \[0, 1\].*1\.5"),
    ((BYTES, np.zeros((1, 2, 2))), ValueError, r"`heatmap` of shape \(h, w\), for one image"),
    ((BYTES, [[0.0]]), TypeError, "tensor or an array, but got list"),
    ((BYTES, np.zeros((2, 2)), 2.0), ValueError, "`alpha` from 0 to 1"),
    ((BYTES, np.zeros((2, 2)), 0.5, "infernal"), ValueError, "matplotlib colormap.*Did you mean 'inferno'"),
    ((torch.rand(1, 3, 4, 4), np.zeros((2, 2))), ValueError, "one image"),
    ((torch.randn(3, 4, 4), np.zeros((2, 2))), ValueError, r"pixels in \[0, 1\]"),
])  # fmt: skip
def test_overlay_says_what_is_wrong(arguments, error, said):
    with pytest.raises(error, match=said):
        overlay(*arguments)
