"""Degenerate maps are called by name, and heatmaps show what the evidence says."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from lightning_gradcam import Layer, explain
from lightning_gradcam.explainer.explanation import REFERENCE, Explanation, FieldKind
from lightning_gradcam.explainer.heatmaps import to_heatmaps
from lightning_gradcam.explainer.map_status import MapStatus, find_status
from lightning_gradcam.targets.logits import probabilities
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


def test_each_degenerate_map_is_named():
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


def test_a_method_without_gradients_blames_none():
    found = explain(identity_model(), torch.rand(2, 1, 2, 2), layers="0", target=lambda out, probe: out[:, 0] * 0,
                    method=[lambda passes: {"0": passes.activations["0"][:, 0] * 0}, "gradcam"])  # fmt: skip
    first, second = found.degenerate.values()
    assert first == ("all zero",) * 2
    assert second == ("no gradient",) * 2


@pytest.mark.parametrize("magnitude", [1e-9, 1e-30, 1e30])
def test_a_tiny_map_is_a_map(magnitude):
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
def test_flaws_equal_a_replica(evidence, gradients):
    for one in evidence:
        finite = np.isfinite(one).all() and one.max() > 0
        assume(not finite or abs((one.max() - max(one.min(), 0)) / one.max() - CONSTANT) > 1e-6)
    found = find_status(torch.from_numpy(evidence), torch.from_numpy(gradients))
    assert found.tolist() == [replica_of_flaws(e, g) for e, g in zip(evidence, gradients, strict=True)]


def enlarge(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation between the cells' centres along one axis after another, in float64."""
    values = values.astype(np.float64)
    for axis, wanted in enumerate(size):
        cells_here = values.shape[axis]
        centres = (np.arange(wanted) + 0.5) * cells_here / wanted - 0.5
        values = np.apply_along_axis(lambda row, at=centres: np.interp(at, np.arange(len(row)), row), axis, values)
    return values


