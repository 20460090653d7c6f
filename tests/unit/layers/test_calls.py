"""Layers that run several times in a pass: which calls are explained, compared with plain autograd call by call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_gradcam import Layer, NotExplainableError, Probe, explain
from tests.helpers.models import assert_close, perturbed, plain_gradcam


def explain_by_hand(model, name, call, score):
    """Compute Grad-CAM of what one call of a module hands on, by plain autograd."""
    handed_on: list[Tensor] = []

    def keep(_module, _args, output):
        handed_on.append(output.clone() if output.requires_grad else output.detach().requires_grad_())
        return handed_on[-1]

    handle = model.get_submodule(name).register_forward_hook(keep)
    value = score(model)
    handle.remove()
    [gradient] = torch.autograd.grad(value.sum(), handed_on[call])
    return plain_gradcam(handed_on[call].detach(), gradient)


class Body(nn.Module):
    """A body that subclasses call several times."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh())
        self.step, self.head = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.Tanh()), nn.Linear(8, 3)

    def score(self, maps):
        return self.head(maps.mean((2, 3)))


class Siamese(Body):
    def forward(self, images, others):
        return self.score(self.body(images) * 2) - self.score(self.body(others) * 3)


class SecondImage(Body):
    def forward(self, images, others):
        return self.score(self.body(others) * 3) - self.score(self.body(images) * 2)


class Modalities(Body):
    """A second modality with a network of its own, which runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh())

    def forward(self, images, others):
        return self.score(self.body(images)) + self.score(self.depth(others))


class NoGradSiamese(Siamese):
    """Images that are normalized without grad, so that the graph does not reach them."""

    def forward(self, images, others):
        with torch.no_grad():
            images, others = images * 2 - 1, others * 2 - 1
        return super().forward(images, others)


class ArraySiamese(Siamese):
    """Images that leave PyTorch."""

    def forward(self, images, others):
        return super().forward(torch.from_numpy(images.numpy() * 2 - 1), torch.from_numpy(others.numpy() * 2 - 1))


class RepeatedSteps(Body):
    """A potential that decays and adds up, and a score that averages its steps, as in a spiking network."""

    def forward(self, images):
        potential, total = 0.0, 0.0
        for _ in range(3):
            potential = 0.5 * potential + self.body(images)
            total = total + self.score(self.step(potential))
        return total


class Recurrent(Body):
    """Each step reads the last step's output, and the score reads the last one alone."""

    def forward(self, images):
        maps = self.body(images)
        for _ in range(3):
            maps = self.step(maps)
        return self.score(maps)


class RecurrentStages(Body):
    """Each step reads the last step's output, and the score reads all of them."""

    def forward(self, images):
        maps, total = self.body(images), 0.0
        for _ in range(3):
            maps = self.step(maps)
            total = total + self.score(maps)
        return total


class Mirrored(Body):
    def forward(self, images):
        return self.score(self.body(images.flip(3))) + self.score(self.body(images))


class Windows(Body):
    def forward(self, images):
        return self.score(self.body(images[..., :8])) + self.score(self.body(images[..., 8:]))


class Levels(Body):
    def forward(self, images):
        return self.score(self.body(images[..., ::2, ::2])) + self.score(self.body(images))


class SharedActivation(Body):
    def __init__(self) -> None:
        super().__init__()
        self.act, self.first, self.second = nn.Tanh(), nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, images):
        maps = self.act(self.first(images))
        return self.score(maps + self.act(self.second(maps)))


IMAGES, OTHERS = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)


def call_with_others(model, probe):
    return model(probe.images, probe.extras["others"])


@pytest.mark.parametrize(("make", "call"), [
    (Siamese, 0), (SecondImage, 1), (Modalities, 0), (NoGradSiamese, 0), (ArraySiamese, 0),
])  # fmt: skip
@pytest.mark.parametrize("layers", ["auto", "body"])
def test_map_is_that_of_the_images_shown(make, call, layers):
    model, probe = perturbed(make()), Probe(IMAGES, extras={"others": OTHERS})
    found = explain(model, probe, forward=call_with_others, target=1, layers=layers)
    [(key, evidence)] = found.evidence.items()
    assert found.layers[key].name == "body"
    assert_close(evidence, explain_by_hand(model, "body", call, lambda m: m(IMAGES, OTHERS)[:, 1]))
    assert ("depend on the images" in found.layers[key].reason) is (make is not Modalities)


