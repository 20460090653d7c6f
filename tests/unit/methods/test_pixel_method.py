"""All methods at the pixels against slow replicas, and what they have in common."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_gradcam import Baseline, Probe, explain
from lightning_gradcam.methods import METHODS, IntegratedGradients, KernelShap, Lime, Occlusion, SmoothGrad
from tests.helpers.model_state import everything
from tests.helpers.models import TinyResNet, TinyVGG, assert_close, perturbed, plain_cnn
from tests.helpers.pixel_methods import MODELS, NAMES, SEEDED, SIGNED, SMALL, compute_evidence, create_method
from tests.helpers.pixel_replicas import REPLICAS, SEGMENTS


def test_every_captum_method_has_a_replica():
    assert set(REPLICAS) == {name for name, entry in METHODS.items() if getattr(entry, "requires", None) == "captum"}
    assert all(create_method(name).name.startswith(name) and METHODS[name].name == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_pixel_method_equals_its_replica(name, kind):
    make, layer = MODELS[kind]
    model, images, labels = perturbed(make()), torch.randn(3, 3, 16, 16), [2, 0, 1]
    method = KernelShap(4000, SEGMENTS) if name == "kernel_shap" else create_method(name)
    [evidence] = explain(model, images, method=method, layers=layer, target=labels).evidence.values()
    model.double()
    arguments = (layer,) if name == "guided_gradcam" else ()
    pairs = zip(images.double(), labels, strict=True)
    expected = torch.stack([REPLICAS[name](model, image, label, *arguments).detach() for image, label in pairs])
    # Kernel SHAP samples coalitions: its error falls with the root of their number, and is about 1 % here.
    assert_close(evidence, expected, 0.04 if name == "kernel_shap" else 1e-4)
    assert bool((evidence < 0).any()) == (name in SIGNED)


@pytest.mark.parametrize("name", NAMES)
def test_pixel_evidence_is_independent_of_the_batch(name, monkeypatch):
    """Batches span several passes, with different classes and extras."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = plain_cnn()

        def forward(self, images, factor):
            return self.body(images * factor[:, None, None, None])

    def forward(model, probe):
        assert probe.labels.tolist() == [round(float(factor)) for factor in probe.extras["factor"]]
        return model(probe.images, probe.extras["factor"])

    model, labels = perturbed(Turned()), torch.arange(18) % 5
    probe = Probe(torch.randn(18, 3, 8, 8), labels=labels, extras={"factor": labels.float()})
    rows = [17, 3, 0, 4]
    batch = compute_evidence(model, probe, name, forward=forward, target="label", layers="body.5")
    single = [compute_evidence(model, probe[[i]], name, forward=forward, target="label", layers="body.5") for i in rows]
    torch.testing.assert_close(batch[rows], torch.cat(single), rtol=1e-3, atol=float(batch.abs().max()) * 1e-5)


