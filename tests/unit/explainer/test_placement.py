"""Placement of cells: maps of unpadded networks lie on the object, and the peers' even stretch remains available."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import Baseline, Probe, explain
from lightning_gradcam.baseline.data import deserialize, serialize
from lightning_gradcam.baseline.summary import BaselineSummary
from lightning_gradcam.callback.summary import describe_layers
from lightning_gradcam.explainer.fusion import fuse_maps
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.render.filmstrip import Film, Frame
from lightning_gradcam.render.volumes import choose_slices
from lightning_gradcam.targets import TARGETS
from lightning_gradcam.targets.padding import crop_centers, crop_padding
from lightning_gradcam.utils.cell_centers import CellCenters
from lightning_gradcam.utils.interpolation import resize
from tests.helpers.models import TinyResNet, TinyViT, perturbed

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Spotlight(nn.Module):
    """Unpadded convolutions that pass on how bright the middle of their window is; class 1 is "something is bright"."""

    def __init__(self, dimensions: int, kernels: Sequence[int] = (7, 7, 7)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for kernel in kernels:
            layers += [CONVOLUTIONS[dimensions - 1](1, 1, kernel, bias=False), nn.ReLU()]
            with torch.no_grad():
                weight = layers[-2].weight.zero_()
                weight[(0, 0, *[kernel // 2] * dimensions)] = 1
        self.features, self.head = nn.Sequential(*layers), nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).flatten(2).mean(2))


def draw_spots(size: tuple[int, ...], spots: Sequence[tuple[int, ...]]) -> Tensor:
    images = torch.zeros(len(spots), 1, *size)
    for image, spot in zip(images, spots, strict=True):
        image[(0, *[slice(at - 1, at + 2) for at in spot])] = 1
    return images


def find_middle(heatmaps: Tensor) -> Tensor:
    """Center of mass of each map, in pixels."""
    sides = [torch.arange(float(side)) for side in heatmaps.shape[1:]]
    pixels = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).flatten(0, -2)
    flat = heatmaps.flatten(1)
    return flat @ pixels / flat.sum(1, keepdim=True)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("size", "spots"),
    [((64,), [(10,), (32,), (53,)]), ((64, 48), [(10, 10), (10, 37), (53, 20)]), ((32, 32, 32), [(11, 11, 20)])],
)
def test_maps_of_unpadded_networks_lie_on_the_object(size, spots, interpolation):
    found = explain(Spotlight(len(size)).eval(), draw_spots(size, spots), target=1)
    placed = find_middle(found.heatmaps(interpolation=interpolation)["features"])
    assert (placed - torch.tensor(spots)).norm(dim=1).max() < 0.5
    smaller = find_middle(found.heatmaps(tuple(side // 2 for side in size))["features"])
    assert (2 * smaller + 0.5 - torch.tensor(spots)).norm(dim=1).max() < 1.5
    # The map has 18 pixels less, so the even stretch puts its first cell 9 pixels too early, but for its larger cells.
    expected = max(9 - 0.5 * side / (side - 18) + 0.5 for side in size)
    shift = found.centers["features"].measure_shift(tuple(side - 18 for side in size), size)
    assert shift == pytest.approx(expected, abs=1e-4)


def test_stretched_placement_equals_the_peers():
    model, images = Spotlight(2).eval(), draw_spots((64, 64), [(10, 10), (40, 20)])
    placed, stretched = (explain(model, images, target=1, placement=p) for p in ("receptive_field", "stretch"))
    assert torch.equal(placed.evidence["features"], stretched.evidence["features"])
    assert not stretched.centers
    cam = stretched.evidence["features"].relu()
    expected = F.interpolate((cam / cam.amax((1, 2), keepdim=True))[:, None], (64, 64), mode="bilinear")[:, 0]
    expected /= expected.amax((1, 2), keepdim=True)
    assert torch.allclose(stretched.heatmaps()["features"], expected, atol=1e-5)
    assert not torch.allclose(placed.heatmaps()["features"], expected, atol=0.5)


@pytest.mark.parametrize(("model", "layers"), [(TinyResNet(), "stages"), (TinyViT(), "auto")])
def test_networks_that_cover_the_image_evenly_are_unchanged(model, layers):
    found = explain(perturbed(model), torch.randn(2, 3, 16, 16), layers=layers, target=1)
    assert not found.centers


def test_unknown_placement_is_refused():
    with pytest.raises(ValueError, match="Expected `placement` to be 'receptive_field' or 'stretch', but got 'even'"):
        explain(Spotlight(2), torch.rand(1, 1, 32, 32), placement="even")


def test_fused_maps_lie_where_their_layers_do():
    spots = [(14, 18), (49, 30)]
    model, images = Spotlight(2, (5, 21)).eval(), draw_spots((64, 64), spots)
    found = explain(model, images, target=1, layers=["features.1", "features"], fuse="mean")
    assert found.centers["fused"] == found.centers["features.1"] != found.centers["features"]
    peak = found.heatmaps()["fused"].flatten(1).argmax(1)
    assert (torch.stack([peak // 64, peak % 64], 1) - torch.tensor(spots)).abs().max() <= 1
    assert found.evidence["fused"].amax((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-3)  # the peaks coincide


def test_fusion_of_even_grids_does_not_depend_on_how_they_are_given():
    maps, codes = [torch.rand(2, 8, 6), torch.rand(2, 4, 3)], [torch.zeros(2), torch.zeros(2)]
    even = [CellCenters.spread(tensor.shape[1:]) for tensor in maps]
    assert torch.allclose(fuse_maps(maps, codes, "mean", even), fuse_maps(maps, codes, "mean"), atol=1e-6)


def test_guided_gradcam_reads_the_map_at_its_place():
    spots = [(10, 40)]
    found = explain(Spotlight(2).eval(), draw_spots((64, 64), spots), target=1, method="guided_gradcam")
    assert not found.centers  # the evidence is on the pixels
    assert (find_middle(found.maps["features"].relu()) - torch.tensor(spots)).abs().max() < 1
    assert found.maps["features"].amax() > 0


def test_mirrored_images_are_averaged_at_the_mean_place():
    class OneSided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.light = nn.Conv2d(1, 1, 1), Spotlight(2, (7,))
            nn.init.ones_(self.first.weight), nn.init.zeros_(self.first.bias)

        def forward(self, images: Tensor) -> Tensor:
            return self.light(self.first(images)[..., 10:])

    model, images = OneSided().eval(), draw_spots((48, 48), [(24, 24)])
    straight = explain(model, images, target=1, layers="light.features")
    both = explain(model, images, target=1, layers="light.features", flips=True)
    assert (find_middle(straight.heatmaps()["light.features"]) - 24).abs().max() < 0.5
    # 42 - 6 cells from pixel 10 + 3 on, and in the mirror image the same: their mean is centered, and so is its map.
    offset, step = (
        values["light.features"]
        for values in ({k: c.offset for k, c in both.centers.items()}, {k: c.step for k, c in both.centers.items()})
    )
    assert (offset[1] * 48 - 0.5, step[1] * 48) == pytest.approx(((47 - 31) / 2, 1))
    assert offset[0] * 48 - 0.5 == pytest.approx(3)


def test_cropped_centers_lie_where_the_cells_of_the_image_do():
    grid, fraction = (6, 8), (0.75, 0.6)
    centers = CellCenters((0.1, 0.05), (0.15, 0.12))
    # A map that is its own position in the padded image, cropped: values are positions in the image.
    ramps = [centers.offset[axis] + centers.step[axis] * torch.arange(float(n)) for axis, n in enumerate(grid)]
    cropped = crop_centers(centers, grid, fraction)
    for axis, ramp in enumerate(ramps):
        evidence = (ramp[:, None] if axis == 0 else ramp[None]).expand(grid)[None]
        kept = crop_padding(evidence, fraction)[0].select(1 - axis, 0) / fraction[axis]
        expected = cropped.offset[axis] + cropped.step[axis] * np.arange(len(kept))
        inside = slice(1, -1)  # the first and the last are clamped to the grid
        np.testing.assert_allclose(kept[inside].numpy(), expected[inside], atol=1e-6)


def test_slices_of_a_volume_are_those_at_the_cells():
    evidence = torch.zeros(1, 14, 2, 2)
    evidence[0, [2, 9, 12]] = 1
    centers = CellCenters((9.5 / 32, 0.25, 0.25), (1 / 32, 0.5, 0.5))  # cells at slices 9, 10, ...
    assert choose_slices(evidence, 32, 3, centers).tolist() == [[11, 18, 21]]
    found = explain(Spotlight(3).eval(), draw_spots((32, 32, 32), [(12, 16, 16)]), target=1)
    slices = choose_slices(found.evidence["features"], 32, 3, found.centers["features"])
    assert slices.tolist() == [[11, 12, 13]]
    even = CellCenters.spread((14, 2, 2))
    assert torch.equal(choose_slices(evidence, 28, 3, even), choose_slices(evidence, 28, 3))


def test_two_layers_of_cells_are_interpolated_at_their_place():
    evidence = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)
    centers = CellCenters((0.5, 0.5, 0.5), (0.4, 1.0, 1.0))
    sums = resize(evidence[:, :, 0, 0], (3,), centers=CellCenters((0.5,), (0.4,)))
    assert sums.argmax() == 2
    assert choose_slices(evidence, 30, 3, centers).tolist() == [[5, 15, 25]]


def test_film_keeps_the_place_of_its_maps():
    centers = CellCenters((0.25, 0.1), (0.1, 0.05))
    film = Film(2, centers=centers)
    film.add(Frame("epoch 0", torch.rand(1, 4, 4), torch.zeros(1), torch.zeros(1, 2)))
    again = Film(2)
    again.load_state_dict(film.state_dict(), torch.device("cpu"))
    assert again.centers == centers
    earlier = film.state_dict()
    del earlier["centers"]  # as files of earlier versions
    again.load_state_dict(earlier, torch.device("cpu"))
    assert again.centers is None


@pytest.mark.parametrize("placement", ["receptive_field", "stretch"])
def test_baseline_stores_where_its_cells_lie(placement, tmp_path):
    model, probe = Spotlight(2).eval(), Probe(draw_spots((40, 40), [(12, 12), (20, 24), (30, 11)]))
    baseline = Baseline.record(model, probe, target=1, placement=placement)
    baseline.save(tmp_path / "a.safetensors")
    loaded = Baseline.load(tmp_path / "a.safetensors")
    assert loaded.metadata.placement == placement
    assert loaded.explanation.centers == baseline.explanation.centers
    assert bool(loaded.explanation.centers) == (placement == "receptive_field")
    candidate = Baseline.record(model, probe, like=loaded)  # takes the placement of the baseline
    assert candidate.explanation.centers == loaded.explanation.centers
    says_place = "cells placed by their receptive fields" in BaselineSummary.from_baseline(loaded).text()
    assert says_place == (placement == "receptive_field")


def test_baseline_of_version_1_was_stretched():
    baseline = Baseline.record(Spotlight(2).eval(), Probe(draw_spots((40, 40), [(12, 12)])), target=1)
    tensors, facts = serialize(baseline)
    facts["pixels"] = None
    with pytest.raises(ValueError, match="centers"):
        deserialize(tensors, {**facts, "centers": {"features": [[0.1], [0.1]]}})
    del facts["centers"], facts["placement"]
    old = deserialize(tensors, facts)
    assert old.metadata.placement == "stretch"
    assert not old.explanation.centers


@pytest.mark.parametrize(("placement", "says"), [("receptive_field", "cells placed at"), ("stretch", "stretched over")])
def test_summary_states_the_difference_to_stretching(placement, says):
    probe = Probe(torch.rand(2, 1, 64, 64))
    explainer = prepare(Spotlight(2).eval(), probe, target=TARGETS["predicted"], placement=placement)
    line = describe_layers(explainer, probe.size)["layer features"]
    assert says in line
    shift = 9 - (0.5 * 64 / 46 - 0.5)
    assert f"{shift:.1f} pixels" in line
    even = prepare(TinyResNet().eval(), Probe(torch.rand(2, 3, 16, 16)), target=TARGETS["predicted"])
    assert not any("pixels" in line for line in describe_layers(even, (16, 16)).values())


def test_runs_with_other_placements_of_fused_maps_do_not_go_on():
    probe = Probe(torch.rand(2, 1, 64, 64))

    def sign(**options):
        explainer = prepare(
            Spotlight(2).eval(), probe, target=TARGETS["predicted"], layers=["features.1", "features"], **options
        )
        monitor = ProbeMonitor(probe, ShardedExplainer(explainer), TARGETS["predicted"], DisplayConfig(), draws=False)
        return monitor.signature

    assert sign(fuse="max") != sign(fuse="max", placement="stretch")
    assert sign() == sign(placement="stretch")  # evidence on the cells is the same
    assert "placement" not in sign(fuse="max", placement="stretch")  # like checkpoints of earlier versions


def test_placement_costs_no_forward_pass():
    model, images = Spotlight(2).eval(), torch.rand(2, 1, 32, 32)
    calls = []
    model.features.register_forward_hook(lambda *_: calls.append(1))
    prepare(model, Probe(images), target=TARGETS["predicted"])
    assert len(calls) == 1
