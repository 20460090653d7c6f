"""Attention rollout and relevance: their options, and attention that they reject."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

from lightning_gradcam import AttentionRelevance, NotExplainableError, Rollout, explain
from lightning_gradcam.capture.layer import ATTENTION
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.methods.attention import discard_smallest
from tests.helpers.model_state import everything
from tests.helpers.models import TinyViT, assert_close, perturbed
from tests.helpers.pass_replicas import PASS_REPLICAS, compute_attention


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_rollout_fuses_heads_and_discards_small_entries(fusion, ratio):
    images = torch.randn(2, 3, 16, 16)
    model = perturbed(TinyViT())
    evidence = explain(model, images, method=Rollout(fusion, ratio)).evidence[ATTENTION]
    fuse = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}[fusion]
    for i, image in enumerate(images):
        total = torch.eye(17, dtype=torch.float64)
        for weights, _ in compute_attention(model, image, 0):
            matrix = fuse(weights, 0)
            for index in sorted(range(17 * 17), key=lambda p: matrix.flatten()[p].item())[: int(ratio * 17 * 17)]:
                matrix[index // 17, index % 17] = 0
            matrix = matrix + torch.eye(17, dtype=torch.float64)
            total = matrix / matrix.sum(1, keepdim=True) @ total
        assert_close(evidence[i], total[0, 1:].reshape(4, 4), 1e-5)


@pytest.mark.parametrize("method", [Rollout, AttentionRelevance])
def test_reader_is_the_class_token_or_all_patches(method):
    images = torch.randn(2, 3, 16, 16)
    model = perturbed(TinyViT(extra=2))
    evidence = explain(model, images, method=[method(reader=r) for r in ("auto", "class", "mean")], target=1).evidence
    auto, first, mean = evidence.values()
    assert torch.equal(auto, first)
    assert (mean - first).abs().max() > 1e-3 * first.abs().max()
    with pytest.raises(ValueError, match="`reader` to be 'auto', 'class' or 'mean', but got 'last'"):
        method(reader="last")


class Windows(nn.Module):
    """Model whose tokens attend within windows, or to fewer tokens."""

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
    ("kind", "message"),
    [
        ("windows", r"\(8, 1, 4, 4\) for 2 images, which is windowed attention.*'gradcam'"),
        ("fewer", r"\(2, 1, 16, 8\), which is not square.*'gradcam'"),
        ("pooled", r"over 8 tokens instead of 16 \(0 and a grid of \(4, 4\)\)"),
        ("none", "Expected attention in Windows, but its forward pass called neither"),
    ],
)
def test_unsupported_attention_raises(kind, message):
    for method in ("rollout", "attention_relevance"):
        with pytest.raises(NotExplainableError, match=message):
            explain(Windows(kind), torch.randn(2, 3, 16, 16), method=method)


def test_failing_pass_leaves_no_trace_on_the_model():
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


def test_relevance_ignores_no_grad_blocks_of_the_model():
    class Guarded(TinyViT):
        def forward(self, images):
            with torch.no_grad():
                return super().forward(images)

    torch.manual_seed(0)
    model, images = perturbed(Guarded()), torch.randn(2, 3, 16, 16)
    expected = PASS_REPLICAS["attention_relevance"](model, None, images, [1, 1])
    assert_close(explain(model, images, method="attention_relevance", target=1).evidence[ATTENTION], expected, 1e-5)


def test_discard_smallest_keeps_the_order_of_ties():
    assert discard_smallest(torch.ones(1, 2, 2), 0.5).flatten().tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"`discard_ratio` in \[0, 1\), but got 1"):
        Rollout(discard_ratio=1)
    with pytest.raises(ValueError, match="`head_fusion` to be 'mean', 'max' or 'min', but got 'sum'"):
        Rollout("sum")