def stretch(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


@examples(60)
@given(st.data())
def test_heatmaps_equal_a_replica_in_one_two_and_three_dimensions(data):
    grid = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    size = tuple(g * data.draw(st.integers(1, 4)) + data.draw(st.integers(0, 2)) for g in grid)
    evidence = data.draw(arrays(np.float32, (2, *grid), elements=st.floats(-4, 4, width=16)))
    tensor = torch.from_numpy(evidence)
    explanation = Explanation({"a": tensor}, torch.zeros(2, 0), None, size, map_status={"a": find_status(tensor)})
    own, common = explanation.heatmaps()["a"], explanation.heatmaps(scale=2.0)["a"]
    other_size = explanation.heatmaps(size=tuple(s + 1 for s in size))["a"]
    assert own.shape == common.shape == (2, *size)
    for i, code in enumerate(explanation.map_status["a"].tolist()):
        maps = np.maximum(evidence[i], 0)
        expected = enlarge(maps / 2, size).clip(0, 1) if code in (NONE, CONSTANT_MAP) else np.zeros(size)
        np.testing.assert_allclose(common[i].numpy(), expected, atol=1e-5)
        if code == NONE:
            enlarged = enlarge(stretch(maps), size)
            if enlarged.max() - enlarged.min() > 1e-3:  # else only the peaks' rounding errors are stretched
                np.testing.assert_allclose(own[i].numpy(), stretch(enlarged), atol=1e-3)
                assert own[i].min() == 0
                assert own[i].max() == pytest.approx(1, abs=1e-6)
            assert other_size[i].shape == tuple(s + 1 for s in size)
        else:
            assert (own[i] == 0).all()


def test_a_common_scale_keeps_magnitudes_apart():
    evidence = torch.tensor([[[0.0, 1.0]], [[0.0, 4.0]], [[3.0, 3.0]], [[-1.0, -1.0]]])
    explanation = Explanation({"a": evidence}, torch.zeros(4, 0), None, (1, 2), map_status={"a": find_status(evidence)})
    expected = torch.tensor([[[0.0, 0.5]], [[0.0, 1.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    assert torch.equal(explanation.heatmaps(scale=2.0)["a"], expected)  # a constant map has a magnitude
    assert torch.equal(explanation.heatmaps(scale=torch.tensor(2.0))["a"], expected)
    assert (
        to_heatmaps(evidence[3:], explanation.map_status["a"][3:], (2, 2), torch.tensor(0.0)) == 0
    ).all()  # none so far
    assert explanation.heatmaps()["a"][:2].amax((1, 2)).tolist() == [1, 1]
    assert explanation.degenerate["a"] == (None, None, MapStatus.CONSTANT.text, MapStatus.ALL_ZERO.text)


def test_probabilities_are_given_or_made():
    logits = torch.randn(5, 3)
    once = probabilities(logits)
    torch.testing.assert_close(once.double(), torch.exp(logits.double()) / torch.exp(logits.double()).sum(1, True))
    torch.testing.assert_close(probabilities(once), once)
    mixed = probabilities(torch.stack([torch.tensor([0.2, 0.8, 0.0]), torch.tensor([-1.0, 1.0, 1.0])]))
    torch.testing.assert_close(mixed.sum(1), torch.ones(2))
    torch.testing.assert_close(mixed[0], torch.tensor([0.2, 0.8, 0.0]))


def make_explanation(values: list[float]) -> Explanation:
    """An explanation of one image per value, whose tensors all hold these values, and without an empty field."""
    images = torch.tensor(values)[:, None]
    vectors = images[:, 0]
    return Explanation(
        evidence={"a": images},
        logits=images,
        classes=vectors,
        size=(1,),
        layers={"a": Layer("a")},
        map_status={"a": vectors},
        explained={"": vectors},
        scores={"": vectors},
        photos=images,
        region=images,
    )


def list_tensors(explanation: Explanation) -> dict[str, torch.Tensor]:
    """Each tensor in an explanation, by field and key."""
    values = {f.name: getattr(explanation, f.name) for f in fields(Explanation)}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    mappings = {name: value for name, value in values.items() if isinstance(value, dict) and name != "layers"}
    return tensors | {f"{name}.{key}": tensor for name, by_key in mappings.items() for key, tensor in by_key.items()}


def test_every_field_of_an_explanation_names_its_kind():
    assert all(isinstance(f.metadata["kind"], FieldKind) for f in fields(Explanation))
    whole = make_explanation([1.0, 2.0])
    assert all(getattr(whole, f.name) is not None for f in fields(Explanation))
    assert len(list_tensors(whole)) == len(fields(Explanation)) - 2  # all but size and layers


def test_map_and_cat_reach_every_tensor():
    whole = make_explanation([1.0, 2.0, 3.0])
    doubled = whole.map(lambda tensor: 2 * tensor)
    assert all(
        torch.equal(doubled_one.flatten(), torch.tensor([2.0, 4, 6])) for doubled_one in list_tensors(doubled).values()
    )
    joined = Explanation.cat([whole.map(lambda tensor: tensor[:1]), whole.map(lambda tensor: tensor[1:])])
    expected = list_tensors(whole)
    assert list_tensors(joined).keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in list_tensors(joined).items())
    assert joined.layers == whole.layers
    assert joined.size == whole.size


def test_merged_scores_keep_each_field_by_its_kind():
    first, second = make_explanation([1.0]), make_explanation([2.0])
    merged = Explanation.merge_scores({"top 1": first, "top 2": second})
    for f in fields(Explanation):
        value, own = getattr(merged, f.name), [getattr(one, f.name) for one in (first, second)]
        if f.metadata["kind"] is FieldKind.PER_MAP:
            assert value == {"a/top 1": own[0]["a"], "a/top 2": own[1]["a"]}
        elif f.metadata["kind"] is FieldKind.PER_SCORE:
            assert value == {"top 1": own[0][""], "top 2": own[1][""]}
        else:
            assert value is (own[0] if f.metadata["kind"] is FieldKind.SHARED else None)
    assert Explanation.merge_scores({"": first}).region is first.region


def test_split_pairs_moves_the_references_maps_to_own_keys():
    pairs = make_explanation([1.0, 2.0])
    split = pairs.split_pairs()
    assert {key: float(maps) for key, maps in split.evidence.items()} == {"a": 1.0, f"a/{REFERENCE}": 2.0}
    assert {key: float(code) for key, code in split.map_status.items()} == {"a": 1.0, f"a/{REFERENCE}": 2.0}
    assert {name: float(score) for name, score in split.scores.items()} == {"": 1.0}
    assert {name: float(classes) for name, classes in split.explained.items()} == {"": 1.0}
    assert split.region is None
