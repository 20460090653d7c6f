"""Methods at the pixels: each against a slow replica, and with nothing left behind."""

from __future__ import annotations

import importlib.util

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_gradcam import Baseline, NotExplainableError, Probe, explain
from lightning_gradcam.capture.layer import PIXELS
from lightning_gradcam.methods import (
    METHODS,
    Deconvolution,
    GuidedBackprop,
    IntegratedGradients,
    KernelShap,
    Lime,
    Occlusion,
    Saliency,
    SmoothGrad,
)
from tests.helpers.model_state import everything
from tests.helpers.models import TinyResNet, TinyVGG, assert_close, perturbed, plain_cnn
from tests.helpers.pixel_replicas import (
    NOISE,
    REPLICAS,
    SAMPLES,
    SEGMENTS,
    STEPS,
    STRIDE,
    WINDOW,
    deconvolution,
    guided,
)

SMALL = {
    "integrated_gradients": IntegratedGradients(STEPS),
    "smoothgrad": SmoothGrad(SAMPLES, NOISE),
    "occlusion": Occlusion(WINDOW, STRIDE),
    "lime": Lime(SAMPLES, SEGMENTS),
    "kernel_shap": KernelShap(1000, SEGMENTS),
}
NAMES = list(REPLICAS)
MODELS = {"in place": (lambda: TinyVGG(), "features.3"), "reused": (lambda: TinyResNet(), "layer2")}
SIGNED = {"integrated_gradients", "occlusion", "lime", "kernel_shap"}
SEEDED = {"smoothgrad", "lime", "kernel_shap"}


def method(name):
    """With few samples."""
    return SMALL.get(name, METHODS[name])


def evidence(model, images, name, **kwargs):
    [found] = explain(model, images, method=method(name), **kwargs).evidence.values()
    return found


