"""Slow float64 replicas of the methods at the pixels, one image at a time, without Captum."""

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


def compute_gradient(model: nn.Module, image: Tensor, label: int) -> Tensor:
    """Compute the gradient of the logit at the image, ``(C, *s)``."""
    batch = image[None].clone().requires_grad_()
    model(batch)[0, label].backward()
    return batch.grad[0]


def saliency(model, image, label):
    return compute_gradient(model, image, label).abs().amax(0)


def integrated_gradients(model, image, label):
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    total = torch.zeros_like(image)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        total += weight / 2 * compute_gradient(model, (node + 1) / 2 * image, label)
    return (total * image).sum(0)


def smoothgrad(model, image, label):
    torch.manual_seed(0)
    sigma = NOISE * float(image.float().max() - image.float().min())
    batch_sizes = [min(16, SAMPLES - start) for start in range(0, SAMPLES, 16)]
    noise = torch.cat([torch.normal(0, torch.tensor(sigma).repeat(size, *image.shape)) for size in batch_sizes])
    return (
        torch.stack([compute_gradient(model, image + sample.double(), label) for sample in noise]).mean(0).abs().amax(0)
    )


def create_hook_replica(rule):
    """Return the gradient through a copy of the model with hooks on its ReLU modules, none of them in place."""

    def replica(model, image, label, score=None):
        model = copy.deepcopy(model)
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
                module.register_full_backward_hook(lambda _, inputs, outputs: (rule(inputs[0], outputs[0]),))
        if score is None:
            return compute_gradient(model, image, label).abs().amax(0)
        batch = image[None].clone().requires_grad_()
        score(model, batch).backward()
        return batch.grad[0].abs().amax(0)

    return replica


guided = create_hook_replica(lambda grad_input, grad_output: grad_input.clamp_min(0))
deconvolution = create_hook_replica(lambda grad_input, grad_output: grad_output.clamp_min(0))


def guided_gradcam(model, image, label, layer):
    coarse = plain_gradcam(*full_autograd(model, layer, image[None], lambda out: out[:, label])).relu()
    return F.interpolate(coarse[None], size=image.shape[1:], mode="bilinear")[0, 0] * guided(model, image, label)


@torch.no_grad()
def occlusion(model, image, label):
    mean = image.mean((1, 2), keepdim=True).expand_as(image)
    score = float(model(image[None])[0, label])
    total, covered = torch.zeros(2, *image.shape[1:], dtype=torch.float64)
    height, width = image.shape[1:]
    # The last window of a row reaches the border, and may overlap the previous one.
    for y in range(0, max(height - WINDOW[0], 0) + STRIDE[0], STRIDE[0]):
        for x in range(0, max(width - WINDOW[1], 0) + STRIDE[1], STRIDE[1]):
            rows, columns = slice(y, y + WINDOW[0]), slice(x, x + WINDOW[1])
            hidden = image.clone()
            hidden[:, rows, columns] = mean[:, rows, columns]
            total[rows, columns] += score - float(model(hidden[None])[0, label])
            covered[rows, columns] += 1
    return total / covered


def split_quarters(model, image, label):
    """Return the logit as a function of the visible quarters, and the quarter of each pixel."""
    height, width = image.shape[1:]
    quarter = 2 * (torch.arange(height) >= height / 2)[:, None] + (torch.arange(width) >= width / 2)[None]
    mean = image.mean((1, 2), keepdim=True).expand_as(image)

    @torch.no_grad()
    def value(visible) -> float:
        perturbed = torch.where(torch.tensor([q in visible for q in range(4)])[quarter], image, mean)
        return float(model(perturbed[None])[0, label])

    return value, quarter


def kernel_shap(model, image, label):
    """Compute exact Shapley values: the mean over all orders."""
    value, quarter = split_quarters(model, image, label)
    values = torch.zeros(4, dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        for i, q in enumerate(order):
            values[q] += (value(set(order[: i + 1])) - value(set(order[:i]))) / math.factorial(4)
    return values[quarter]


def lime(model, image, label):
    value, quarter = split_quarters(model, image, label)
    torch.manual_seed(0)
    visible = torch.stack([torch.bernoulli(torch.full((4,), 0.5)) for _ in range(SAMPLES)]).double().numpy()
    outputs = np.array([value({q for q in range(4) if row[q]}) for row in visible])
    weights = np.exp(-((1 - np.sqrt(visible.mean(1))) ** 2) / (2 * 0.25**2))
    # The intercept is not penalized: with the weighted means subtracted, only the slopes remain.
    centered = visible - weights @ visible / weights.sum()
    residual = outputs - weights @ outputs / weights.sum()
    slopes = np.linalg.solve(centered.T * weights @ centered + np.eye(4), centered.T * weights @ residual)
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
"""A pixel method is tested by an entry here."""
