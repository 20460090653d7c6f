"""Nothing shows that a model was explained, also where its forward pass raises."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
import torchmetrics
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.vision_transformer import EncoderBlock

from lightning_gradcam import explain
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.errors import ForwardError
from tests.helpers.model_state import HOOKS, everything
from tests.helpers.models import Noisy, TinyResNet, assert_close, perturbed, plain_cnn


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("switches", [False, True])
def test_explain_restores_model_and_process(fails, switches):
    model = Noisy(fails)
    model.train()
    model.body[1].eval()  # a frozen BatchNorm: the flags are not all the same
    model.body[0].weight.requires_grad_(False)
    model.body[4].weight.grad = torch.randn_like(model.body[4].weight)
    assert len(HOOKS) >= 6
    torch.backends.mha.set_fastpath_enabled(switches)
    torch.set_autocast_cache_enabled(switches)
    images = torch.rand(3, 3, 12, 12)
    try:
        before = everything(model)
        if fails:
            with pytest.raises(ForwardError, match=r"Noisy failed .*ValueError: not today") as caught:
                explain(model, images)
            assert isinstance(caught.value.__cause__, ValueError)
        else:
            explain(model, images)
        after = everything(model)
        for what in before:
            assert after[what] == before[what], what
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
        torch.set_autocast_cache_enabled(True)


def test_isolated_evaluates_and_discards_changes():
    model = plain_cnn().train()
    old, names = everything(model), set(model.state_dict())
    with isolated(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        assert not torch.is_autocast_cache_enabled()
        model[1].running_mean += 1  # as a BatchNorm that ignores evaluation does
        model[1].running_var = torch.ones(6)
        model[0].weight.grad = torch.ones_like(model[0].weight)
        model[0].weight.requires_grad_(False)
        model[0].register_buffer("first", torch.ones(1), persistent=False)  # where there was none
        model[1].register_buffer("late", torch.ones(1))
    assert everything(model) == old
    assert set(model.state_dict()) == names


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_metric_next_to_scripted_module_is_not_updated():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen = torch.jit.script(nn.Conv2d(3, 4, 3)), torchmetrics.MeanMetric()

        def forward(self, images):
            scores = self.net(images).mean((2, 3))
            self.seen.update(scores.sum())
            return scores

    model = Beside().train()
    before = {name: str(value) for name, value in vars(model.seen).items()}
    with isolated(model):
        assert not model.seen.training
        model(torch.rand(2, 3, 8, 8))
    assert {name: str(value) for name, value in vars(model.seen).items()} == before


class Called(TorchDispatchMode):
    """Whether attention took its fast path."""

    fast = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.fast |= "native_multi_head_attention" in func.__name__ or "transformer_encoder_layer" in func.__name__
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("model", "fast"),
    [
        (EncoderBlock(2, 8, 16, 0.1, 0.1), True),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), False),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), False),
    ],
)
def test_attention_keeps_fast_path_if_it_skips_no_hooks(model, fast):
    called = []
    for module in model.modules():
        module.register_forward_hook(lambda module, args, output: called.append(module))
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad():
            model.eval()(torch.rand(3, 5, 8))
        slowly = called.copy()
        called.clear()
        torch.backends.mha.set_fastpath_enabled(True)
        with isolated(model), Called() as kernels:
            model(torch.rand(3, 5, 8))
        assert called == slowly
        assert kernels.fast is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


class Diary(nn.Module):
    """Keeps lists, tensors and counts of what it saw, as metrics do, in plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain_cnn()
        self.seen, self.total, self.calls = [1], torch.ones(1), 0

    def forward(self, images):
        self.seen.append(2)
        self.total += len(images)
        self.calls += 1
        self.latest = images
        return self.body(images)


def test_isolated_discards_attributes_set_by_forward():
    model = Diary()
    seen, total = model.seen, model.total
    explain(model, torch.rand(2, 3, 12, 12))
    assert model.seen is seen
    assert model.total is total
    assert (seen, total.item(), model.calls) == ([1], 1, 0)
    assert not hasattr(model, "latest")


def test_shared_buffers_stay_shared_inside():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    model[1].running_mean = model[0].running_mean
    with isolated(model):
        assert model[0].running_mean is model[1].running_mean
    assert model[0].running_mean is model[1].running_mean


def test_random_model_with_same_weights_has_same_map():
    model, images = perturbed(Noisy()), torch.rand(3, 3, 12, 12)
    maps = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        maps.append(explain(model, images, layers="body.5", target=0).evidence["body.5"])
    assert torch.equal(*maps)
    torch.manual_seed(1)
    assert not torch.equal(model(images), model(images))  # it does draw


def test_model_in_training_is_explained_as_in_evaluation():
    model, images = perturbed(TinyResNet()), torch.randn(4, 3, 16, 16)
    evaluated = explain(model, images, layers="layer2", target=1).evidence["layer2"]
    training = explain(copy.deepcopy(model).train(), images, layers="layer2", target=1).evidence["layer2"]
    assert torch.equal(training, evaluated)
    assert_close(evaluated, explain(model, images, target=1).evidence["layer2"], 1e-6)


def test_training_step_in_same_autocast_has_gradients():
    # Autocast caches weights that it cast; one that was cast without grad would leave the step without a gradient.
    model, images = TinyResNet().train(), torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        explain(model, images)
        model(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
