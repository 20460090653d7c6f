"""pytorch-grad-cam as an oracle for the equations, and the models that both explain."""

from __future__ import annotations

import pytorch_grad_cam as peers
import torch
import torchvision
from torch import nn

from tests.helpers.models import TinyResNet, of_class, perturbed, plain_cnn

ORACLES = {
    "gradcam": peers.GradCAM,
    "gradcam++": peers.GradCAMPlusPlus,
    "xgradcam": peers.XGradCAM,
    "hirescam": peers.HiResCAM,
    "layercam": peers.LayerCAM,
    "gradcam_elementwise": peers.GradCAMElementWise,
    "eigencam": peers.EigenCAM,
    "eigengradcam": peers.EigenGradCAM,
}
"""A method is compared by being entered here. CAM has no peer: below, it is compared with classifier weights."""

EVERYWHERE = list(ORACLES)
"""The methods that take any head."""

SIGNLESS = {"eigencam", "eigengradcam"}
"""The peer leaves the sign to chance."""

ROUNDING = 2.0**-23
"""Of the maximum: evidence is handed out in float32, and so are the peer's components."""

LARGE = 2.0**30

WITHOUT_EPSILON = {"gradcam++": (1 / LARGE, LARGE), "xgradcam": (LARGE, 1 / LARGE)}
"""Factors on activations and gradients that leave a map as it is, but beside which the peer's epsilon is nothing.

It adds 1e-6 to a sum of squared gradients, and 1e-7 to a sum of activations. Powers of two round nothing.
"""


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12 * 144, 32), nn.Sigmoid(), nn.Linear(32, 10), nn.Softmax(1),
    )  # fmt: skip


# features.8 is signed: there, Grad-CAM++ comes as near to a pole as 5e-4, and XGrad-CAM's sums cancel.
MODELS = {
    "small": (small_cnn, ["1", "2"], [(1, 28, 28)]),
    "plain": (plain_cnn, ["2", "5"], [(3, 32, 32), (3, 21, 34)]),
    "tiny residual": (TinyResNet, ["layer1", "layer2"], [(3, 16, 16), (3, 30, 22)]),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), ["layer3", "layer4"], [(3, 64, 64), (3, 48, 96)]),
    "mobilenet_v3_small": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5), ["features.8", "features"], [(3, 96, 96)],
    ),
}  # fmt: skip


POOLED = ("tiny residual", "resnet18", "mobilenet_v3_small")
"""Those whose head takes the mean of the whole last map."""

CASES = [(name, size, count) for name, (_, _, sizes) in MODELS.items() for size in sizes for count in (1, 4)]


def case(name, size, count):
    """A perturbed float64 model, so many images, and a class for each."""
    images = torch.randn(4, *size)
    model = perturbed(MODELS[name][0](), images=images).double()
    return model, images[:count].double(), torch.tensor([3, 0, 2, 1])[:count]


def score(classes):
    """What the peers explain: the output at each image's class, of the small CNN a probability."""
    return lambda output, _: of_class(classes[: len(output)])(output)


class Raw:
    """What a peer computes before its ReLU, kept while it works, with its epsilons out of the way."""

    def __init__(self, name, peer):
        self.found, self.inner, self.factors = [], peer.get_cam_image, WITHOUT_EPSILON.get(name)
        peer.get_cam_image = self

    def __call__(self, images, layer, targets, activations, gradients, eigen_smooth):
        if self.factors:
            activations, gradients = activations * self.factors[0], gradients * self.factors[1]
        self.found.append(self.inner(images, layer, targets, activations, gradients, eigen_smooth))
        return self.found[-1] * LARGE  # beside which the 1e-7 of its min-max is nothing


def peers_answer(name, model, layers, images, classes, eigen_smooth=False):
    """From one pass, for each layer the raw map, and what the user of it alone gets: enlarged, in [0, 1]."""
    scores = [lambda output, c=c: output[c] for c in classes.tolist()]
    with ORACLES[name](model, [model.get_submodule(layer) for layer in layers]) as peer:
        raw = Raw(name, peer)
        ends, join = [], peer.aggregate_multi_layers  # which would take the mean over the layers
        peer.aggregate_multi_layers = lambda maps: ends.extend(join([each]) for each in maps)
        peer(images, scores, eigen_smooth=eigen_smooth)
        return list(map(torch.from_numpy, raw.found)), list(map(torch.from_numpy, ends))


def turned(found, like):
    """``found``, each image with the sign that it has in ``like``."""
    return torch.where((found * like).flatten(1).sum(1)[:, None, None] < 0, -found, found)
