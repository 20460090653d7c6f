"""Variants of equations against replicas and the smoothing of pytorch-grad-cam."""

from __future__ import annotations

import pickle

import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_gradcam import GradCAMCallback, Variant, explain
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods import EQUATIONS
from tests.helpers.models import assert_close, perturbed, plain_cnn
from tests.helpers.oracles import ORACLES, ROUNDING, align_sign, compute_peer_maps, create_case
from tests.helpers.replicas import REPLICAS, project_component

SUMS = sorted(set(EQUATIONS) - {"eigencam", "eigengradcam"})


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize(("gradients", "change"), [("relu", lambda g: g.clamp(min=0)), ("abs", torch.abs)])
def test_transformed_gradients_equal_the_replica(name, gradients, change):
    activations, taken = torch.randn(2, 5, 4, 3).relu() + 0.1, torch.randn(2, 5, 4, 3)
    expected = REPLICAS[name](activations.double(), change(taken.double()))
    assert_close(Variant(name, gradients=gradients)(activations, taken), expected, 1e-5)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("grid", [(4, 5), (7,), (2, 3, 2)])
def test_smoothing_is_the_component_of_the_contributions(name, grid):
    activations, taken = torch.randn(2, 5, *grid).relu() + 0.1, torch.randn(2, 5, *grid)
    contributions = torch.stack(
        [REPLICAS[name](activations[:, k : k + 1].double(), taken[:, k : k + 1].double()) for k in range(5)], 1
    )
    assert_close(Variant(name, smooth="principal")(activations, taken), project_component(contributions), 1e-4)


@pytest.mark.parametrize("name", sorted(set(SUMS) & set(ORACLES)))
def test_smoothing_equals_pytorch_grad_cam(name):
    model, images, classes = create_case("tiny residual", (3, 30, 22), 3)
    explanation = explain(model, images, layers="layer2", method=Variant(name, smooth="principal"), target=classes)
    [raw], _ = compute_peer_maps(name, model, ["layer2"], images, classes, eigen_smooth=True)
    assert_close(align_sign(explanation.evidence["layer2"], raw), raw, ROUNDING)


def test_variants_pickle_and_combine_with_their_method():
    variant = Variant("layercam", gradients="abs", smooth="principal")
    assert pickle.loads(pickle.dumps(variant)) == variant
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    explanation = explain(model, images, layers="5", method=["layercam", Variant("layercam", "abs"), variant], target=0)
    assert [key.split("/")[1] for key in explanation.evidence] == [
        "layercam", "layercam, abs gradients", "layercam, abs gradients, smoothed",
    ]  # fmt: skip
    twins = explain(model, images, layers="5", method=[variant, variant, "gradcam"], target=0)
    assert len(twins.evidence) == 3
    with pytest.raises(NotExplainableError, match="takes the mean of the whole map"):
        explain(model, images, layers="5", method=Variant("cam", "abs"), target=0)


def test_variant_loads_from_yaml():
    parser = ArgumentParser()
    parser.add_class_arguments(GradCAMCallback, "callback")
    text = {"class_path": "lightning_gradcam.Variant", "init_args": {"method": "gradcam", "gradients": "abs"}}
    parsed = parser.parse_object({"callback": {"method": [text, "hirescam"]}})
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name in older versions
    built = build(parsed).callback
    assert built.config.method == [Variant("gradcam", "abs"), "hirescam"]


def test_invalid_variants_raise():
    for message, arguments in [
        ("Did you mean 'gradcam'", {"method": "grad-cam"}),
        ("Expected `gradients` to be", {"method": "gradcam", "gradients": "square"}),
        ("Expected `smooth` to be", {"method": "gradcam", "smooth": "flips"}),
        ("got 'eigencam', which ignores them", {"method": "eigencam", "gradients": "abs"}),
        ("already is a principal component", {"method": "eigengradcam", "smooth": "principal"}),
    ]:
        with pytest.raises(ValueError, match=message):
            Variant(**arguments)
