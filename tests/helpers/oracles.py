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
"""An equation is compared by an entry here. CAM has no peer; it is compared with the classifier's weights."""

EVERYWHERE = list(ORACLES)
"""The methods that support any head."""

SIGNLESS = {"eigencam", "eigengradcam"}
"""The methods whose sign is arbitrary in pytorch-grad-cam."""

ROUNDING = 2.0**-23
"""Tolerance relative to the maximum: evidence is float32, and so are the peer's components."""

LARGE = 2.0**30

WITHOUT_EPSILON = {"gradcam++": (1 / LARGE, LARGE), "xgradcam": (LARGE, 1 / LARGE)}
"""Factors on activations and gradients that leave a map unchanged, but make the peer's epsilon negligible.

The peer adds 1e-6 to a sum of squared gradients, and 1e-7 to a sum of activations. Powers of two cause no rounding.
"""


def create_small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12 * 144, 32), nn.Sigmoid(), nn.Linear(32, 10), nn.Softmax(1),
    )  # fmt: skip


# features.8 is signed: Grad-CAM++ comes within 5e-4 of a pole there, and the sums of XGrad-CAM cancel.
MODELS = {
    "small": (create_small_cnn, ["1", "2"], [(1, 28, 28)]),
    "plain": (plain_cnn, ["2", "5"], [(3, 32, 32), (3, 21, 34)]),
    "tiny residual": (TinyResNet, ["layer1", "layer2"], [(3, 16, 16), (3, 30, 22)]),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), ["layer3", "layer4"], [(3, 64, 64), (3, 48, 96)]),
    "mobilenet_v3_small": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5), ["features.8", "features"], [(3, 96, 96)],
    ),
}  # fmt: skip


POOLED = ("tiny residual", "resnet18", "mobilenet_v3_small")
"""The models whose head averages the whole last map."""

CASES = [(name, size, count) for name, (_, _, sizes) in MODELS.items() for size in sizes for count in (1, 4)]


def create_case(name, size, count):
    """Return a perturbed float64 model, images, and a class for each image."""
    images = torch.randn(4, *size)
    model = perturbed(MODELS[name][0](), images=images).double()
    return model, images[:count].double(), torch.tensor([3, 0, 2, 1])[:count]


def create_score(classes):
    """Return the target that the peers explain: the output at each image's class (a probability of the small CNN)."""
    return lambda output, _: of_class(classes[: len(output)])(output)


class RawMapRecorder:
    """Recorder of a peer's maps before its ReLU, without the effect of its epsilons."""

    def __init__(self, name, peer):
        self.maps, self.inner, self.factors = [], peer.get_cam_image, WITHOUT_EPSILON.get(name)
        peer.get_cam_image = self

    def __call__(self, images, layer, targets, activations, gradients, eigen_smooth):
        if self.factors:
            activations, gradients = activations * self.factors[0], gradients * self.factors[1]
        self.maps.append(self.inner(images, layer, targets, activations, gradients, eigen_smooth))
        return self.maps[-1] * LARGE  # which makes the 1e-7 of its min-max negligible


def compute_peer_maps(name, model, layers, images, classes, eigen_smooth=False):
    """Return, from one pass, the raw map of each layer and the final heatmap of each layer alone, in [0, 1]."""
    scores = [lambda output, c=c: output[c] for c in classes.tolist()]
    with ORACLES[name](model, [model.get_submodule(layer) for layer in layers]) as peer:
        raw = RawMapRecorder(name, peer)
        heatmaps, aggregate = [], peer.aggregate_multi_layers  # which would average the layers
        peer.aggregate_multi_layers = lambda maps: heatmaps.extend(aggregate([layer_map]) for layer_map in maps)
        peer(images, scores, eigen_smooth=eigen_smooth)
        return list(map(torch.from_numpy, raw.maps)), list(map(torch.from_numpy, heatmaps))


def align_sign(maps, like):
    """Give each image's map the sign that it has in ``like``."""
    return torch.where((maps * like).flatten(1).sum(1)[:, None, None] < 0, -maps, maps)