class Failing(nn.Module):
    """Model that raises in the call with a number."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.body, self.calls, self.at = TinyVGG(), [0], at

    def forward(self, images):
        self.calls[0] += 1
        output = self.body(images)
        if self.calls[0] == self.at:
            raise ValueError("not today")
        return output


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fails", [False, True])
def test_pixel_method_leaves_no_trace_on_the_model(name, fails):
    model = Failing(2 if fails else -1)  # the first call is the pass that all methods share
    model.train()
    model.body.features[0].weight.grad = torch.randn_like(model.body.features[0].weight)
    images = torch.randn(2, 3, 16, 16)
    state = everything(model) | {"attributes": [vars(m).keys() for m in model.modules()]}
    state |= {"in place": [getattr(m, "inplace", None) for m in model.modules()]}
    probe = Probe(images)
    if fails:
        from lightning_gradcam.explainer.pipeline import prepare
        from lightning_gradcam.targets import class_target

        plan = prepare(model, probe, layers="body.features.3", method=create_method(name), target=class_target(0))
        model.calls[0] = 0
        with pytest.raises(RuntimeError, match="not today"):
            plan(model, probe, [class_target(0)])
    else:
        compute_evidence(model, probe, name, layers="body.features.3", target=0)
    final_state = everything(model) | {"attributes": [vars(m).keys() for m in model.modules()]}
    final_state |= {"in place": [getattr(m, "inplace", None) for m in model.modules()]}
    for name in state:
        assert final_state[name] == state[name], name
    assert images.grad is None
    assert not images.requires_grad
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    assert torch.autograd.grad((-F.relu(x)).sum(), x)[0].tolist() == [0, -1]  # ReLUs are unchanged
    assert torch._C._len_torch_function_stack() == 0


@pytest.mark.parametrize("name", sorted(SEEDED))
def test_sampled_methods_are_deterministic(name):
    model, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    first = compute_evidence(model, images, name, target=0)
    torch.rand(7)
    torch.testing.assert_close(compute_evidence(model, images, name, target=0), first, rtol=0, atol=0)
    both = explain(model, images, method=[SMALL["lime"], create_method(name)], target=0)
    torch.testing.assert_close(list(both.evidence.values())[-1], first, rtol=0, atol=0)


def test_evidence_sums_up_to_the_score():
    model, images = perturbed(TinyResNet()), torch.rand(2, 3, 16, 16)
    score = model(images)[:, 1].detach()
    evidence = explain(
        model, images, method=[IntegratedGradients(300), KernelShap(200, 4, fill=0.0)], target=1
    ).evidence
    fine, cells = evidence.values()
    baseline_score = model(images * 0)[:, 1].detach()
    torch.testing.assert_close(fine.sum((1, 2)), score - baseline_score, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(cells[:, ::4, ::4].sum((1, 2)), score - baseline_score, rtol=1e-3, atol=1e-3)


def test_linear_model_has_exact_attributions():
    """For a model that is linear in the pixels, attributions are weight times pixel."""
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
    for name, method in methods.items():
        [evidence] = explain(model, images, method=method, target=1).evidence.values()
        assert_close(evidence, expected, 0.1 if name == "lime" else 1e-4)  # the ridge of LIME shrinks weights


class MeanHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x.square().mean(2))


@pytest.mark.parametrize("size", [(40,), (10, 8, 6)])
@pytest.mark.parametrize("name", NAMES)
def test_pixel_method_supports_signals_and_volumes(name, size):
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[len(size)]
    model = perturbed(nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(2), MeanHead()))
    images, chosen = torch.randn(2, 2, *size), Occlusion(4) if name == "occlusion" else create_method(name)
    [evidence] = explain(model, images, layers="1", method=chosen, target=0).evidence.values()
    assert evidence.shape == (2, *size)
    assert evidence.flatten(1).std(1).min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_pixel_method_keeps_the_precision_of_the_caller(name):
    model, seen = perturbed(plain_cnn()), []
    model[0].register_forward_hook(lambda _, args, output: seen.append(output.dtype))
    images = torch.randn(2, 3, 12, 12)
    exact = compute_evidence(model, images, name, target=0)
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        rough = compute_evidence(model, images, name, target=0)
    assert set(seen) == {torch.bfloat16}
    assert rough.dtype == torch.float32
    assert torch.corrcoef(torch.stack([exact.flatten(), rough.flatten()]))[0, 1] > 0.9
    half = compute_evidence(model.bfloat16(), images.bfloat16(), name, target=0)
    assert torch.corrcoef(torch.stack([exact.flatten(), half.flatten()]))[0, 1] > 0.9


def test_name_contains_changed_options():
    assert SmoothGrad(samples=8).name == "smoothgrad with samples 8"
    assert IntegratedGradients().name == "integrated_gradients"
    assert repr(Occlusion([3, 4])) == "Occlusion(window=(3, 4), stride=None, fill='mean')"


@pytest.mark.parametrize("name", ["saliency", "smoothgrad", "guided_gradcam", "occlusion"])
def test_baseline_finds_pixel_methods_by_name(name):
    model, images = perturbed(plain_cnn()), torch.randn(4, 3, 12, 12)
    assert Baseline.record(model, Probe(images), method=name).compare(model, profile="same-weights").passed
