"""Slow float64 replicas of the methods at the pixels: one image at a time, no captum."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.models import full_autograd, plain_gradcam

SAMPLES, NOISE, STEPS = 20, 0.2, 12
WINDOW, STRIDE = (5, 4), (3, 4)
SEGMENTS = 2


def gradient(model: nn.Module, image: Tensor, label: int) -> Tensor:
    """Of the logit, ``(C, *s)``."""
    given = image[None].clone().requires_grad_()
    model(given)[0, label].backward()
    return given.grad[0]


def saliency(model, image, label):
    return gradient(model, image, label).abs().amax(0)


def integrated_gradients(model, image, label):
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    total = torch.zeros_like(image)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        total += weight / 2 * gradient(model, (node + 1) / 2 * image, label)
    return (total * image).sum(0)


def smoothgrad(model, image, label):
    torch.manual_seed(0)
    sigma = NOISE * float(image.float().max() - image.float().min())
    parts = [min(16, SAMPLES - start) for start in range(0, SAMPLES, 16)]
    noise = torch.cat([torch.normal(0, torch.tensor(sigma).repeat(part, *image.shape)) for part in parts])
    return torch.stack([gradient(model, image + each.double(), label) for each in noise]).mean(0).abs().amax(0)


def hooked(rule):
    """A plain gradient through a copy of the model whose ReLU modules, all of them out of place, have hooks."""

    def replica(model, image, label, score=None):
        model = copy.deepcopy(model)
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
                module.register_full_backward_hook(lambda _, came, went: (rule(came[0], went[0]),))
        if score is None:
            return gradient(model, image, label).abs().amax(0)
        given = image[None].clone().requires_grad_()
        score(model, given).backward()
        return given.grad[0].abs().amax(0)

    return replica


guided = hooked(lambda came, went: came.clamp_min(0))
deconvolution = hooked(lambda came, went: went.clamp_min(0))


def guided_gradcam(model, image, label, layer):
    coarse = plain_gradcam(*full_autograd(model, layer, image[None], lambda out: out[:, label])).relu()
    return F.interpolate(coarse[None], size=image.shape[1:], mode="bilinear")[0, 0] * guided(model, image, label)


@torch.no_grad()
def occlusion(model, image, label):
    mean = image.mean((1, 2), keepdim=True).expand_as(image)
    score = float(model(image[None])[0, label])
    total, covered = torch.zeros(2, *image.shape[1:], dtype=torch.float64)
    height, width = image.shape[1:]
    # The last window of a row reaches the border, wherever the one before it ended.
    for y in range(0, max(height - WINDOW[0], 0) + STRIDE[0], STRIDE[0]):
        for x in range(0, max(width - WINDOW[1], 0) + STRIDE[1], STRIDE[1]):
            rows, columns = slice(y, y + WINDOW[0]), slice(x, x + WINDOW[1])
            hidden = image.clone()
            hidden[:, rows, columns] = mean[:, rows, columns]
            total[rows, columns] += score - float(model(hidden[None])[0, label])
            covered[rows, columns] += 1
    return total / covered


def parts(model, image, label):
    """The logit for each set of quarters that are seen, and which quarter each place is in."""
    height, width = image.shape[1:]
    quarter = 2 * (torch.arange(height) >= height / 2)[:, None] + (torch.arange(width) >= width / 2)[None]
    mean = image.mean((1, 2), keepdim=True).expand_as(image)

    @torch.no_grad()
    def value(seen) -> float:
        shown = torch.where(torch.tensor([q in seen for q in range(4)])[quarter], image, mean)
        return float(model(shown[None])[0, label])

    return value, quarter


def kernel_shap(model, image, label):
    """Shapley values themselves: the mean over all orders."""
    value, quarter = parts(model, image, label)
    shares = torch.zeros(4, dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        for i, q in enumerate(order):
            shares[q] += (value(set(order[: i + 1])) - value(set(order[:i]))) / math.factorial(4)
    return shares[quarter]


def lime(model, image, label):
    value, quarter = parts(model, image, label)
    torch.manual_seed(0)
    kept = torch.stack([torch.bernoulli(torch.full((4,), 0.5)) for _ in range(SAMPLES)]).double().numpy()
    outputs = np.array([value({q for q in range(4) if row[q]}) for row in kept])
    weights = np.exp(-((1 - np.sqrt(kept.mean(1))) ** 2) / (2 * 0.25**2))
    # The intercept is free: with weighted means taken off, only the slopes are left.
    centred = kept - weights @ kept / weights.sum()
    behind = outputs - weights @ outputs / weights.sum()
    slopes = np.linalg.solve(centred.T * weights @ centred + np.eye(4), centred.T * weights @ behind)
    return torch.from_numpy(slopes)[quarter]


REPLICAS = {
    "saliency": saliency,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "guided_backprop": guided,
    "deconvolution": deconvolution,
    "guided_gradcam": guided_gradcam,
    "occlusion": occlusion,
    "lime": lime,
    "kernel_shap": kernel_shap,
}
"""A method at the pixels is tested by being entered here."""
