"""Image files: the whole range of 16 bits and floats, upright, and no other program started."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, TiffImagePlugin
from torchvision.datasets.folder import pil_loader

from lightning_gradcam import Preprocess, explain
from lightning_gradcam.cli.image_folder import read_folder
from lightning_gradcam.probe.image_files import FORMATS, read_image
from lightning_gradcam.probe.image_loading import as_probe
from tests.helpers.models import plain_cnn

SCAN = (np.arange(20 * 28).reshape(20, 28) * 117).astype(np.uint16)  # far beyond 255
FLOATS = (SCAN / 65535).astype(np.float32)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_keep_their_range(tmp_path, suffix, channels):
    path = save(tmp_path / f"scan.{suffix}", SCAN)
    images = as_probe(path, plain_cnn(channels)).images
    assert torch.allclose(images, torch.from_numpy(FLOATS).expand(1, channels, 20, 28), atol=1e-7)
    assert len(images.unique()) == len(np.unique(SCAN))
    folder = read_folder(tmp_path, 1, None, channels, None).images
    assert torch.equal(folder, images)


def test_16_bits_of_a_pgm_keep_their_range(tmp_path):
    path = tmp_path / "scan.pgm"
    path.write_bytes(b"P5 28 20 65535\n" + SCAN.astype(">u2").tobytes())
    assert torch.allclose(as_probe(path).images[0, 0], torch.from_numpy(FLOATS), atol=1e-7)


def test_float_tiff_in_unit_range_is_read_unchanged(tmp_path):
    images = as_probe(save(tmp_path / "a.tiff", FLOATS)).images
    assert torch.equal(images[0, 0], torch.from_numpy(FLOATS))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (FLOATS * 4000 - 1000, r"floats in \[0, 1\], but got floats from -1e\+03 to"),
        (np.full((4, 4), np.nan, np.float32), "floats from nan"),
        (SCAN.astype(np.int32) - 1000, "mode 'I', whose range is unknown"),
    ],
)
def test_files_without_known_range_are_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        as_probe(save(tmp_path / "a.tiff", array))


def test_inverted_tiff_is_read_by_its_tag(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0  # white is zero
    path = save(tmp_path / "a.tiff", SCAN, tiffinfo=tags)
    with Image.open(path) as file:
        photometric = file.tag_v2[262]
    expected = 1 - FLOATS if photometric == 0 else FLOATS
    assert np.allclose(read_image(path)[0].numpy(), expected, atol=1e-6)


def test_preprocess_resizes_16_bits_with_their_range(tmp_path):
    preprocess = Preprocess((0.5,), (0.25,), size=10)
    path = save(tmp_path / "a.png", SCAN)
    of_file = explain(plain_cnn(1), path, preprocess=preprocess)
    of_array = explain(plain_cnn(1), FLOATS, preprocess=preprocess)
    assert torch.allclose(of_file.photos, of_array.photos, atol=1e-6)
    assert len(of_file.photos.unique()) > 50


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied_and_said(tmp_path, orientation, suffix, recwarn, capsys):
    tags = Image.Exif()
    tags[0x0112] = orientation
    gray = (SCAN >> 8).astype(np.uint8)
    path = save(tmp_path / f"a.{suffix}", gray, exif=tags)
    stored = np.asarray(pil_loader(str(path)))[..., 0]  # torchvision ignores the orientation
    turned = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T,
        6: np.rot90(stored, -1), 7: stored[::-1, ::-1].T, 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    pixels = (as_probe(path, plain_cnn(1)).images[0, 0] * 255).round().numpy()
    assert np.array_equal(pixels, turned)
    assert len(recwarn) == (orientation != 1)
    in_folder = read_folder(tmp_path, 1, None, 1, None).images[0, 0]
    assert np.array_equal((in_folder * 255).round().numpy(), turned)
    assert capsys.readouterr().err.count("ImageFolder") == (orientation != 1)


def test_postscript_named_png_starts_no_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: started.append(args))
    path = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    with pytest.raises(ValueError, match=r"photo\.png cannot be read: its content is none of PNG, JPEG"):
        explain(plain_cnn(), path)
    assert not started


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Pillow, about rare formats
def test_only_formats_that_pillow_decodes_itself_are_read(tmp_path, monkeypatch):
    Image.init()
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))  # saving as SPIDER makes ".png" mean SPIDER
    image, path = Image.new("RGB", (8, 8), (10, 200, 30)), tmp_path / "a.png"
    for name in sorted(set(Image.SAVE) & set(Image.OPEN)):
        try:
            image.save(path, name)
        except (OSError, ValueError, KeyError):  # another mode, or a format that needs an external program
            continue
        try:
            read_image(path)
        except ValueError:
            assert name not in FORMATS, name
        else:
            with Image.open(path) as file:
                assert file.format in FORMATS


def test_damaged_files_are_named_in_one_line(tmp_path):
    content = save(tmp_path / "a.png", SCAN).read_bytes()
    for length in (9, 40, len(content) // 2, len(content) - 30):
        (tmp_path / "b.png").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"b\.png cannot be read") as caught:
            read_image(tmp_path / "b.png")
        assert "\n" not in str(caught.value)
