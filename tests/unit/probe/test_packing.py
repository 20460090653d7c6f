"""Packed tensors are smaller, and equal bit for bit after unpacking."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torchvision.transforms import v2

from lightning_gradcam import Normalization, Probe
from lightning_gradcam.probe.packing import pack, unpack

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def same_bits(a, b):
    bits = BITS[a.element_size()]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(bits), b.view(bits))


def photos(count=4, channels=3, side=32, dtype=torch.float32):
    """Smooth images of 8 bits, normalized by torchvision."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rows = [(x * (i + 1) + y * c) % 256 for i in range(count) for c in range(channels)]
    images = torch.stack(rows).reshape(count, channels, side, side).to(torch.uint8)
    values = v2.ToDtype(torch.float32, scale=True)(images)
    return v2.Normalize([0.4] * channels, [0.2] * channels)(values).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_normalized_8_bit_images_shrink_without_loss(dtype):
    images = photos(dtype=dtype)
    packed = pack(images)
    assert same_bits(images, unpack(packed))
    assert sum(packed[name].nbytes for name in ("codes", "levels")) < images.nbytes / 2


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    levels=st.sampled_from([1, 2, 255, 256, 257, 5000]),
    dtype=st.sampled_from(
        [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
    ),
)
def test_unpacked_tensor_is_equal_bit_for_bit(seed, shape, levels, dtype):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(levels, generator=generator).mul(9)
    tensor = values[torch.randint(levels, (*shape, 16, 16)[: max(len(shape), 3)], generator=generator)].to(dtype)
    assert same_bits(tensor, unpack(pack(tensor)))


def test_signs_of_zero_and_nan_payloads_are_kept():
    special = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e-45])
    tensor = special[torch.arange(2 * 3 * 64 * 64) % 6].reshape(2, 3, 64, 64)
    assert isinstance(pack(tensor), dict)
    assert same_bits(tensor, unpack(pack(tensor)))


def test_values_beyond_one_byte_stay_a_tensor():
    noise = torch.rand(2, 3, 16, 16)
    assert pack(noise) is noise
    channel_of_many_values = photos()
    channel_of_many_values[:, 2] = torch.rand(4, 32, 32)
    assert pack(channel_of_many_values) is channel_of_many_values


def test_probe_survives_checkpoint_with_all_fields():
    probe = Probe(
        photos(), labels=torch.randint(5, (4, 32, 32)), masks=torch.rand(4, 32, 32) > 0.9, references=photos(side=48),
        ids=list("abcd"), extras={"second": photos(channels=1), "age": torch.rand(4, 1)},
        pixels=Normalization((0.4,), (0.2,), bands=(2, 0, 1)),
    )  # fmt: skip
    file = io.BytesIO()
    torch.save(probe.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    restored = Probe.from_state_dict(state)
    for (name, values), (_, copy) in zip(probe._list_fields(), restored._list_fields(), strict=True):
        assert values == copy if name == "ids" else same_bits(values, copy), name
    assert restored.pixels == probe.pixels
    assert len(file.getvalue()) < 0.3 * probe.nbytes


@pytest.mark.parametrize(
    "change", [lambda p: p | {"shape": [9, *p["shape"][1:]]}, lambda p: p | {"shape": [1, 3, 32, 32]}]
)
def test_packed_content_of_another_size_is_refused(change):
    with pytest.raises(ValueError, match="packed values"):
        unpack(change(pack(photos())))
