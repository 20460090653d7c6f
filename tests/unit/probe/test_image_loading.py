"""Images of every supported type, and errors for the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from lightning_gradcam import Normalization, Preprocess, Probe, explain
from lightning_gradcam.probe.image_loading import as_probe
from tests.helpers.images import BYTES, forms
from tests.helpers.models import assert_close, perturbed, plain_cnn

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FORMS = [
    "uint8 array", "float array", "float64 array", "array of a batch", "list", "PIL", "list of PIL", "file", "path",
    "uint8 tensor", "float tensor", "batch", "list of tensors",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_image_type_gives_the_same_evidence(form, tmp_path):
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
def test_torchvision_v1_transforms_get_supported_types(form, tmp_path):
    steps = [v1.Resize(12), v1.CenterCrop(10), v1.ToTensor(), v1.Normalize(MEAN, STD)]
    found = as_probe(forms(tmp_path)[form], plain_cnn(), v1.Compose(steps))
    assert torch.equal(found.images, v1.Compose(steps)(Image.fromarray(BYTES))[None])
    assert found.pixels == Normalization(MEAN, STD)


def test_without_preprocess_tensors_are_unchanged_others_0_to_1(tmp_path):
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
def test_convolutions_distinguish_one_image_from_a_batch(shape, conv, rows):
    model = nn.Sequential(conv(3, 4, 3, padding=1), nn.ReLU())
    assert len(as_probe(torch.rand(shape), model)) == rows
    mixed = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv2d(3, 4, 3))
    assert len(as_probe(torch.rand(5, 3, 12), mixed)) == 5  # not told, so as a batch


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_images_are_gray_or_rgb_as_the_model_expects(channels, mode, tmp_path):
    model = plain_cnn(channels)
    for kind in ("L", "1", "RGB", "RGBA", "P", "CMYK", "YCbCr"):
        picture = Image.fromarray(BYTES).convert(kind)
        expected = np.asarray(picture.convert(mode), np.float32).reshape(20, 28, channels) / 255
        assert_close(as_probe([picture], model).images[0].permute(1, 2, 0), torch.from_numpy(expected), 1e-6)


def test_exif_orientation_is_applied(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(BYTES).save(tmp_path / "a.png", exif=tags)
    with pytest.warns(UserWarning, match="turned upright by its EXIF orientation.*ImageFolder and decode_image ignore"):
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
    ([BYTES, BYTES[:10]], ValueError, r"same size.*\(3, 10, 28\) and \(3, 20, 28\).*Preprocess"),
    ([], TypeError, "an empty list"),
    (5, TypeError, "got int"),
    ([5], TypeError, "got int"),
    ([torch.zeros(3, 4, 4).long()], TypeError, "uint8 or floats"),
    ("no/such/file.png", FileNotFoundError, "no/such/file"),
])  # fmt: skip
def test_ambiguous_or_unsupported_images_raise(images, error, said):
    with pytest.raises(error, match=said):
        explain(plain_cnn(), images)


@pytest.mark.parametrize(("preprocess", "error", "said"), [
    (5, TypeError, "Preprocess, a Normalization, or a callable.*got int"),
    (lambda image: np.asarray(image), TypeError, "return a float tensor.*ndarray"),
    (lambda image: torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, r"torch\.uint8 \(3, 4, 4\)"),
])  # fmt: skip
def test_invalid_preprocess_raises(preprocess, error, said):
    with pytest.raises(error, match=said):
        explain(plain_cnn(), BYTES, preprocess=preprocess)


def test_invalid_file_preprocess_with_probe_and_size_raise(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        explain(plain_cnn(), tmp_path / "a.png")
    with pytest.raises(ValueError, match="no `preprocess` with a Probe"):
        explain(plain_cnn(), Probe(torch.rand(1, 3, 8, 8)), preprocess=Normalization(MEAN, STD))
    with pytest.raises(ValueError, match="Expected `size`"):
        Preprocess(MEAN, STD, size=0)


@pytest.mark.parametrize("size", [8, (8, 12), (16, 6), 40])
def test_preprocess_size_covers_and_crops_center(size):
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


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.int32])
def test_integer_tensors_of_a_casting_model_are_explained(dtype):
    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = plain_cnn(1)

        def forward(self, images):
            return self.inner(images.float() / 100)

    torch.manual_seed(0)
    model, images = Casts().eval(), torch.randint(0, 99, (2, 1, 16, 16)).to(dtype)
    found, expected = explain(model, images, target=1), explain(model, images.float(), target=1)
    assert list(found.evidence) == list(expected.evidence)
    for key, evidence in found.evidence.items():
        assert torch.equal(evidence, expected.evidence[key])
