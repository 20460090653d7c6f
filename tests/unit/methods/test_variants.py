"""Methods with options, against replicas and pytorch-grad-cam's smoothing."""

from __future__ import annotations

import pickle

import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_gradcam import GradCAMCallback, Variant, explain
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.methods import EQUATIONS
from tests.helpers.models import assert_close, perturbed, plain_cnn
from tests.helpers.replicas import REPLICAS, component
from tests.parity.test_oracles import ORACLES, ROUNDING, case, peers_answer, turned

SUMS = sorted(set(EQUATIONS) - {"eigencam", "eigengradcam"})


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize(("gradients", "change"), [("relu", lambda g: g.clamp(min=0)), ("abs", torch.abs)])
def test_other_gradients_are_those_of_the_replica(name, gradients, change):
    activations, taken = torch.randn(2, 5, 4, 3).relu() + 0.1, torch.randn(2, 5, 4, 3)
    expected = REPLICAS[name](activations.double(), change(taken.double()))
    assert_close(Variant(name, gradients=gradients)(activations, taken), expected, 1e-5)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("grid", [(4, 5), (7,), (2, 3, 2)])
def test_smoothing_is_the_component_of_what_is_summed_up(name, grid):
    activations, taken = torch.randn(2, 5, *grid).relu() + 0.1, torch.randn(2, 5, *grid)
    shares = torch.stack(
        [REPLICAS[name](activations[:, k : k + 1].double(), taken[:, k : k + 1].double()) for k in range(5)], 1
    )
    assert_close(Variant(name, smooth="principal")(activations, taken), component(shares), 1e-4)


@pytest.mark.parametrize("name", sorted(set(SUMS) & set(ORACLES)))
def test_smoothing_equals_pytorch_grad_cam(name):
    model, images, classes = case("tiny residual", (3, 30, 22), 3)
    found = explain(model, images, layers="layer2", method=Variant(name, smooth="principal"), target=classes)
    [raw], _ = peers_answer(name, model, ["layer2"], images, classes, eigen_smooth=True)
    assert_close(turned(found.evidence["layer2"], raw), raw, ROUNDING)


def test_variants_have_names_travel_and_stand_beside_their_method():
    variant = Variant("layercam", gradients="abs", smooth="principal")
    assert pickle.loads(pickle.dumps(variant)) == variant
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    found = explain(model, images, layers="5", method=["layercam", Variant("layercam", "abs"), variant], target=0)
    assert [key.split("/")[1] for key in found.evidence] == [
        "layercam", "layercam, abs gradients", "layercam, abs gradients, smoothed",
    ]  # fmt: skip
    twins = explain(model, images, layers="5", method=[variant, variant, "gradcam"], target=0)
    assert len(twins.evidence) == 3
    with pytest.raises(NotExplainableError, match="takes the mean of the whole map"):
        explain(model, images, layers="5", method=Variant("cam", "abs"), target=0)


def test_a_variant_is_built_from_yaml():
    parser = ArgumentParser()
    parser.add_class_arguments(GradCAMCallback, "callback")
    text = {"class_path": "lightning_gradcam.Variant", "init_args": {"method": "gradcam", "gradients": "abs"}}
    parsed = parser.parse_object({"callback": {"method": [text, "hirescam"]}})
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name in older versions
    built = build(parsed).callback
    assert built.config.method == [Variant("gradcam", "abs"), "hirescam"]


def test_what_is_wrong_is_said():
    for message, arguments in [
        ("Did you mean 'gradcam'", {"method": "grad-cam"}),
        ("Expected `gradients` to be", {"method": "gradcam", "gradients": "square"}),
        ("Expected `smooth` to be", {"method": "gradcam", "smooth": "flips"}),
        ("got 'eigencam', which ignores them", {"method": "eigencam", "gradients": "abs"}),
        ("already is a principal component", {"method": "eigengradcam", "smooth": "principal"}),
    ]:
        with pytest.raises(ValueError, match=message):
            Variant(**arguments)
