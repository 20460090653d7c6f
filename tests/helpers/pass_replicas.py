"""What methods of passes compute, in float64 and one forward pass at a time: slow, and written without the package.

Each takes a model, the layer (of attention, None), images and one class per image, and returns evidence ``(n, *grid)``.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from tests.helpers.models import TinyViT


def scores(model, images, layer=None, change=None):
    """The logits of a copy in float64, with what a layer returns changed, and what it returned."""
    model, kept = copy.deepcopy(model).double().eval(), []
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False

    def leave(module, args, output):
        kept.append(output.clone())
        return change(output) if change else None

    if layer is not None:
        model.get_submodule(layer).register_forward_hook(leave)
    with torch.no_grad():
        return model(images.double()), kept[0] if kept else None


def enlarged(channel, height, width):
    """Bilinear, corners on corners, place by place."""
    found = torch.zeros(height, width, dtype=torch.float64)
    rows, columns = channel.shape
    for y in range(height):
        for x in range(width):
            down, across = y * (rows - 1) / max(height - 1, 1), x * (columns - 1) / max(width - 1, 1)
            top, left = min(int(down), max(rows - 2, 0)), min(int(across), max(columns - 2, 0))
            a, b = down - top, across - left
            below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            found[y, x] = (1 - a) * ((1 - b) * channel[top, left] + b * channel[top, right])
            found[y, x] += a * ((1 - b) * channel[below, left] + b * channel[below, right])
    return found


def scorecam(model, layer, images, classes):
    evidence = []
    for image, label in zip(images.double(), classes, strict=True):
        _, [maps] = scores(model, image[None], layer)
        logits = []
        for channel in maps:
            mask = enlarged(channel, *image.shape[1:])
            spread = mask.max() - mask.min()
            mask = (mask - mask.min()) / spread if channel.max() > channel.min() else mask * 0
            logits.append(float(scores(model, (image * mask)[None])[0][0, label]))
        exponents = [math.exp(value - max(logits)) for value in logits]
        evidence.append(sum(e / sum(exponents) * channel for e, channel in zip(exponents, maps, strict=True)))
    return torch.stack(evidence)


def ablationcam(model, layer, images, classes):
    evidence = []
    for image, label in zip(images.double(), classes, strict=True):
        output, [maps] = scores(model, image[None], layer)
        whole, total = float(output[0, label]), 0
        for k, channel in enumerate(maps):

            def without(output, k=k):
                output = output.clone()
                output[:, k] = 0
                return output

            left = float(scores(model, image[None], layer, without)[0][0, label])
            total = total + (whole - left) / abs(whole) * channel
        evidence.append(total)
    return torch.stack(evidence)


def matrices(model: TinyViT, image, label):
    """The attention of each block, ``(heads, L, L)``, and the gradient of a class's score there, by hand."""
    model, found = copy.deepcopy(model).double().eval(), []
    x = model.patches(image.double()[None]).flatten(2).transpose(1, 2)[0]
    x = torch.cat([model.extra, x]) + model.positions
    for block in model.blocks:
        attention, normed = block.attention, block.norm(x)
        width = normed.shape[1] // attention.num_heads
        q, k, v = (nn.functional.linear(normed, w, b) for w, b in zip(
            attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True))  # fmt: skip
        heads = []
        for h in range(attention.num_heads):
            part = slice(h * width, (h + 1) * width)
            weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(width), 1)
            weights.retain_grad()
            heads.append((weights, weights @ v[:, part]))
        found.append([weights for weights, _ in heads])
        x = x + attention.out_proj(torch.cat([out for _, out in heads], 1))
        x = x + block.mlp(block.norm(x))
    pooled = x[0] if model.extra.numel() else x.mean(0)
    model.head(pooled)[label].backward()
    return [(torch.stack(heads).detach(), torch.stack([w.grad for w in heads])) for heads in found]


def reached(total, model):
    """The patches' part of the token that the score is read from."""
    extra = len(model.extra)
    row = total[0] if extra else total.mean(0)
    return row[extra:].reshape(model.grid)


def rollout(model, layer, images, classes):
    evidence = []
    for image, label in zip(images, classes, strict=True):
        total = None
        for weights, _ in matrices(model, image, label):
            mixed = sum(weights) / len(weights)
            for i in range(len(mixed)):
                mixed[i, i] += 1
                mixed[i] = mixed[i] / mixed[i].sum()
            total = mixed if total is None else mixed @ total
        evidence.append(reached(total, model))
    return torch.stack(evidence)


def attention_relevance(model, layer, images, classes):
    evidence = []
    for image, label in zip(images, classes, strict=True):
        total = None
        for weights, gradients in matrices(model, image, label):
            step = sum((w * g).clamp(min=0) for w, g in zip(weights, gradients, strict=True)) / len(weights)
            total = torch.eye(len(step), dtype=torch.float64) if total is None else total
            total = total + step @ total
        evidence.append(reached(total, model))
    return torch.stack(evidence)


PASS_REPLICAS = {
    "scorecam": scorecam,
    "ablationcam": ablationcam,
    "rollout": rollout,
    "attention_relevance": attention_relevance,
}
"""A method of passes is tested by being entered here."""
