"""Tags of figures: no two are the same."""

from __future__ import annotations

from hypothesis import given, strategies as st

from lightning_gradcam.callback.figure_tags import CHOICES, FILM, assign_tags
from lightning_gradcam.loggers import sanitize_tag
from lightning_gradcam.stability.drift import FIRST
from tests.helpers.models import examples

NAMES = st.sampled_from([FILM, "Film", CHOICES, "drift", "accuracy", "layer_film", "a b", "a_b", "A.b", "a.b"])


@examples(200)
@given(st.lists(NAMES | st.text(max_size=5), unique=True, max_size=8))
def test_tags_differ_from_each_other_and_from_curves(keys):
    tags = assign_tags(keys)
    lowered = [tag.lower() for tag in tags.values()]
    assert list(tags) == keys
    assert len(set(lowered)) == len(keys)
    assert not {FILM, CHOICES, *FIRST} & set(lowered)
    assert all(sanitize_tag(tag) == tag for tag in tags.values())


def test_usual_names_of_layers_are_their_tags():
    for key in ("layer4", "features.8", "features/gradcam", "fused", "encoder.layers.2"):
        assert assign_tags([key]) == {key: key}
