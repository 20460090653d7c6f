"""What a forward pass leaves in modules is undone, in place where others refer to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradcam import NotExplainableError, explain
from lightning_gradcam.capture.isolation import isolated
from tests.helpers.model_state import HOOKS
from tests.helpers.models import plain_cnn


class RecordsHiddenStates(nn.Module):
    """A model as those of transformers: the first pass installs hooks, and an attribute says so."""

    def __init__(self):
        super().__init__()
        self.body, self.hidden = plain_cnn(), []

    def forward(self, images):
        if not getattr(self, "installed", False):
            for module in self.body:
                module.register_forward_hook(lambda module, args, output: self.hidden.append(output))
            self.installed = True
        self.hidden.clear()
        logits = self.body(images)
        if len(self.hidden) != len(self.body):
            raise ValueError(f"{len(self.hidden)} hidden states")
        return logits


def count_hooks(model):
    return sum(len(getattr(module, name)) for module in model.modules() for name in HOOKS)


def test_hooks_of_first_pass_do_not_pile_up():
    torch.manual_seed(0)
    model, images = RecordsHiddenStates().eval(), torch.rand(2, 3, 12, 12)
    first, second = explain(model, images), explain(model, images)
    assert count_hooks(model) == 0
    assert not hasattr(model, "installed")
    model(images)
    assert count_hooks(model) == len(model.body)
    third = explain(model, images)
    [key] = first.evidence
    assert torch.equal(first.evidence[key], second.evidence[key])
    assert torch.equal(first.evidence[key], third.evidence[key])
    plain = explain(model.body, images).evidence[key.removeprefix("body.")]
    assert torch.equal(first.evidence[key], plain)


@pytest.mark.parametrize(
    "register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_handles_of_hooks_stay_valid(register):
    model = plain_cnn()
    kept = getattr(model[0], register)(lambda *_: None)
    removed = getattr(model[1], register)(lambda *_: None)
    with isolated(model):
        getattr(model[2], register)(lambda *_: None)
        removed.remove()
    assert count_hooks(model) == 2
    kept.remove()
    removed.remove()
    assert count_hooks(model) == 0


def test_handles_of_weight_hooks_stay_valid():
    model = plain_cnn()
    weight, bias = model[0].weight, model[0].bias
    handle = weight.register_hook(lambda gradient: 3 * gradient)
    with isolated(model), torch.enable_grad():
        handle.remove()
        weight.register_hook(lambda gradient: 5 * gradient)
        bias.register_hook(lambda gradient: 5 * gradient)
        weight.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
    (weight.sum() + bias.sum()).backward()
    assert weight.grad.unique().tolist() == [3]
    assert bias.grad.unique().tolist() == [1]
    handle.remove()
    weight.sum().backward()
    assert weight.grad.unique().tolist() == [4]


def test_children_and_parameters_are_restored_in_order():
    model = plain_cnn()
    children, weight = list(model._modules.items()), model[0].weight
    with isolated(model):
        model[0].weight = nn.Parameter(torch.zeros_like(weight))
        model[0].register_parameter("late", nn.Parameter(torch.zeros(1)))
        del model[0].bias
        model[1] = nn.Identity()
        model.append(nn.Identity())
    assert list(model._modules.items()) == children
    assert model[0].weight is weight
    assert [name for name, _ in model[0].named_parameters()] == ["weight", "bias"]


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ],
)
def test_lazy_model_is_refused_until_it_ran(model):
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(NotExplainableError, match=r"Sequential creates parameters .*weight'.* Run the model once"):
        explain(model, images)
    model(images)
    assert explain(model, images).evidence


class BuildsHead(nn.Module):
    """A model that builds its head in its first pass."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), None

    def forward(self, images):
        features = self.body(images).relu().mean((2, 3))
        if self.head is None:
            self.head = nn.Linear(features.shape[1], 2)
        return self.head(features)


@pytest.mark.parametrize("count", [1, 2])
def test_model_that_builds_layers_is_refused_until_it_ran(count):
    model, images = BuildsHead(), torch.rand(count, 3, 8, 8)
    with pytest.raises(NotExplainableError, match=r"'head\.weight', 'head\.bias'"):
        explain(model, images)
    assert model.head is None
    model(images)
    assert explain(model, images).evidence


class Reads(nn.Module):
    """A convolution between two recurrent layers."""

    def __init__(self, kind, fails=False):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = kind(12, 12, batch_first=True), nn.Conv2d(1, 8, 3, padding=1)
        self.recurrent, self.head = kind(8 * 12, 6, batch_first=True), nn.Linear(6, 3)
        self.fails = fails

    def forward(self, images):
        images = self.stem(images[:, 0])[0][:, None]
        sequence = self.body(images).relu().flatten(1, 2).transpose(1, 2)
        if self.fails:
            sequence = sequence[..., 1:]
        return self.head(self.recurrent(sequence)[0][:, -1])


KINDS = [nn.LSTM, nn.GRU, nn.RNN]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("enabled", [True, False])
def test_cudnn_is_off_only_in_recurrent_layers_with_grad(kind, enabled):
    seen, around = [], []

    class Watched(kind):
        def forward(self, sequence):
            seen.append((torch.is_grad_enabled(), torch.backends.cudnn.enabled))
            return super().forward(sequence)

    model, images = Reads(Watched).eval(), torch.rand(2, 1, 12, 12)
    model.body.register_forward_hook(lambda *_: around.append(torch.backends.cudnn.enabled))
    torch.backends.cudnn.enabled = enabled
    try:
        explain(model, images, layers="body")
        assert set(seen) == {(True, False), (False, enabled)}
        assert set(around) == {enabled}
        seen.clear()
        model(images)
        assert seen == [(True, enabled)] * 2
    finally:
        torch.backends.cudnn.enabled = True
    assert not any("forward" in vars(module) for module in model.modules())


def test_cudnn_is_on_again_after_failed_pass():
    model = Reads(nn.LSTM, fails=True)
    with pytest.raises(NotExplainableError, match=r"input\.size"):
        explain(model, torch.rand(2, 1, 12, 12))
    assert torch.backends.cudnn.enabled
    assert "forward" not in vars(model.recurrent)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN runs on a GPU only")
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_model_on_gpu_has_same_map_as_on_cpu(kind):
    model, images = Reads(kind).double().eval(), torch.rand(2, 1, 12, 12).double()
    on_cpu = explain(model, images, layers="body").evidence["body"]
    on_gpu = explain(model.cuda(), images.cuda(), layers="body").evidence["body"].cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-6, atol=1e-9)
