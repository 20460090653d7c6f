"""Fusion: one map from several layers, and from an image and its mirror image, against replicas."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F

from lightning_gradcam import GradCAMCallback, Layer, Probe, explain
from lightning_gradcam.explainer.fusion import fuse_maps
from lightning_gradcam.explainer.map_status import MapStatus, find_status
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.targets import TARGETS
from tests.helpers.lit import fit
from tests.helpers.models import TinyResNet, assert_close, perturbed, plain_cnn

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def plain_fusion(evidence, fuse):
    """Image by image and layer by layer, in float64."""
    finest = max((e.shape[1:] for e in evidence), key=lambda grid: torch.Size(grid).numel())
    fused = []
    for n in range(len(evidence[0])):
        maps = []
        for e in evidence:
            one = e[n].double().clamp(min=0)
            readable = one.max() > 0 and (one.max() - one.min()) >= 1e-3 * one.max() and e[n].isfinite().all()
            one = one / one.max() if readable else torch.zeros_like(one)
            maps.append(F.interpolate(one[None, None], size=finest, mode=MODES[len(finest)])[0, 0])
        parts = {"mean": [1 / len(maps)] * len(maps), "weighted": [w / sum(range(len(maps) + 1)) for w in range(1, 9)]}
        if fuse == "max":
            fused.append(torch.stack(maps).max(0).values)
        else:
            fused.append(sum(p * m for p, m in zip(parts[fuse], maps, strict=False)))
    return torch.stack(fused)


@pytest.mark.parametrize("fuse", ["mean", "max", "weighted"])
@pytest.mark.parametrize("grids", [[(8, 6), (4, 3)], [(3, 3), (12, 5), (6, 6)], [(16,), (5,)], [(4, 4, 4), (2, 2, 2)]])
def test_fusion_equals_its_replica(grids, fuse):
    evidence = [torch.randn(4, *grid) * 10.0 ** (-9 * i) for i, grid in enumerate(grids)]
    evidence[0][1] = -evidence[0][1].abs()  # all zero
    evidence[-1][2] = 2.0  # constant
    evidence[-1][3] = torch.nan
    fused = fuse_maps(evidence, [find_status(e) for e in evidence], fuse)
    assert_close(fused, plain_fusion(evidence, fuse), 1e-5)
    assert 0 <= fused.min() <= fused.max() <= 1 + 1e-6


def test_fused_map_comes_first_in_any_order_of_layers():
    model, images = perturbed(TinyResNet()), torch.randn(3, 3, 16, 16)
    for layers in (["layer2", "layer1"], ["layer1", "layer2"], [model.layer2, "layer1.shortcut", "layer1"]):
        found = explain(model, images, layers=layers, target=1, fuse="weighted")
        names = [key for key in found.evidence if key != "fused"]
        assert next(iter(found.evidence)) == next(iter(found.map_status)) == next(iter(found.layers)) == "fused"
        assert len(names) == len(layers)
        ran = sorted(names, key=["layer1.shortcut", "layer1", "layer2"].index)
        assert_close(found.evidence["fused"], plain_fusion([found.evidence[key] for key in ran], "weighted"), 1e-5)
        assert found.layers["fused"].reason == f"weighted of {', '.join(ran)}"
    both = explain(model, images, layers="stages", method=["gradcam", "layercam"], target=1, fuse="mean")
    assert list(both.evidence)[:2] == ["fused/gradcam", "fused/layercam"]
    maps = [both.evidence[f"{layer}/layercam"] for layer in ("layer1", "layer2")]
    assert_close(both.evidence["fused/layercam"], plain_fusion(maps, "mean"), 1e-5)


class Again(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4 * 36, 3)

    def forward(self, images):
        return self.head(self.conv(self.conv(self.stem(images)).tanh()).flatten(1))


def test_calls_of_one_layer_are_fused_in_their_order():
    model, images = perturbed(Again()), torch.randn(3, 3, 12, 12)
    first, last = Layer("conv", call=0), Layer("conv")
    for layers in ([first, last], [last, first]):
        found = explain(model, images, layers=layers, target=1, fuse="weighted", placement="stretch")
        maps = [found.evidence[key] for key in ("conv[0]", "conv")]
        assert_close(found.evidence["fused"], plain_fusion(maps, "weighted"), 1e-5)
        assert found.layers["fused"].reason == "weighted of conv[0], conv"


def test_deepest_layer_gives_the_reason_if_all_are_degenerate():
    model, images = plain_cnn().eval(), torch.randn(2, 3, 12, 12)
    nn.init.zeros_(model[-1].weight)
    found = explain(model, images, layers=["2", "5"], target=0, fuse="max")
    assert found.degenerate["fused"] == ("no gradient", "no gradient")


def test_fusing_one_layer_or_by_an_unknown_rule_raises(tmp_path):
    model, images = plain_cnn(), torch.randn(2, 3, 12, 12)
    with pytest.raises(ValueError, match=r"Expected several layers for `fuse='mean'`.*`layers='stages'`"):
        explain(model, images, fuse="mean")
    with pytest.raises(ValueError, match=r"Expected `fuse` to be None, 'mean', 'max', 'weighted', but got 'sum'"):
        explain(model, images, layers="stages", fuse="sum")
    for arguments in ({"fuse": "sum"}, {"interpolation": "cubic"}, {"flips": 1}):
        with pytest.raises(MisconfigurationException, match=next(iter(arguments))):
            GradCAMCallback(**arguments)
    with pytest.raises(MisconfigurationException, match="Expected several layers"):
        fit(tmp_path, [GradCAMCallback(fuse="mean")])


def mean_of_flips(model, images, classes, **kwargs):
    straight = explain(model, images, target=classes, **kwargs)
    mirrored = explain(model, images.flip(-1), target=classes, **kwargs)
    return {key: (straight.evidence[key] + mirrored.evidence[key].flip(-1)) / 2 for key in straight.evidence}


def test_flips_average_mirrored_images_for_the_same_class():
    model, images = perturbed(plain_cnn()), torch.randn(8, 3, 12, 15)
    with torch.no_grad():
        model[-1].bias -= model(images).mean(0)  # so that more than one class is predicted
    predicted = model(images).argmax(1)
    assert (predicted != model(images.flip(-1)).argmax(1)).any()  # the mirrored one's own would be another
    for target in ("predicted", predicted.tolist(), lambda out, probe: out.max(1).values):
        classes = target if callable(target) else predicted
        found = explain(model, images, layers=["2", "5"], target=target, flips=True)
        for key, expected in mean_of_flips(model, images, classes, layers=["2", "5"]).items():
            assert_close(found.evidence[key], expected, 1e-6)
            assert found.degenerate[key] == tuple(MapStatus(i).text for i in find_status(expected).tolist())
        assert_close(found.logits, model(images).detach(), 1e-6)
    nn.init.zeros_(model[-1].weight)
    assert explain(model, images, layers="5", target=0, flips=True).degenerate["5"] == ("no gradient",) * 8


def test_mirrored_probe_flips_whatever_is_spatial():
    masks, wide = torch.rand(2, 4, 5) > 0.5, torch.rand(2, 7, 4, 5)
    probe = Probe(
        torch.rand(2, 3, 4, 5), labels=torch.tensor([1, 0]), masks=masks, extras={"wide": wide, "x": wide[:, 0, 0]}
    )
    mirrored = probe.mirror()
    assert torch.equal(mirrored.masks, masks.flip(-1))
    assert torch.equal(mirrored.extras["wide"], wide.flip(-1))
    assert torch.equal(mirrored.extras["x"], wide[:, 0, 0])
    assert torch.equal(mirrored.labels, probe.labels)


def test_callback_draws_the_fused_map_and_measures_the_layers(tmp_path):
    callback = GradCAMCallback(layers="stages", fuse="mean", flips=True, interpolation="nearest")
    trainer = fit(tmp_path, [callback])
    watch = callback.monitor
    assert next(iter(watch.tracker.previous.maps)) == "fused"
    assert watch.signature["fuse"] == "mean"
    assert watch.signature["flips"] is True
    stages = [layer.key for layer in watch.explainer.layers]
    assert {f"gradcam/drift/{key}" for key in stages} | {"gradcam/drift"} <= set(trainer.callback_metrics)
    look = watch.take_snapshot(trainer.lightning_module, "now")
    assert list(look.figures) == ["fused", *stages]


def test_explainer_with_flips_is_prepared_once():
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    plan = prepare(model, Probe(images), target=TARGETS["predicted"], layers=["2", "5"], fuse="max", flips=True)
    [found] = plan(model, Probe(images), [TARGETS["predicted"]])
    expected = mean_of_flips(model, images, found.classes, layers=["2", "5"])
    assert_close(found.evidence["fused"], plain_fusion([expected["2"], expected["5"]], "max"), 1e-5)
