"""Attention seen in passing: the model's results stay, and what cannot be followed is said."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

from lightning_gradcam import AttentionRelevance, NotExplainableError, Probe, Rollout, explain
from lightning_gradcam.capture.attention import capture_attention
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.capture.layer import ATTENTION
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.methods.attention import discard_smallest
from tests.helpers.model_state import everything
from tests.helpers.models import TinyViT, assert_close, perturbed
from tests.helpers.pass_replicas import PASS_REPLICAS, matrices


def of_class_one(output, probe):
    return getattr(output, "logits", output)[:, 1]


def seen(model, images, target=of_class_one):
    """All attention, and what the model returned."""
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


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # theirs
@pytest.mark.parametrize("name", MODELS)
def test_a_model_returns_the_same_to_the_bit(name):
    make, layers, side = MODELS[name]
    model, images = perturbed(make()), torch.randn(2, 3, side, side)  # torchvision's head is zero at first
    with isolated(model):
        before = everything(model)
        torch.backends.mha.set_fastpath_enabled(False)
        expected = model(images)
    attention, output = seen(model, images)
    weights_only, plain = seen(model, images, None)
    for found in (output, plain):
        assert torch.equal(getattr(found, "logits", found), getattr(expected, "logits", expected))
    assert len(attention) == len(weights_only) == layers
    for each, alone in zip(attention, weights_only, strict=True):
        assert torch.equal(each.weights, alone.weights)
        assert alone.gradient is None
        torch.testing.assert_close(each.weights.sum(-1), torch.ones(each.weights.shape[:-1]))
    with isolated(model):
        assert everything(model) == before
    found = explain(model, images, method=["rollout", "attention_relevance"], target=1)
    assert found.degenerate[f"{ATTENTION}/rollout"] == (None, None)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("extra", [0, 1])
def test_weights_and_gradients_are_those_computed_by_hand(fused, extra):
    images = torch.randn(2, 3, 16, 16)
    model = perturbed(TinyViT(extra, weights=not fused))
    found, _ = seen(model, images)
    for i, image in enumerate(images):
        for each, (weights, gradient) in zip(found, matrices(model, image, 1), strict=True):
            assert_close(each.weights[i], weights, 1e-6)
            assert_close(each.gradient[i], gradient, 1e-5)


def test_masks_scale_and_grouped_heads_are_those_of_the_kernel():
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


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_heads_are_fused_and_small_entries_discarded_as_told(fusion, ratio):
    images = torch.randn(2, 3, 16, 16)
    model = perturbed(TinyViT())
    found = explain(model, images, method=Rollout(fusion, ratio)).evidence[ATTENTION]
    fuse = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}[fusion]
    for i, image in enumerate(images):
        total = torch.eye(17, dtype=torch.float64)
        for weights, _ in matrices(model, image, 0):
            one = fuse(weights, 0)
            for place in sorted(range(17 * 17), key=lambda p: one.flatten()[p].item())[: int(ratio * 17 * 17)]:
                one[place // 17, place % 17] = 0
            one = one + torch.eye(17, dtype=torch.float64)
            total = one / one.sum(1, keepdim=True) @ total
        assert_close(found[i], total[0, 1:].reshape(4, 4), 1e-5)


@pytest.mark.parametrize("method", [Rollout, AttentionRelevance])
def test_the_reader_is_the_class_token_or_all_patches(method):
    images = torch.randn(2, 3, 16, 16)
    model = perturbed(TinyViT(extra=2))
    found = explain(model, images, method=[method(reader=r) for r in ("auto", "class", "mean")], target=1).evidence
    auto, first, mean = found.values()
    assert torch.equal(auto, first)
    assert (mean - first).abs().max() > 1e-3 * first.abs().max()
    with pytest.raises(ValueError, match="`reader` to be 'auto', 'class' or 'mean', but got 'last'"):
        method(reader="last")


class Windows(nn.Module):
    """Tokens that attend inside of windows, or to fewer tokens."""

    def __init__(self, kind):
        super().__init__()
        self.patches, self.head, self.kind = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5), kind
        self.mix = nn.Linear(8, 8)

    def forward(self, images):
        x = self.mix(self.patches(images).flatten(2).transpose(1, 2))
        if self.kind == "windows":
            parts = x.reshape(-1, 1, 4, 8)
            x = F.scaled_dot_product_attention(parts, parts, parts).reshape(x.shape)
        elif self.kind == "fewer":
            x = F.scaled_dot_product_attention(x[:, None], x[:, None, ::2], x[:, None, ::2])[:, 0]
        elif self.kind == "pooled":
            half = x[:, None, ::2]
            x = self.mix(x + F.scaled_dot_product_attention(half, half, half)[:, 0].mean(1, keepdim=True))
        return self.head(self.mix(x).mean(1))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("windows", r"\(8, 1, 4, 4\) for 2 images, which is windowed attention.*'gradcam'"),
        ("fewer", r"\(2, 1, 16, 8\), which is not square.*'gradcam'"),
        ("pooled", r"over 8 tokens instead of 16 \(0 and a grid of \(4, 4\)\)"),
        ("none", "Expected attention in Windows, but its forward pass called neither"),
    ],
)
def test_what_cannot_be_followed_is_said(kind, why):
    for method in ("rollout", "attention_relevance"):
        with pytest.raises(NotExplainableError, match=why):
            explain(Windows(kind), torch.randn(2, 3, 16, 16), method=method)


def test_nothing_is_left_where_the_pass_raises():
    class Fails(TinyViT):
        def forward(self, images):
            output = super().forward(images)
            if _get_current_function_mode_stack():
                raise ValueError("not now")
            return output

    model, images = Fails().train(), torch.randn(2, 3, 16, 16)
    before = everything(model)
    with pytest.raises(ForwardError, match="not now"):
        explain(model, images, method="attention_relevance")
    assert everything(model) == before
    assert not _get_current_function_mode_stack()


def test_a_no_grad_block_of_the_models_own_hides_no_gradient():
    class Guarded(TinyViT):
        def forward(self, images):
            with torch.no_grad():
                return super().forward(images)

    torch.manual_seed(0)
    model, images = perturbed(Guarded()), torch.randn(2, 3, 16, 16)
    expected = PASS_REPLICAS["attention_relevance"](model, None, images, [1, 1])
    assert_close(explain(model, images, method="attention_relevance", target=1).evidence[ATTENTION], expected, 1e-5)


def test_equal_entries_are_discarded_in_their_order():
    assert discard_smallest(torch.ones(1, 2, 2), 0.5).flatten().tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"`discard_ratio` in \[0, 1\), but got 1"):
        Rollout(discard_ratio=1)
    with pytest.raises(ValueError, match="`head_fusion` to be 'mean', 'max' or 'min', but got 'sum'"):
        Rollout("sum")
