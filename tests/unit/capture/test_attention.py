"""Captured attention: the output stays the same, and weights and gradients are exact."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch.nn import functional as F

from lightning_gradcam import Probe, explain
from lightning_gradcam.capture.attention import capture_attention
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.layer import ATTENTION
from tests.helpers.model_state import everything
from tests.helpers.models import TinyViT, assert_close, perturbed
from tests.helpers.pass_replicas import compute_attention


def of_class_one(output, probe):
    return getattr(output, "logits", output)[:, 1]


def capture_all_attention(model, images, target=of_class_one):
    """Return all attention of a pass and the output of the model."""
    outputs = []

    def run(probe):
        outputs.append(model(probe.images))
        return outputs[-1]

    with isolated(model):
        return capture_attention(model, Probe(images), run, target), outputs[-1]


def eager_vit(implementation="eager"):
    transformers = pytest.importorskip("transformers", reason="transformers is not among the packages of the tests")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(
        **small, image_size=32, patch_size=8, num_labels=5, attn_implementation=implementation
    )
    return transformers.ViTForImageClassification(config).eval()


def timm_vit(name="vit_tiny_patch16_224"):
    return (
        pytest.importorskip("timm", reason="timm is not among the packages of the tests")
        .create_model(name, num_classes=5, img_size=32)
        .eval()
    )


MODELS = {
    "fused": (TinyViT, 3, 16),
    "not fused": (lambda: TinyViT(weights=True), 3, 16),
    "torchvision": (lambda: torchvision.models.vit_b_32(num_classes=5, image_size=64), 12, 64),
    "timm": (timm_vit, 12, 32),
    "timm, distilled": (lambda: timm_vit("deit_tiny_distilled_patch16_224"), 12, 32),
    "transformers, eager": (eager_vit, 2, 32),
    "transformers, fused": (lambda: eager_vit("sdpa"), 2, 32),
}


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # from the libraries
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "torchvision" else ()) for name in MODELS]
)
def test_capture_keeps_the_output_bit_for_bit(name):
    make, layers, side = MODELS[name]
    model, images = perturbed(make()), torch.randn(2, 3, side, side)  # torchvision initializes its head with zeros
    with isolated(model):
        before = everything(model)
        torch.backends.mha.set_fastpath_enabled(False)
        expected = model(images)
    attention, output = capture_all_attention(model, images)
    weights_only, plain = capture_all_attention(model, images, None)
    for captured_output in (output, plain):
        assert torch.equal(getattr(captured_output, "logits", captured_output), getattr(expected, "logits", expected))
    assert len(attention) == len(weights_only) == layers
    for captured, plain_map in zip(attention, weights_only, strict=True):
        assert torch.equal(captured.weights, plain_map.weights)
        assert plain_map.gradient is None
        torch.testing.assert_close(captured.weights.sum(-1), torch.ones(captured.weights.shape[:-1]))
    with isolated(model):
        assert everything(model) == before
    explanation = explain(model, images, method=["rollout", "attention_relevance"], target=1)
    assert explanation.degenerate[f"{ATTENTION}/rollout"] == (None, None)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("extra", [0, 1])
def test_weights_and_gradients_equal_the_replica(fused, extra):
    images = torch.randn(2, 3, 16, 16)
    model = perturbed(TinyViT(extra, weights=not fused))
    attention, _ = capture_all_attention(model, images)
    for i, image in enumerate(images):
        for captured, (weights, gradient) in zip(attention, compute_attention(model, image, 1), strict=True):
            assert_close(captured.weights[i], weights, 1e-6)
            assert_close(captured.gradient[i], gradient, 1e-5)


def test_weights_equal_the_kernel_for_all_options():
    from lightning_gradcam.capture.attention import compute_weights_and_values

    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)
    mask = torch.rand(2, 1, 5, 5) > 0.3
    mask[..., 0] = True
    for change in (
        {}, {"is_causal": True}, {"attn_mask": mask}, {"attn_mask": torch.randn(5, 5)}, {"scale": 0.1},
        {"enable_gqa": True},
    ):  # fmt: skip
        few = (k[:, :2], v[:, :2]) if "enable_gqa" in change else (k, v)
        weights, values = compute_weights_and_values(q, *few, **change)
        torch.testing.assert_close(weights @ values, F.scaled_dot_product_attention(q, *few, **change))
