"""`layers="auto"` in every classification model of torchvision: a map on the grid of its last features."""

from __future__ import annotations

import re

import pytest
import torch

from lightning_gradcam import Probe
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.layers import ENOUGH_CELLS
from lightning_gradcam.targets import TARGETS, coerce_target
from tests.parity.architectures import END, FAMILIES, NAMES, PAGE, START, build, last_grid, row, smallest


def family_of(name: str) -> str:
    """The member of `FAMILIES` that begins as a name does, for longest."""

    def alike(member: str) -> int:
        return next((i for i in range(len(name)) if not member.startswith(name[: i + 1])), len(name))

    member = max(FAMILIES, key=alike)
    assert re.findall("[a-z]+", member)[0] == re.findall("[a-z]+", name)[0], f"no family for {name}"
    return member


def assert_explained(name: str, size: int | None = None) -> Explainer:
    model = build(name)
    images = torch.rand(2, 3, *[size or smallest(model)] * 2)
    last = FAMILIES[family_of(name)][1]
    if name.startswith("vgg"):  # not the pooling at the end
        last = f"features.{len(model.features) - 2}"
    expected = last_grid(model, images, last)
    plan = prepare(model, Probe(images), target=TARGETS["predicted"])
    # Random weights may find evidence against a class everywhere; of several classes, all explained in one pass, some
    # have a map.
    several = plan(model, Probe(images), [TARGETS["predicted"], *map(coerce_target, range(15))])
    for found in several:
        [evidence], [degenerate] = found.evidence.values(), found.degenerate.values()
        # SqueezeNet ends with a ReLU, which leaves some classes without a gradient, but not the predicted one.
        assert set(degenerate) <= {None, "all zero"} or (found is not several[0] and name.startswith("squeezenet"))
        assert evidence.isfinite().all()
    assert any(None in degenerate for found in several for degenerate in found.degenerate.values())
    if expected[0] * expected[1] >= ENOUGH_CELLS:
        assert tuple(evidence.shape[1:]) == expected
    else:
        # With more than four times as many, the next stage would have enough as well.
        assert ENOUGH_CELLS <= evidence[0].numel() <= 4 * ENOUGH_CELLS
    return plan


@pytest.mark.parametrize("name", FAMILIES)
def test_smallest_of_each_family_at_its_smallest_input(name):
    assert_explained(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_smallest_of_each_family_at_224_is_in_the_page(name):
    plan = assert_explained(name, 224)
    assert row(name, plan) in PAGE.read_text("utf-8"), "docs/layers.md is out of date: `make layers` writes its table"


def test_the_page_has_a_line_for_each_family():
    lines = PAGE.read_text("utf-8").split(START)[1].split(END)[0].splitlines()
    assert len(lines) == 2 + len(FAMILIES)


@pytest.mark.whole
@pytest.mark.parametrize("name", [name for name in NAMES if name not in FAMILIES])
def test_all_others_at_their_smallest_input(name):
    assert_explained(name)
