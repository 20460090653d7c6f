"""Score-CAM and Ablation-CAM against pytorch-grad-cam, and their options."""

from __future__ import annotations

import pytest
import pytorch_grad_cam as peers
import torch
from torch import nn

from lightning_gradcam import AblationCAM, ScoreCAM, explain
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.explainer.map_status import find_status
from tests.helpers.models import TinyResNet, assert_close, perturbed, plain_cnn

CLASSES = torch.tensor([0, 2, 1])


def make_positive(model, images):
    """Make the model's scores positive: pytorch-grad-cam divides by the score, which inverts maps of negative ones."""
    model[-1].bias.data += 5 - model(images).detach().min()
    return model


@pytest.mark.filterwarnings("ignore")  # from tqdm and pytorch-grad-cam
@pytest.mark.parametrize(("name", "peer"), [("scorecam", peers.ScoreCAM), ("ablationcam", peers.AblationCAM)])
@pytest.mark.parametrize("layer", ["2", "5"])
def test_channel_method_equals_pytorch_grad_cam(name, peer, layer):
    images = torch.randn(3, 3, 20, 27)
    model = make_positive(perturbed(plain_cnn(), images=images), images)
    evidence = explain(model, images, layers=layer, method=name, target=CLASSES).evidence[layer]
    scores = [lambda output, c=c: output[c] for c in CLASSES.tolist()]
    with peer(model, [model.get_submodule(layer)]) as cam:
        raw, inner = [], cam.get_cam_image
        cam.get_cam_image = lambda *args: raw.append(torch.from_numpy(inner(*args))) or raw[0].numpy()
        expected = torch.from_numpy(cam(images, scores))
    assert_close(evidence, raw[0], 1e-4)
    assert (to_heatmaps(evidence, find_status(evidence), (20, 27)) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("method", [ScoreCAM, AblationCAM])
def test_chunk_does_not_change_evidence(method):
    images = torch.randn(2, 3, 16, 16)
    model = perturbed(TinyResNet(), images=images)
    large_chunks, small_chunks = (
        explain(model, images, layers="layer2", method=method(chunk), target=1).evidence for chunk in (99, 3)
    )
    assert_close(small_chunks["layer2"], large_chunks["layer2"], 1e-5)
    with pytest.raises(ValueError, match="`chunk` to be a positive integer, but got 0"):
        method(chunk=0)


def test_constant_channel_masks_the_whole_image():
    class Blank(nn.Module):
        def forward(self, maps):
            return torch.cat([maps, maps[:, :1] * 0 + 3], 1)

    conv, images = nn.Conv2d(3, 2, 3), torch.randn(2, 3, 12, 12)
    model = nn.Sequential(conv, Blank(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    inputs = []

    def forward(model, probe):
        inputs.append(probe.images)
        with torch.no_grad():
            return model(probe.images)

    explain(model, images, layers="1", method="scorecam", target=1, forward=forward)
    assert not inputs[-1][[2, 5]].any()
    assert inputs[-1][[0, 1, 3, 4]].abs().amax((1, 2, 3)).min() > 0.1
