"""Map status: each degenerate map gets its reason, by the same numbers on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from lightning_gradcam import explain
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.explainer.map_status import MapStatus, compute_degenerate_fraction, find_status
from lightning_gradcam.utils.numerics import CONSTANT
from tests.helpers.models import examples

NONE, NOT_FINITE, NO_GRADIENT, ALL_ZERO, CONSTANT_MAP = range(5)


def identity_model() -> nn.Sequential:
    """Its map for class 0 is the image itself over four, for class 1 minus that: by hand."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.zero_()
        model[3].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    return model


def test_each_degenerate_map_has_its_reason():
    images = torch.tensor([[0.0, 1, 2, 3], [-1, -2, -3, -4], [2, 2, 2, 2], [torch.nan, 1, 2, 3], [1, 2, torch.inf, 3]])
    images = images.reshape(5, 1, 2, 2)
    found = explain(identity_model(), images, target=0)
    assert found.degenerate == {"0": (None, "all zero", "constant", "not finite", "not finite")}
    torch.testing.assert_close(found.evidence["0"][0], torch.tensor([[0.0, 0.25], [0.5, 0.75]]))
    opposite = explain(identity_model(), images, target=1)
    assert opposite.degenerate["0"] == ("all zero", None, "all zero", "not finite", "not finite")

    def of_some(output, probe):
        return output[:, 0] * torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])[: len(output)]

    assert explain(identity_model(), images, target=of_some).degenerate["0"][:3] == (None, "all zero", "no gradient")
    heatmaps = found.heatmaps()["0"]
    assert (heatmaps[1:] == 0).all()
    torch.testing.assert_close(heatmaps[0], torch.tensor([[0, 1], [2, 3]]) / 3)


def test_method_without_gradients_does_not_report_no_gradient():
    found = explain(identity_model(), torch.rand(2, 1, 2, 2), layers="0", target=lambda out, probe: out[:, 0] * 0,
                    method=[lambda passes: {"0": passes.activations["0"][:, 0] * 0}, "gradcam"])  # fmt: skip
    first, second = found.degenerate.values()
    assert first == ("all zero",) * 2
    assert second == ("no gradient",) * 2


@pytest.mark.parametrize("magnitude", [1e-9, 1e-30, 1e30])
def test_tiny_magnitudes_are_readable(magnitude):
    evidence = magnitude * torch.tensor([[[0.0, 0.5], [0.25, 1.0]]])
    code = find_status(evidence)
    assert code.tolist() == [NONE]
    shown = to_heatmaps(evidence, code, (2, 2))
    torch.testing.assert_close(shown, torch.tensor([[[0.0, 0.5], [0.25, 1.0]]]))
    image = magnitude * torch.tensor([0.0, 1, 2, 4]).reshape(1, 1, 2, 2)
    assert explain(identity_model(), image, target=0).heatmaps()["0"].amax() == 1


def replica_of_flaws(evidence: np.ndarray, gradients: np.ndarray) -> int:
    """One map, in words."""
    if not all(np.isfinite(x) for x in evidence.flat):
        return NOT_FINITE
    if all(g == 0 for g in gradients.flat):
        return NO_GRADIENT
    most, least = (max(pick(x for x in evidence.flat), 0) for pick in (max, min))
    if most == 0:
        return ALL_ZERO
    return CONSTANT_MAP if most - least < CONSTANT * most else NONE


cells = st.one_of(st.sampled_from([0.0, -1.0, 1.0, 2.0, np.nan, np.inf, -np.inf]), st.floats(-4, 4, width=16))


@examples(150)
@given(arrays(np.float32, (3, 2, 2), elements=cells), arrays(np.float32, (3, 5), elements=st.sampled_from([0, 0, 1])))
def test_find_status_equals_a_replica(evidence, gradients):
    for one in evidence:
        finite = np.isfinite(one).all() and one.max() > 0
        assume(not finite or abs((one.max() - max(one.min(), 0)) / one.max() - CONSTANT) > 1e-6)
    found = find_status(torch.from_numpy(evidence), torch.from_numpy(gradients))
    assert found.tolist() == [replica_of_flaws(e, g) for e, g in zip(evidence, gradients, strict=True)]


def test_map_status_numbers_and_texts_do_not_change():
    texts = [None, "not finite", "no gradient", "all zero", "constant", "no label"]
    assert {int(status): status.text for status in MapStatus} == dict(enumerate(texts))


def test_find_status_returns_uint8():
    codes = find_status(torch.zeros(2, 3), torch.zeros(2, 4))
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [MapStatus.NO_GRADIENT] * 2


def test_degenerate_fraction_leaves_out_images_without_a_label():
    assert compute_degenerate_fraction(torch.tensor([MapStatus.NO_LABEL] * 2)) == 0
    assert compute_degenerate_fraction(torch.tensor([0, 0, MapStatus.CONSTANT, MapStatus.NO_LABEL])) == torch.tensor(
        1 / 3
    )
