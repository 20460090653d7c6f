"""`layers="auto"` in every classification model of torchvision: a map on the grid of the last features."""

from __future__ import annotations

import re

import pytest
import torch

from lightning_gradcam import Probe
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.layers import ENOUGH_CELLS
from lightning_gradcam.targets import TARGETS, coerce_target
from tests.parity.architectures import (
    END,
    FAMILIES,
    NAMES,
    PAGE,
    START,
    build_model,
    find_last_grid,
    find_smallest_size,
    format_row,
)


def find_family(name: str) -> str:
    """Return the member of `FAMILIES` that shares the longest prefix with a name."""

    def count_common_prefix(member: str) -> int:
        return next((i for i in range(len(name)) if not member.startswith(name[: i + 1])), len(name))

    member = max(FAMILIES, key=count_common_prefix)
    assert re.findall("[a-z]+", member)[0] == re.findall("[a-z]+", name)[0], f"no family for {name}"
    return member


def assert_explained(name: str, size: int | None = None) -> Explainer:
    model = build_model(name)
    images = torch.rand(2, 3, *[size or find_smallest_size(model)] * 2)
    last = FAMILIES[find_family(name)][1]
    if name.startswith("vgg"):  # the layer before the final pooling
        last = f"features.{len(model.features) - 2}"
    expected = find_last_grid(model, images, last)
    plan = prepare(model, Probe(images), target=TARGETS["predicted"])
    # Random weights can give a class only negative evidence, but not all of several classes.
    explanations = plan(model, Probe(images), [TARGETS["predicted"], *map(coerce_target, range(15))])
    for explanation in explanations:
        [evidence], [degenerate] = explanation.evidence.values(), explanation.degenerate.values()
        # SqueezeNet ends with a ReLU, which can remove the gradient of any class but the predicted one.
        assert set(degenerate) <= {None, "all zero"} or (
            explanation is not explanations[0] and name.startswith("squeezenet")
        )
        assert evidence.isfinite().all()
    assert any(None in degenerate for explanation in explanations for degenerate in explanation.degenerate.values())
    if expected[0] * expected[1] >= ENOUGH_CELLS:
        assert tuple(evidence.shape[1:]) == expected
    else:
        # With more than four times as many cells, the next stage would have enough as well.
        assert ENOUGH_CELLS <= evidence[0].numel() <= 4 * ENOUGH_CELLS
    return plan


@pytest.mark.parametrize("name", FAMILIES)
def test_family_member_at_its_smallest_input(name):
    assert_explained(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_family_member_at_224_is_in_the_docs(name):
    plan = assert_explained(name, 224)
    assert format_row(name, plan) in PAGE.read_text("utf-8"), (
        "docs/layers.md is out of date: `make layers` writes its table"
    )


def test_docs_have_a_row_for_each_family():
    lines = PAGE.read_text("utf-8").split(START)[1].split(END)[0].splitlines()
    assert len(lines) == 2 + len(FAMILIES)


@pytest.mark.whole
@pytest.mark.parametrize("name", [name for name in NAMES if name not in FAMILIES])
def test_other_models_at_their_smallest_input(name):
    assert_explained(name)
