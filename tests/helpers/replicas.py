"""The papers' equations in float64, place by place: slow, and written without the package.

A replica is NaN where its paper leaves the answer open: a component whose eigenvalue, or whose sign, is not determined.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from tests.helpers.models import plain_gradcam


def places(activations):
    """Image, channel, and place of every number."""
    return itertools.product(*map(range, activations.shape))


def blank(activations):
    return torch.zeros(activations.shape[:1] + activations.shape[2:], dtype=torch.float64)


def weighted(weigh):
    """A sum of channels with weights ``weigh(activations, gradients)``, of one channel each."""

    def replica(activations, gradients):
        evidence = blank(activations)
        for n, k in itertools.product(*map(range, activations.shape[:2])):
            evidence[n] += (
                weigh(activations[n, k].flatten().tolist(), gradients[n, k].flatten().tolist()) * activations[n, k]
            )
        return evidence

    return replica


def each(term):
    """A sum of ``term(activation, gradient)`` over the channels."""

    def replica(activations, gradients):
        evidence = blank(activations).numpy()
        values, slopes = activations.numpy(), gradients.numpy()  # which hand out single numbers faster
        for n, k, *place in places(activations):
            at = (n, k, *place)
            evidence[(n, *place)] += term(float(values[at]), float(slopes[at]))
        return torch.from_numpy(evidence)

    return replica


def plus_plus(activation, gradient):
    total, weight = sum(activation), 0.0
    for g in gradient:
        below = 2 * g**2 + total * g**3  # equation 19
        weight += g**2 / below * max(g, 0) if below else 0
    return weight


def axiom(activation, gradient):
    total = sum(activation)
    return sum(a * g for a, g in zip(activation, gradient, strict=True)) / total if total else 0.0


def component(channels):
    evidence = torch.full_like(blank(channels), torch.nan)
    for n in range(len(channels)):
        table = channels[n].flatten(1).T.numpy()  # places down, channels across
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
    "gradcam++": weighted(plus_plus),
    "xgradcam": weighted(axiom),
    "hirescam": each(lambda a, g: g * a),
    "layercam": each(lambda a, g: max(g, 0) * a),
    "gradcam_elementwise": each(lambda a, g: max(g * a, 0)),
    "eigencam": lambda activations, gradients: component(activations),
    "eigengradcam": lambda activations, gradients: component(activations * gradients),
    "cam": weighted(lambda activation, gradient: sum(gradient)),
}
"""A method is tested by being entered here."""

DEGREE = dict.fromkeys(REPLICAS, 1) | {"eigencam": 0}
"""Evidence grows with this power of a factor on the score; Grad-CAM++ mixes gradients with activations."""
del DEGREE["gradcam++"]
