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
from tests.helpers.models import Noisy, TinyResNet, assert_close, perturbed, plain_cnn

HOOKS = [name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))]


def everything(model):
    """All that a training run could notice, as nested plain values."""
    return {
        "hooks": [[len(getattr(module, name)) for name in HOOKS] for module in model.modules()],
        "training": [module.training for module in model.modules()],
        "parameters": [(id(p), id(p.grad), p.requires_grad, p._version, p.tolist()) for p in model.parameters()],
        "gradients": [p.grad if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "buffers": [(id(b), b._version, b.numpy().tobytes()) for b in model.buffers()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "python": random.getstate(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "switches": (torch.backends.mha.get_fastpath_enabled(), torch.is_autocast_cache_enabled()),
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("switches", [False, True])
def test_nothing_is_left(fails, switches):
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


def test_inside_the_model_evaluates_and_forward_may_rewrite_it():
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
def test_a_metric_beside_a_scripted_part_counts_nothing():
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
def test_attention_keeps_its_fast_path_where_that_passes_by_no_hooks(model, fast):
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


def test_what_a_forward_pass_writes_down_is_forgotten():
    model = Diary()
    seen, total = model.seen, model.total
    explain(model, torch.rand(2, 3, 12, 12))
    assert model.seen is seen
    assert model.total is total
    assert (seen, total.item(), model.calls) == ([1], 1, 0)
    assert not hasattr(model, "latest")


def test_buffers_that_are_shared_stay_shared_inside():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    model[1].running_mean = model[0].running_mean
    with isolated(model):
        assert model[0].running_mean is model[1].running_mean
    assert model[0].running_mean is model[1].running_mean


def test_the_same_weights_give_the_same_map_of_a_model_that_draws_random_numbers():
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


def test_explained_as_in_evaluation_also_where_modules_train():
    model, images = perturbed(TinyResNet()), torch.randn(4, 3, 16, 16)
    evaluated = explain(model, images, layers="layer2", target=1).evidence["layer2"]
    training = explain(copy.deepcopy(model).train(), images, layers="layer2", target=1).evidence["layer2"]
    assert torch.equal(training, evaluated)
    assert_close(evaluated, explain(model, images, target=1).evidence["layer2"], 1e-6)


def test_a_training_step_of_the_same_autocast_region_still_gets_its_gradients():
    # Autocast caches weights that it cast; one that was cast without grad would leave the step without a gradient.
    model, images = TinyResNet().train(), torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        explain(model, images)
        model(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
