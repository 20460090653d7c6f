"""Slow replicas of the pass methods in float64, one forward pass at a time, independent of the package.

Each takes a model, the layer (None for attention), images and one class per image, and returns evidence ``(n, *grid)``.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from tests.helpers.models import TinyViT


def compute_logits(model, images, layer=None, change=None):
    """Return the logits of a float64 copy with a changed layer output, and the original output of the layer."""
    model, outputs = copy.deepcopy(model).double().eval(), []
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False

    def record(module, args, output):
        outputs.append(output.clone())
        return change(output) if change else None

    if layer is not None:
        model.get_submodule(layer).register_forward_hook(record)
    with torch.no_grad():
        return model(images.double()), outputs[0] if outputs else None


def upsample(channel, height, width):
    """Upsample bilinearly with aligned corners, pixel by pixel."""
    pixels = torch.zeros(height, width, dtype=torch.float64)
    rows, columns = channel.shape
    for y in range(height):
        for x in range(width):
            down, across = y * (rows - 1) / max(height - 1, 1), x * (columns - 1) / max(width - 1, 1)
            top, left = min(int(down), max(rows - 2, 0)), min(int(across), max(columns - 2, 0))
            a, b = down - top, across - left
            below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            pixels[y, x] = (1 - a) * ((1 - b) * channel[top, left] + b * channel[top, right])
            pixels[y, x] += a * ((1 - b) * channel[below, left] + b * channel[below, right])
    return pixels


def scorecam(model, layer, images, classes):
    evidence = []
    for image, label in zip(images.double(), classes, strict=True):
        _, [maps] = compute_logits(model, image[None], layer)
        logits = []
        for channel in maps:
            mask = upsample(channel, *image.shape[1:])
            spread = mask.max() - mask.min()
            mask = (mask - mask.min()) / spread if channel.max() > channel.min() else mask * 0
            logits.append(float(compute_logits(model, (image * mask)[None])[0][0, label]))
        exponents = [math.exp(value - max(logits)) for value in logits]
        evidence.append(sum(e / sum(exponents) * channel for e, channel in zip(exponents, maps, strict=True)))
    return torch.stack(evidence)


def ablationcam(model, layer, images, classes):
    evidence = []
    for image, label in zip(images.double(), classes, strict=True):
        output, [maps] = compute_logits(model, image[None], layer)
        score, total = float(output[0, label]), 0
        for k, channel in enumerate(maps):

            def ablate(output, k=k):
                output = output.clone()
                output[:, k] = 0
                return output

            ablated = float(compute_logits(model, image[None], layer, ablate)[0][0, label])
            total = total + (score - ablated) / abs(score) * channel
        evidence.append(total)
    return torch.stack(evidence)


def compute_attention(model: TinyViT, image, label):
    """Compute the attention of each block, ``(heads, L, L)``, and the gradient of a class's score there."""
    model, attention_by_block = copy.deepcopy(model).double().eval(), []
    x = model.patches(image.double()[None]).flatten(2).transpose(1, 2)[0]
    x = torch.cat([model.extra, x]) + model.positions
    for block in model.blocks:
        attention, normed = block.attention, block.norm(x)
        width = normed.shape[1] // attention.num_heads
        q, k, v = (nn.functional.linear(normed, w, b) for w, b in zip(
            attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True))  # fmt: skip
        heads = []
        for h in range(attention.num_heads):
            columns = slice(h * width, (h + 1) * width)
            weights = torch.softmax(q[:, columns] @ k[:, columns].T / math.sqrt(width), 1)
            weights.retain_grad()
            heads.append((weights, weights @ v[:, columns]))
        attention_by_block.append([weights for weights, _ in heads])
        x = x + attention.out_proj(torch.cat([out for _, out in heads], 1))
        x = x + block.mlp(block.norm(x))
    pooled = x[0] if model.extra.numel() else x.mean(0)
    model.head(pooled)[label].backward()
    return [(torch.stack(heads).detach(), torch.stack([w.grad for w in heads])) for heads in attention_by_block]


def read_patches(total, model):
    """Return the row of the classifier's token on the grid of patches."""
    extra = len(model.extra)
    row = total[0] if extra else total.mean(0)
    return row[extra:].reshape(model.grid)


def rollout(model, layer, images, classes):
    evidence = []
    for image, label in zip(images, classes, strict=True):
        total = None
        for weights, _ in compute_attention(model, image, label):
            mixed = sum(weights) / len(weights)
            for i in range(len(mixed)):
                mixed[i, i] += 1
                mixed[i] = mixed[i] / mixed[i].sum()
            total = mixed if total is None else mixed @ total
        evidence.append(read_patches(total, model))
    return torch.stack(evidence)


def attention_relevance(model, layer, images, classes):
    evidence = []
    for image, label in zip(images, classes, strict=True):
        total = None
        for weights, gradients in compute_attention(model, image, label):
            step = sum((w * g).clamp(min=0) for w, g in zip(weights, gradients, strict=True)) / len(weights)
            total = torch.eye(len(step), dtype=torch.float64) if total is None else total
            total = total + step @ total
        evidence.append(read_patches(total, model))
    return torch.stack(evidence)


PASS_REPLICAS = {
    "scorecam": scorecam,
    "ablationcam": ablationcam,
    "rollout": rollout,
    "attention_relevance": attention_relevance,
}
"""A pass method is tested by an entry here."""