def test_layer_of_another_input_is_refused_unless_its_call_is_named():
    model, probe = perturbed(Modalities()), Probe(IMAGES, extras={"others": OTHERS})
    with pytest.raises(NotExplainableError, match=r"'depth' does not depend on the images .* `layers=Layer"):
        explain(model, probe, forward=call_with_others, target=1, layers="depth")
    found = explain(model, probe, forward=call_with_others, target=1, layers=Layer("depth", call=0))
    expected = explain_by_hand(model, "depth", 0, lambda m: m(IMAGES, OTHERS)[:, 1])
    assert_close(found.evidence["depth[0]"], expected)


@pytest.mark.parametrize(
    ("make", "name"), [(RepeatedSteps, "step"), (RepeatedSteps, "body"), (RecurrentStages, "step")]
)
@pytest.mark.parametrize("method", ["gradcam", "layercam", "scorecam"])
def test_repeated_step_is_the_sum_of_its_calls(make, name, method):
    model, calls = perturbed(make()), [Layer(name, call=call) for call in range(3)]
    found = explain(model, IMAGES, target=1, layers=name, method=method)
    assert found.layers[name].calls == (0, 1, 2)
    assert "the sum over the 3 times it runs" in found.layers[name].reason
    together = explain(model, IMAGES, target=1, layers=calls, method=method).evidence
    assert list(together) == [f"{name}[0]", f"{name}[1]", f"{name}[2]"]
    assert_close(found.evidence[name], sum(together.values()))
    for call, layer in enumerate(calls):
        [alone] = explain(model, IMAGES, target=1, layers=layer, method=method).evidence.values()
        assert_close(together[layer.key], alone)
        if method == "gradcam":
            assert_close(alone, explain_by_hand(model, name, call, lambda m: m(IMAGES)[:, 1]))


class Membrane(nn.Module):
    """A neuron that resets its potential by what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.potential = None

    def forward(self, current):
        potential = current if self.potential is None else 0.7 * self.potential + current
        spikes = torch.sigmoid(4 * (potential - 0.2))
        self.potential = potential - spikes
        return spikes


class Spiking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.neuron, self.head = nn.Conv2d(3, 8, 3, 2, 1), Membrane(), nn.Linear(8, 3)

    def forward(self, images):
        self.neuron.potential = None
        return sum(self.head(self.neuron(self.conv(images)).mean((2, 3))) for _ in range(3))


def test_call_alone_equals_the_call_among_others_in_a_neuron():
    model = perturbed(Spiking())
    found = explain(model, IMAGES, target=1)
    assert found.layers["neuron"].calls == (0, 1, 2)
    expected = [explain_by_hand(model, "neuron", call, lambda m: m(IMAGES)[:, 1]) for call in range(3)]
    assert_close(found.evidence["neuron"], sum(expected))
    for call in range(3):
        alone = explain(model, IMAGES, target=1, layers=Layer("neuron", call)).evidence[f"neuron[{call}]"]
        assert_close(alone, expected[call])


@pytest.mark.parametrize(("make", "name", "call", "reason"), [
    (Recurrent, "step", 2, "reach the score through it alone"),
    (Mirrored, "body", 1, "others read other parts of the image, or a changed image"),
    (Windows, "body", None, "others read other parts of the image, or a changed image"),
    (Levels, "body", 1, "return maps of other sizes"),
    (SharedActivation, "act", 1, "run at other places of the model"),
])  # fmt: skip
@pytest.mark.parametrize("named", [True, False])
def test_single_call_is_explained_and_named(make, name, call, reason, named):
    model = perturbed(make())
    found = explain(model, IMAGES, target=1, layers=name if named else "auto")
    [(key, evidence)] = found.evidence.items()
    layer = found.layers[key]
    assert reason in layer.reason
    assert layer.calls == ()
    if call is not None:
        assert layer.call in (call, -1)
        assert_close(evidence, explain_by_hand(model, name, call, lambda m: m(IMAGES)[:, 1]))
