"""Receptive field centers from the graph, against the pixels that cells depend on, as their gradients show."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import Layer, Probe
from lightning_gradcam.capture.forward import default_forward
from lightning_gradcam.layers.cell_placement import find_cell_centers
from lightning_gradcam.layers.trace_model import trace_model
from lightning_gradcam.targets import TARGETS
from lightning_gradcam.utils.cell_centers import CellCenters
from tests.helpers.models import TinyResNet, TinyViT, plain_cnn


class Around(nn.Module):
    """A body of convolutions with a head that reads the mean of its map."""

    def __init__(self, body: nn.Module, channels: int = 2) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(2).mean(2))


class Function(nn.Module):
    """A module without a layer: any function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *images: Tensor) -> Tensor:
        return self.function(*images)


class Branches(nn.Module):
    """The sum, or the concatenation, of two branches."""

    def __init__(self, first: nn.Module, second: nn.Module, join) -> None:
        super().__init__()
        self.first, self.second, self.join = first, second, join

    def forward(self, images: Tensor) -> Tensor:
        return self.join(self.first(images), self.second(images))


class Gate(nn.Module):
    """Squeeze-and-excitation: every cell depends on the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.layer(features.mean((2, 3), keepdim=True)).sigmoid()


def conv(*args, dims=2, **kwargs) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](*args, **kwargs)


def trace_centers(model: nn.Module, images: Tensor, layer: str = "body") -> CellCenters | None:
    records = trace_model(model, Probe(images), default_forward(model), TARGETS["predicted"]).records
    return next(r for r in reversed(records) if layer in (r.name, *r.inner)).centers


def measure_centers(body: nn.Module, images: Tensor) -> list[tuple[float, float]]:
    """Centers of the pixels that two neighboring cells in the middle depend on, and the step between them, by axis.

    Positive weights on positive images, in float64, so that no unit is inactive and nothing cancels.
    """
    body = copy.deepcopy(body).double()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.abs_().add_(0.1)
    pixels = (images.double().abs() + 0.1).requires_grad_()
    features, measured = body(pixels), []
    for axis in range(images.ndim - 2):
        middle = [length // 2 for length in features.shape[2:]]
        boxes = []
        for step in (0, 1):
            cell = list(middle)
            cell[axis] += step
            [gradient] = torch.autograd.grad(
                features[(slice(None), slice(None), *cell)].sum(), pixels, retain_graph=True
            )
            others = [d for d in range(gradient.ndim) if d != axis + 2]
            used = gradient.abs().sum(others).nonzero().flatten()
            boxes.append((used.min() + used.max()).item() / 2)
        distance = boxes[1] - boxes[0]
        measured.append((boxes[0] - distance * middle[axis], distance))
    return measured


def to_pixels(centers: CellCenters, size: tuple[int, ...]) -> list[tuple[float, float]]:
    values = zip(centers.offset, centers.step, size, strict=True)
    return [(offset * side - 0.5, step * side) for offset, step, side in values]


CONVOLUTIONS = {
    "unpadded": nn.Sequential(conv(1, 2, 5), nn.ReLU(), conv(2, 2, 4)),
    "dilated": nn.Sequential(conv(1, 2, 3, dilation=3), conv(2, 2, 3, dilation=2, padding=1)),
    "one side unpadded": nn.Sequential(conv(1, 2, (5, 3), padding=(0, 1))),
    "padded by a function": nn.Sequential(conv(1, 2, 1), Function(lambda x: F.pad(x, (3, 0, 0, 1))), conv(2, 2, 3)),
    "padded by a module": nn.Sequential(nn.ZeroPad2d((4, 0, 0, 3)), conv(1, 2, 3)),
    "reflected": nn.Sequential(conv(1, 2, 3), nn.ReflectionPad2d((3, 1, 0, 2)), conv(2, 2, 3)),
    "cropped": nn.Sequential(conv(1, 2, 3), Function(lambda x: x[:, :, 4:, :-3]), conv(2, 2, 3)),
    "every other cell": nn.Sequential(conv(1, 2, 3), Function(lambda x: x[:, :, 1::2, 3::2])),
    "average pooling": nn.Sequential(conv(1, 2, 3), nn.AvgPool2d(3, 1), nn.AvgPool2d((4, 1), 1)),
    "channels last": nn.Sequential(
        conv(1, 2, 5), Function(lambda x: x.permute(0, 2, 3, 1)), nn.Linear(2, 2), Function(lambda x: x.movedim(-1, 1)),
        conv(2, 2, 1),
    ),
    "residual": nn.Sequential(
        conv(1, 2, 5), Branches(nn.Identity(), conv(2, 2, 3, padding=1), lambda a, b: a + b), conv(2, 2, 3)
    ),
    "concatenated": nn.Sequential(
        conv(1, 2, 5), Branches(conv(2, 2, 3), conv(2, 2, 5, padding=1), lambda a, b: torch.cat([a, b], 1)),
        conv(4, 2, 1),
    ),
    "split": nn.Sequential(conv(1, 4, 5), Function(lambda x: x.chunk(2, 1)[1]), conv(2, 2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("frozen", [False, True])
def test_centers_equal_the_middle_of_what_cells_depend_on(name, frozen):
    body, images = CONVOLUTIONS[name].requires_grad_(not frozen), torch.rand(2, 1, 41, 37)
    model = Around(copy.deepcopy(body)).eval()
    centers = trace_centers(model, images)
    assert centers is not None
    measured = measure_centers(body, images)
    for (first, step), (expected_first, expected_step) in zip(to_pixels(centers, (41, 37)), measured, strict=True):
        assert step == pytest.approx(expected_step, abs=1e-6)
        assert first == pytest.approx(expected_first, abs=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_enlarged_maps_cover_what_they_were_made_from(mode):
    body = nn.Sequential(conv(1, 2, 5), nn.Upsample(scale_factor=2, mode=mode), conv(2, 2, 3))
    centers = to_pixels(trace_centers(Around(body).eval(), torch.rand(2, 1, 20, 24)), (20, 24))
    # Cells at 2, 3, ...; halves of them at 1.75, 2.25, ...; and the unpadded window of 3 begins at the first.
    assert centers == [pytest.approx((2.25, 0.5), abs=1e-5)] * 2
    aligned = nn.Sequential(
        conv(1, 2, 5), nn.Upsample(size=(31, 39), mode="bilinear", align_corners=True), conv(2, 2, 1)
    )
    centers = to_pixels(trace_centers(Around(aligned).eval(), torch.rand(2, 1, 20, 24)), (20, 24))
    assert centers == [pytest.approx((2.0, 15 / 30), abs=1e-5), pytest.approx((2.0, 19 / 38), abs=1e-5)]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_centers_are_found_in_one_to_three_dimensions(dims):
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1]
    body = nn.Sequential(conv(1, 2, 4, dims=dims), nn.ReLU(), pool(3, 1), conv(2, 2, 3, dims=dims))
    size = (17, 19, 15)[:dims]
    centers = trace_centers(Around(copy.deepcopy(body)).eval(), torch.rand(2, 1, *size))
    # Unpadded windows of 4, 3 and 3 begin at the first pixel: the first cell is the middle of 8 pixels.
    assert to_pixels(centers, size) == [pytest.approx((3.5, 1.0), abs=1e-5)] * dims


def test_gates_over_the_whole_image_do_not_hide_the_centers():
    body = nn.Sequential(conv(1, 2, 5), Gate(), nn.InstanceNorm2d(2), conv(2, 2, 3), Gate())
    centers = trace_centers(Around(body).eval(), torch.rand(2, 1, 20, 24))
    assert to_pixels(centers, (20, 24)) == [pytest.approx((3.0, 1.0), abs=1e-5)] * 2


def test_centers_are_found_behind_a_block_without_gradients():
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = conv(1, 2, 5), conv(2, 2, 5)

        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                return self.second(self.first(images).relu())

    centers = trace_centers(Around(Backbone()).eval(), torch.rand(2, 1, 24, 24))
    assert to_pixels(centers, (24, 24)) == [pytest.approx((4.0, 1.0), abs=1e-5)] * 2


def test_strides_leave_an_even_cover_of_the_image():
    bodies = {
        "kernel 3": nn.Sequential(conv(1, 2, 3, stride=2, padding=1), nn.MaxPool2d(3, 2, 1), conv(2, 2, 1, stride=2)),
        "patches": nn.Sequential(conv(1, 2, 4, stride=4), nn.AvgPool2d(2)),
        "down and up": nn.Sequential(
            conv(1, 2, 3, stride=2, padding=1), conv(2, 2, 3, stride=2, padding=1), nn.ConvTranspose2d(2, 2, 2, 2)
        ),
        "transposed": nn.Sequential(conv(1, 2, 3, 2, 1), nn.ConvTranspose2d(2, 2, 3, 2, padding=1, output_padding=1)),
    }
    for name, body in bodies.items():
        model, images = Around(body).eval(), torch.rand(2, 1, 64, 48)
        grid = body(images).shape[2:]
        assert trace_centers(model, images).measure_shift(grid, (64, 48)) == pytest.approx(0, abs=1e-6), name
    for model, layer, images in (
        (TinyResNet(), "layer2", torch.rand(2, 3, 16, 16)),
        (TinyViT(), "blocks.1", torch.rand(2, 3, 16, 16)),
    ):
        records = trace_model(model.eval(), Probe(images), default_forward(model), TARGETS["predicted"]).records
        record = next(r for r in records if layer in (r.name, *r.inner))
        assert find_cell_centers(Layer(layer, to_grid=record.to_grid), records, (16, 16)) is None


def test_strides_without_padding_keep_their_distance():
    # AlexNet's first layers on 224 pixels: windows of 11 every 4 from pixel -2 on, and of 3 every 8 pixels in between.
    body = nn.Sequential(conv(1, 2, 11, stride=4, padding=2), nn.MaxPool2d(3, 2))
    centers = trace_centers(Around(body).eval(), torch.rand(2, 1, 224, 224))
    first, step = to_pixels(centers, (224, 224))[0]
    assert step == pytest.approx(8)
    assert first == pytest.approx((223 - 26 * 8) / 2)  # 27 cells, as far from the first pixel as from the last
    assert abs(first - (-2 + 5 + 4)) <= 4 / 2 + 8 / 2  # and within half a stride each of what they depend on


def test_causal_padding_moves_cells_to_earlier_times():
    body = nn.Sequential(
        *[
            m
            for d in (1, 2, 4)
            for m in (nn.ConstantPad1d((2 * d, 0), 0.0), nn.Conv1d(1 if d == 1 else 2, 2, 3, dilation=d))
        ]
    )
    first, step = to_pixels(trace_centers(Around(body).eval(), torch.rand(2, 1, 64)), (64,))[0]
    assert (first, step) == pytest.approx((-(1 + 2 + 4), 1.0))


def test_slices_that_are_rows_of_a_batch_lie_evenly_along_the_depth():
    class Slices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(conv(1, 2, 5), nn.ReLU(), conv(2, 2, 3)), nn.Linear(2, 3)

        def forward(self, volumes: Tensor) -> Tensor:
            count, _, depth = volumes.shape[:3]
            features = self.body(volumes.transpose(1, 2).flatten(0, 1)).mean((2, 3))
            return self.head(features.unflatten(0, (count, depth)).mean(1))

    centers = trace_centers(Slices().eval(), torch.rand(2, 1, 6, 20, 24))
    assert (
        to_pixels(centers, (6, 20, 24))
        == [pytest.approx((0.0, 1.0), abs=1e-5)] + [pytest.approx((3.0, 1.0), abs=1e-5)] * 2
    )


@pytest.mark.parametrize("size", [(16, 40), (24, 24)])
def test_axes_that_the_model_turns_are_turned_back(size):
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(conv(1, 2, (7, 3)), nn.ReLU(), conv(2, 2, (1, 3))), nn.Linear(2, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.body(images.transpose(2, 3)).mean((2, 3)))

    model, images = Turning().eval(), torch.rand(2, 1, *size)
    records = trace_model(model, Probe(images), default_forward(model), TARGETS["predicted"]).records
    record = next(r for r in reversed(records) if "body" in (r.name, *r.inner))
    assert record.grid == (size[0] - 4, size[1] - 6)
    features = model.body(images.transpose(2, 3))
    assert torch.equal(record.to_grid(features), features.transpose(2, 3))
    assert to_pixels(record.centers, size) == [pytest.approx((2.0, 1.0), abs=1e-5), pytest.approx((3.0, 1.0), abs=1e-5)]


def test_tracing_the_centers_changes_no_gradient():
    model, images = plain_cnn().eval(), torch.rand(2, 3, 12, 12)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    state = torch.random.get_rng_state()
    trace_model(model, Probe(images), default_forward(model), TARGETS["predicted"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not images.requires_grad