def test_every_method_that_calls_captum_has_a_replica():
    assert set(REPLICAS) == {name for name, entry in METHODS.items() if getattr(entry, "requires", None) == "captum"}
    assert all(method(name).name.startswith(name) and METHODS[name].name == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_equals_its_replica(name, kind):
    make, layer = MODELS[kind]
    model, images, labels = perturbed(make()), torch.randn(3, 3, 16, 16), [2, 0, 1]
    found = evidence(model, images, name, layers=layer, target=labels)
    model.double()
    about = (layer,) if name == "guided_gradcam" else ()
    pairs = zip(images.double(), labels, strict=True)
    expected = torch.stack([REPLICAS[name](model, image, label, *about).detach() for image, label in pairs])
    assert_close(found, expected, 0.05 if name == "kernel_shap" else 1e-4)
    assert bool((found < 0).any()) == (name in SIGNED)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_explained_each_for_itself(name, monkeypatch):
    """Also across passes of a few images, with classes and extras that differ."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = plain_cnn()

        def forward(self, images, factor):
            return self.body(images * factor[:, None, None, None])

    def forward(model, probe):
        assert probe.labels.tolist() == [round(float(each)) for each in probe.extras["factor"]]
        return model(probe.images, probe.extras["factor"])

    model, labels = perturbed(Turned()), torch.arange(18) % 5
    probe = Probe(torch.randn(18, 3, 8, 8), labels=labels, extras={"factor": labels.float()})
    rows = [17, 3, 0, 4]
    whole = evidence(model, probe, name, forward=forward, target="label", layers="body.5")
    single = [evidence(model, probe[[i]], name, forward=forward, target="label", layers="body.5") for i in rows]
    torch.testing.assert_close(whole[rows], torch.cat(single), rtol=1e-3, atol=float(whole.abs().max()) * 1e-5)


class Breaks(nn.Module):
    """Raises at the third call."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.body, self.calls, self.at = TinyVGG(), [0], at

    def forward(self, images):
        self.calls[0] += 1
        found = self.body(images)
        if self.calls[0] == self.at:
            raise ValueError("not today")
        return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left(name, fails):
    model = Breaks(2 if fails else -1)  # the first call is the pass that all methods share
    model.train()
    model.body.features[0].weight.grad = torch.randn_like(model.body.features[0].weight)
    images = torch.randn(2, 3, 16, 16)
    before = everything(model) | {"attributes": [vars(m).keys() for m in model.modules()]}
    before |= {"in place": [getattr(m, "inplace", None) for m in model.modules()]}
    probe = Probe(images)
    if fails:
        from lightning_gradcam.explainer.pipeline import prepare
        from lightning_gradcam.targets import class_target

        plan = prepare(model, probe, layers="body.features.3", method=method(name), target=class_target(0))
        model.calls[0] = 0
        with pytest.raises(RuntimeError, match="not today"):
            plan(model, probe, [class_target(0)])
    else:
        evidence(model, probe, name, layers="body.features.3", target=0)
    after = everything(model) | {"attributes": [vars(m).keys() for m in model.modules()]}
    after |= {"in place": [getattr(m, "inplace", None) for m in model.modules()]}
    for what in before:
        assert after[what] == before[what], what
    assert images.grad is None
    assert not images.requires_grad
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    assert torch.autograd.grad((-F.relu(x)).sum(), x)[0].tolist() == [0, -1]  # ReLUs are as ever
    assert torch._C._len_torch_function_stack() == 0


@pytest.mark.parametrize("name", sorted(SEEDED))
def test_the_same_weights_give_the_same_map(name):
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    first = evidence(model, images, name, target=0)
    torch.rand(7)
    torch.testing.assert_close(evidence(model, images, name, target=0), first, rtol=0, atol=0)
    both = explain(model, images, method=[SMALL["lime"], method(name)], target=0)
    torch.testing.assert_close(list(both.evidence.values())[-1], first, rtol=0, atol=0)


class Spelled(nn.Module):
    """A network with its ReLUs written in one of many ways."""

    def __init__(self, relu):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.relu, self.function = relu, None

    def forward(self, images):
        relu = self.function or self.relu
        x = relu(self.first(images))
        return self.head(relu(self.second(x) + x[:, :, 1:-1, 1:-1] - 0.5).mean((2, 3)))


def ignored(x):
    F.relu(x, inplace=True)
    return x


SPELLINGS = {
    "function": F.relu, "in place": lambda x: F.relu(input=x, inplace=True), "result ignored": ignored,
    "torch": torch.relu, "torch, in place": torch.relu_, "method": lambda x: x.relu(), "method, in place":
    lambda x: x.relu_(), "module": nn.ReLU(inplace=True), "not bounded": lambda x: F.hardtanh(x, 0, 1e6),
}  # fmt: skip


@pytest.mark.parametrize("how", SPELLINGS)
@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution"])
def test_every_spelling_of_relu_is_one(how, name):
    model, images = perturbed(Spelled(nn.ReLU())), torch.randn(2, 3, 12, 12)
    expected = evidence(model, images, name, target=1)
    assert_close(expected[0], REPLICAS[name](model.double(), images[0].double(), 1), 1e-5)
    model.float().function = SPELLINGS[how]
    torch.testing.assert_close(evidence(model, images, name, target=1), expected)


def test_relu6_lets_back_what_came_through():
    model, images = perturbed(Spelled(nn.ReLU6())), torch.randn(2, 3, 12, 12) * 8
    assert (F.relu(model.first(images)) > 6).any()
    found = evidence(model, images, "guided_backprop", target=1)
    model.function = F.relu6
    torch.testing.assert_close(evidence(model, images, "guided_backprop", target=1), found)
    model.function, copied = None, model.double()
    copied.relu.register_full_backward_hook(lambda _, came, went: (came[0].clamp_min(0),))
    given = images[:1].double().requires_grad_()
    copied(given)[0, 1].backward()
    assert_close(found[0], given.grad[0].abs().amax(0), 1e-5)


def test_without_a_relu_there_is_nothing_to_guide():
    model = perturbed(nn.Sequential(nn.Conv2d(3, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(600, 4)))
    for name in ("guided_backprop", "deconvolution", "guided_gradcam"):
        with pytest.raises(NotExplainableError, match=f"No ReLU ran .* {name!r} would be the plain gradient.*saliency"):
            explain(model, torch.randn(2, 3, 12, 12), method=name)


@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor", "ignore:Setting forward, backward")
def test_agrees_with_captum_on_relus_that_are_modules():
    model, images = perturbed(plain_cnn()), torch.randn(3, 3, 12, 12)
    for name, engine in {
        "guided_backprop": captum.attr.GuidedBackprop(model),
        "deconvolution": captum.attr.Deconvolution(model),
    }.items():
        expected = engine.attribute(images.clone().requires_grad_(), target=2).detach().abs().amax(1)
        assert_close(evidence(model, images, name, target=2), expected, 1e-5)
    neuron = captum.attr.NeuronGuidedBackprop(model, model[4])
    expected = neuron.attribute(images.clone().requires_grad_(), (3, 2, 1)).detach().abs().amax(1)
    found = explain(model, images, layers="4", method=GuidedBackprop((3, 2, 1)), target=2)
    assert_close(found.evidence["4"], expected, 1e-5)


@pytest.mark.parametrize(("kind", "replica"), [(GuidedBackprop, guided), (Deconvolution, deconvolution)])
@pytest.mark.parametrize("depth", [1, 2])
def test_single_neurons(kind, replica, depth):
    model, images = perturbed(TinyResNet()), torch.randn(2, 3, 16, 16)

    def output(module, given):
        first = module.layer1(given)
        return first if depth == 1 else module.layer2(first)

    active = output(model, images)[0]
    at = [int(i) for i in torch.unravel_index(active.argmax(), active.shape)]
    found = explain(model, images, layers=f"layer{depth}", method=kind(neuron=at))
    model.double()
    pairs = [replica(model, image, 0, lambda m, x: output(m, x)[0][tuple(at)]) for image in images.double()]
    assert_close(found.evidence[f"layer{depth}"], torch.stack(pairs), 1e-5)
    both = explain(model.float(), images, layers=["layer1", "layer2"], method=kind((0, 1, 1)))
    assert list(both.evidence) == ["layer1", "layer2"]


def test_a_neuron_that_is_not_there_is_said():
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    assert explain(model, images, layers="5", method=Saliency((7, 5, 5))).evidence["5"].any()
    for neuron in ((8, 5, 5), (7, 6, 0), (7, 5)):
        with pytest.raises(
            ValueError, match=r"a channel and a position in layer '5', whose output has shape \(8, 6, 6\)"
        ):
            explain(model, images, layers="5", method=Saliency(neuron))
    for wrong in (5, "layer", (1.0, 2, 2), True):
        with pytest.raises(TypeError, match=r"Expected `neuron` to be a channel and a position, \(channel, i, j\)"):
            GuidedBackprop(wrong)
    with pytest.raises(ValueError, match="of at least 0"):
        Deconvolution((5, -1, 2))


def test_shares_add_up_to_the_score():
    model, images = perturbed(TinyResNet()), torch.rand(2, 3, 16, 16)
    whole = model(images)[:, 1].detach()
    found = explain(model, images, method=[IntegratedGradients(300), KernelShap(200, 4, fill=0.0)], target=1).evidence
    fine, cells = found.values()
    black = model(images * 0)[:, 1].detach()
    torch.testing.assert_close(fine.sum((1, 2)), whole - black, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(cells[:, ::4, ::4].sum((1, 2)), whole - black, rtol=1e-3, atol=1e-3)


def test_of_a_sum_every_way_gives_the_terms():
    """A model that is linear in the pixels: shares are weight times pixel, hidden or integrated."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(48, 2, bias=False)).eval()
    images = torch.rand(2, 3, 4, 4)
    [table] = torch.autograd.functional.jacobian(lambda x: model(x)[:, 1].sum(), images).split(2)
    expected = (table * images).sum(1)
    methods = {
        "integrated": IntegratedGradients(2),
        "occluded": Occlusion(1, 1, fill=0.0),
        "lime": Lime(400, 4, width=10.0, fill=0.0),
        "shap": KernelShap(60, 4, fill=0.0),
    }
    for name, each in methods.items():
        [found] = explain(model, images, method=each, target=1).evidence.values()
        assert_close(found, expected, 0.1 if name == "lime" else 1e-4)  # LIME's ridge pulls towards zero


def test_segments_of_ones_own():
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)

    def stripes(image):
        return (10 + 2 * torch.arange(12).div(3, rounding_mode="floor"))[None, :, None].expand(1, 12, 12)

    found = explain(model, images, method=KernelShap(40, stripes), target=0).evidence[PIXELS]
    assert (found == found[:, ::3].repeat_interleave(3, 1)[:, :, :1]).all()
    assert found[0].unique().numel() == 4
    with pytest.raises(
        ValueError, match=r"`segments` to return integers of shape \(1, 12, 12\), but got torch.float32"
    ):
        explain(model, images, method=Lime(10, lambda image: image[:, 0]))


@pytest.mark.parametrize("size", [(40,), (10, 8, 6)])
@pytest.mark.parametrize("name", NAMES)
def test_signals_and_volumes(name, size):
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[len(size)]
    model = perturbed(nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(2), MeanHead()))
    images, chosen = torch.randn(2, 2, *size), Occlusion(4) if name == "occlusion" else method(name)
    [found] = explain(model, images, layers="1", method=chosen, target=0).evidence.values()
    assert found.shape == (2, *size)
    assert found.flatten(1).std(1).min() > 0


class MeanHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x.square().mean(2))


@pytest.mark.parametrize("name", NAMES)
def test_the_model_runs_in_the_precision_of_the_caller(name):
    model, seen = perturbed(plain_cnn()), []
    model[0].register_forward_hook(lambda _, args, output: seen.append(output.dtype))
    images = torch.randn(2, 3, 12, 12)
    exact = evidence(model, images, name, target=0)
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        rough = evidence(model, images, name, target=0)
    assert set(seen) == {torch.bfloat16}
    assert rough.dtype == torch.float32
    assert torch.corrcoef(torch.stack([exact.flatten(), rough.flatten()]))[0, 1] > 0.9
    half = evidence(model.bfloat16(), images.bfloat16(), name, target=0)
    assert torch.corrcoef(torch.stack([exact.flatten(), half.flatten()]))[0, 1] > 0.9


def test_a_cut_graph_is_said():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = plain_cnn()

        def forward(self, images):
            return self.body(images.detach())

    images = torch.randn(2, 3, 12, 12)
    for name in ("saliency", "integrated_gradients", "smoothgrad", "guided_backprop"):
        with pytest.raises(NotExplainableError, match="No gradient of the score reaches the images"):
            evidence(Cut(), images, name)
    assert evidence(Cut(), images, "occlusion").any()


def test_captum_missing_is_said_at_once(monkeypatch):
    from lightning_gradcam import GradCAMCallback
    from lightning_gradcam.callback.compat import MisconfigurationException

    find = importlib.util.find_spec
    monkeypatch.setattr("lightning_gradcam.methods.base.find_spec", lambda n: None if n == "captum" else find(n))
    for name in NAMES:
        with pytest.raises(ValueError, match=r"captum .* requires. Run: pip install 'lightning_gradcam\[captum\]'"):
            explain(plain_cnn(), torch.randn(2, 3, 12, 12), method=name)
    with pytest.raises(MisconfigurationException, match=r"lightning_gradcam\[captum\]"):
        GradCAMCallback(method=["gradcam", "saliency"])
    assert explain(plain_cnn(), torch.randn(2, 3, 12, 12)).evidence


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SmoothGrad(0), "`samples` of at least 1 and `noise` over 0"),
        (lambda: SmoothGrad(noise=0), "`samples` of at least 1 and `noise` over 0"),
        (lambda: IntegratedGradients(0), "`steps` of at least 1"),
        (lambda: Occlusion(0), "`window` to be None, or one or more pixels, but got 0"),
        (lambda: Occlusion(3, (1, 0)), r"`stride` to be None, or one or more pixels, but got \(1, 0\)"),
        (lambda: Occlusion(fill="grey"), "`fill` to be 'mean' or a number, but got 'grey'"),
        (lambda: Lime(1), "`samples` of at least 2, but got 1"),
        (lambda: Lime(width=0), "`width` over 0"),
        (lambda: KernelShap(segments=0), "`segments` to be at least 1 cell"),
    ],
)
def test_wrong_numbers_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_windows_have_to_fit_the_images():
    with pytest.raises(ValueError, match=r"`window` of one or 2 numbers for images of \(12, 12\), but got \(3,\)"):
        explain(plain_cnn(), torch.randn(1, 3, 12, 12), method=Occlusion((3,)))
    found = explain(perturbed(plain_cnn()), torch.randn(1, 3, 12, 12), method=Occlusion(99, 99)).evidence[PIXELS]
    assert found.unique().numel() == 1  # one window, as large as the image


def test_names_tell_what_is_not_as_usual():
    assert SmoothGrad(samples=8).name == "smoothgrad with samples 8"
    assert IntegratedGradients().name == "integrated_gradients"
    assert repr(Occlusion([3, 4])) == "Occlusion(window=(3, 4), stride=None, fill='mean')"


@pytest.mark.parametrize("name", ["saliency", "smoothgrad", "guided_gradcam", "occlusion"])
def test_a_baseline_finds_them_by_their_names(name):
    model, images = perturbed(plain_cnn()), torch.randn(4, 3, 12, 12)
    assert Baseline.record(model, Probe(images), method=name).compare(model, profile="same-weights").passed
