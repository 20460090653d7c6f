"""Slow replicas of the papers' equations in float64, position by position, independent of the package.

A replica is NaN where its paper leaves the result undetermined: a component with an ambiguous eigenvalue or sign.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from tests.helpers.models import plain_gradcam


def iterate_indices(activations):
    """Iterate over image, channel and position of every number."""
    return itertools.product(*map(range, activations.shape))


def create_zeros(activations):
    return torch.zeros(activations.shape[:1] + activations.shape[2:], dtype=torch.float64)


def sum_weighted_channels(weigh):
    """Return a replica that sums channels with weights ``weigh(activations, gradients)`` of one channel."""

    def replica(activations, gradients):
        evidence = create_zeros(activations)
        for n, k in itertools.product(*map(range, activations.shape[:2])):
            evidence[n] += (
                weigh(activations[n, k].flatten().tolist(), gradients[n, k].flatten().tolist()) * activations[n, k]
            )
        return evidence

    return replica


def sum_terms(term):
    """Return a replica that sums ``term(activation, gradient)`` over the channels."""

    def replica(activations, gradients):
        evidence = create_zeros(activations).numpy()
        values, slopes = activations.numpy(), gradients.numpy()  # faster access to single numbers
        for n, k, *position in iterate_indices(activations):
            index = (n, k, *position)
            evidence[(n, *position)] += term(float(values[index]), float(slopes[index]))
        return torch.from_numpy(evidence)

    return replica


def weigh_gradcam_plus_plus(activation, gradient):
    total, weight = sum(activation), 0.0
    for g in gradient:
        denominator = 2 * g**2 + total * g**3  # equation 19
        weight += g**2 / denominator * max(g, 0) if denominator else 0
    return weight


def weigh_xgradcam(activation, gradient):
    total = sum(activation)
    return sum(a * g for a, g in zip(activation, gradient, strict=True)) / total if total else 0.0


def project_component(channels):
    evidence = torch.full_like(create_zeros(channels), torch.nan)
    for n in range(len(channels)):
        table = channels[n].flatten(1).T.numpy()  # rows are positions, columns are channels
        table = table - table.mean(0)
        if not table.any():
            evidence[n] = 0
            continue
        _, sizes, directions = np.linalg.svd(table)
        along = table @ directions[0]
        turn = along @ table.sum(1)
        sure = abs(turn) > 1e-6 * np.linalg.norm(along) * np.abs(table).sum()
        if sure and (len(sizes) == 1 or sizes[1] < 0.999 * sizes[0]):
            evidence[n] = torch.from_numpy(along * np.sign(turn)).reshape(evidence[n].shape)
    return evidence


REPLICAS = {
    "gradcam": plain_gradcam,
    "gradcam++": sum_weighted_channels(weigh_gradcam_plus_plus),
    "xgradcam": sum_weighted_channels(weigh_xgradcam),
    "hirescam": sum_terms(lambda a, g: g * a),
    "layercam": sum_terms(lambda a, g: max(g, 0) * a),
    "gradcam_elementwise": sum_terms(lambda a, g: max(g * a, 0)),
    "eigencam": lambda activations, gradients: project_component(activations),
    "eigengradcam": lambda activations, gradients: project_component(activations * gradients),
    "cam": sum_weighted_channels(lambda activation, gradient: sum(gradient)),
}
"""An equation is tested by an entry here."""

DEGREE = dict.fromkeys(REPLICAS, 1) | {"eigencam": 0}
"""Exponent of a factor on the score in the evidence; Grad-CAM++ has none, as it mixes gradients and activations."""
del DEGREE["gradcam++"]
