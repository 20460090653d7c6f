"""Explanation: every field is mapped, concatenated and merged."""

from __future__ import annotations

from dataclasses import fields

import torch

from lightning_gradcam import Layer
from lightning_gradcam.explainer.explanation import REFERENCE, Explanation, FieldKind
from lightning_gradcam.utils.cell_centers import CellCenters


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
        centers={"a": CellCenters((0.5,), (1.0,))},
    )


def list_tensors(explanation: Explanation) -> dict[str, torch.Tensor]:
    """Each tensor in an explanation, by field and key."""
    values = {f.name: getattr(explanation, f.name) for f in fields(Explanation)}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    mappings = {
        name: value for name, value in values.items() if isinstance(value, dict) and name not in ("layers", "centers")
    }
    return tensors | {f"{name}.{key}": tensor for name, by_key in mappings.items() for key, tensor in by_key.items()}


def test_every_field_of_an_explanation_names_its_kind():
    assert all(isinstance(f.metadata["kind"], FieldKind) for f in fields(Explanation))
    whole = make_explanation([1.0, 2.0])
    assert all(getattr(whole, f.name) is not None for f in fields(Explanation))
    assert len(list_tensors(whole)) == len(fields(Explanation)) - 3  # all but size, layers and centers


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
