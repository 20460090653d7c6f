"""Tensor subclasses with metadata are explained as plain tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from lightning_gradcam import Probe, explain
from lightning_gradcam.probe.batch import read_batch
from lightning_gradcam.probe.plain_tensors import as_plain_tensor


class Meta(Tensor):
    """A tensor with metadata, whose operations reject sizes that are not plain integers, as MONAI's."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("new_empty", "new_zeros", "argmax", "topk"):
            raise TypeError(f"{func.__name__}(): argument 'size' must be tuple of ints")
        return super().__torch_function__(func, types, args, kwargs)


def cnn(dimensions):
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dimensions == 2 else (nn.Conv3d, nn.BatchNorm3d)
    torch.manual_seed(0)
    return nn.Sequential(conv(3, 4, 3), norm(4), nn.ReLU(), conv(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


@pytest.mark.parametrize("kind", [Meta, tv_tensors.Image, tv_tensors.Video])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("method", ["gradcam", "layercam", "ablationcam"])
def test_subclass_is_explained_as_plain_tensor(kind, dimensions, method):
    images = torch.rand(2, 3, *[7] * dimensions)
    model = cnn(dimensions)
    model(images)
    plain = explain(model, images, method=method)
    wrapped = explain(model, images.as_subclass(kind), method=method)
    [key] = plain.evidence
    assert torch.equal(plain.evidence[key], wrapped.evidence[key])
    assert {type(t) for t in (wrapped.evidence[key], wrapped.logits, wrapped.classes, wrapped.heatmaps()[key])} == {
        Tensor
    }


def test_model_that_returns_subclass_is_explained():
    images = torch.rand(2, 3, 7, 7)
    model = cnn(2)
    model(images)
    wrapped = explain(model, images, forward=lambda model, probe: model(probe.images.as_subclass(Meta)))
    [key] = wrapped.evidence
    assert torch.equal(wrapped.evidence[key], explain(model, images).evidence[key])


def test_plain_tensor_shares_memory_and_graph():
    leaf = torch.rand(3, requires_grad=True)
    plain = as_plain_tensor((2 * leaf).as_subclass(Meta))
    assert type(plain) is Tensor
    assert torch.equal(torch.autograd.grad(plain.sum(), leaf)[0], torch.full((3,), 2.0))
    image = tv_tensors.Image(torch.rand(3, 4, 4))
    assert as_plain_tensor(image).data_ptr() == image.data_ptr()


@pytest.mark.parametrize("tensor", [torch.rand(2), nn.Parameter(torch.rand(2))])
def test_other_tensors_are_returned_as_they_are(tensor):
    assert as_plain_tensor(tensor) is tensor


def test_batch_of_subclasses_is_read_as_plain():
    images, masks = tv_tensors.Image(torch.rand(2, 3, 4, 4)), tv_tensors.Mask(torch.zeros(2, 4, 4, dtype=torch.long))
    probe = read_batch({"image": images, "mask": masks, "extra": Meta(torch.rand(2, 5))})
    assert {type(t) for t in (probe.images, probe.labels, *probe.extras.values())} == {Tensor}
    assert type(Probe(images, labels=masks).labels) is Tensor
