"""Copies of inference tensors."""

from __future__ import annotations

import torch

from lightning_gradcam.probe.inference_tensors import without_inference_tensors


def test_inference_tensors_are_copied_inside_inference_mode():
    with torch.inference_mode():
        images = torch.ones(2)
        [copy] = without_inference_tensors(images)
    assert not copy.is_inference()
    assert torch.equal(copy, images)
    copy.requires_grad_().sum().backward()
    assert torch.equal(copy.grad, torch.ones(2))


def test_other_values_are_returned_without_a_copy():
    with torch.inference_mode():
        images = torch.ones(2)
    labels, name = torch.ones(2, requires_grad=True), "image"
    values = without_inference_tensors(labels, name, images)
    assert values[0] is labels
    assert values[1] is name
    assert values[2] is not images
