"""Contents of baseline files that are invalid although their checksum matches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from lightning_gradcam import Baseline
from lightning_gradcam.baseline.data import serialize
from lightning_gradcam.errors import UnreadableError
from lightning_gradcam.explainer.map_status import MapStatus
from tests.helpers.baselines import encode_file, record_small

EXAMPLES = 1000
AT = st.integers(0, 1 << 30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
def test_forged_facts_are_unreadable_or_can_be_rendered(tmp_path):
    """A forged file can have a matching checksum, so its facts must be validated."""
    original = record_small()
    tensors, about = serialize(original)
    names = sorted([*about, *tensors])
    path = tmp_path / "lying.safetensors"
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(names), JSON, st.sampled_from([torch.float64, torch.int32, torch.uint8, torch.bool]), AT)
    def each(name, value, dtype, choice):
        facts, kept = dict(about), dict(tensors)
        if name in about:
            facts[name] = value
        else:
            changes = [
                lambda t: t.to(dtype),
                lambda t: t[:2].clone(),
                lambda t: t[None].clone(),
                lambda t: t[:0].clone(),
                lambda t: t + 200 if not t.is_floating_point() else t * float("nan"),
                lambda t: torch.zeros(()),
            ]
            kept[name] = changes[choice % len(changes)](kept[name])
        path.write_bytes(encode_file(kept, facts))
        try:
            found = Baseline.load(path)
        except UnreadableError as error:
            assert "\n" not in str(error)
            return
        report = original.compare(found)
        assert report.status in ("pass", "regressed", "inconclusive", "incompatible")
        assert report.text()
        assert report.html()
        with_it = found.compare(original)
        assert with_it.markdown()
        assert with_it.json()
        # A model may be told classes that it has not, and images of a shape that it does not take: that has its words.
        try:
            found.compare(model)
        except (ValueError, RuntimeError) as error:
            assert type(error).__name__ in ("ValueError", "ForwardError", "NotExplainableError", "IncompatibleError")

    each()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", ["4", "4"]),
        ("size", [0, 0]),
        ("size", [4.0, 4.0]),
        ("places", [["1", float("inf"), ""]]),
        ("keys", [None]),
        ("noise", "much"),
        ("noise", 10**400),
        ("pixels", {"mean": "no", "std": "no"}),
        ("pixels", {"mean": [0.5], "std": [0]}),
        ("more", 1),
    ],
)
def test_invalid_fact_is_unreadable(name, value, tmp_path):
    tensors, about = serialize(record_small(store="hash"))  # so that there are no images to hold the size against
    path = tmp_path / "b.safetensors"
    path.write_bytes(encode_file(tensors, about))
    Baseline.load(path)
    path.write_bytes(encode_file(tensors, {**about, name: value}))
    with pytest.raises(UnreadableError, match="is not a baseline"):
        Baseline.load(path)


@pytest.mark.parametrize(
    ("name", "tensor", "facts"),
    [
        ("images", torch.rand(3, 3, 4, 4), {"pixels": {"mean": [0.5, 0.5], "std": [1, 1]}}),
        ("images", torch.rand(3, 0, 4, 4), {}),
        ("evidence.0", torch.zeros(3, 0, 2), {}),
        ("flaws.0", torch.full((3,), len(MapStatus), dtype=torch.uint8), {}),
        ("logits", torch.zeros(3), {}),
        ("logits", torch.zeros(3, 2).double(), {}),
    ],
)
def test_inconsistent_tensor_is_unreadable(name, tensor, facts, tmp_path):
    tensors, about = serialize(record_small())
    path = tmp_path / "b.safetensors"
    path.write_bytes(encode_file({**tensors, name: tensor}, {**about, **facts}))
    with pytest.raises(UnreadableError, match="is not a baseline"):
        Baseline.load(path)
