"""Regimes of modules: layers, modes, buffers, random numbers, compilation."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm
from torch.torch_version import TorchVersion
from torch.utils.checkpoint import checkpoint

from tests.helpers.lit import Lit
from tests.regimes.regime import Regime


class WithoutDropout(Lit):
    """A model without random numbers in its forward pass."""

    def __init__(self):
        super().__init__()
        self.features[-1] = nn.Identity()


class FrozenBackbone(Lit):
    """A model of which only the head is trained."""

    def __init__(self):
        super().__init__()
        self.features.requires_grad_(False)


class FrozenBatchNorm(Lit):
    """A model whose BatchNorm stays in evaluation mode during training."""

    def __init__(self):
        super().__init__()
        self.features[1].eval()


class DrawsInEvaluation(Lit):
    """A model that draws from all three generators, also in evaluation mode."""

    def forward(self, images):
        noise = torch.rand(()) + np.random.rand() + random.random()
        return super().forward(images + 0.1 * noise)


class CountsInEvaluation(Lit):
    """A model that changes and replaces buffers in every forward pass; training depends on both."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("brightness", torch.zeros(()))

    def forward(self, images):
        self.passes += 1
        self.brightness = 0.9 * self.brightness + 0.1 * images.detach().mean()
        return super().forward(images * (1 + 0.01 * self.passes) - self.brightness)


class Remembers(Lit):
    """A model that changes attributes in every forward pass: a metric, a list, a number, the last batch."""

    def __init__(self):
        super().__init__()
        self.mean, self.sizes, self.calls, self.last = torchmetrics.MeanMetric(), [], 0, None
        self.total = torch.zeros(())

    def forward(self, images):
        self.last = super().forward(images) * 1.01**self.calls
        self.mean(self.last.detach().mean())
        self.sizes.append(len(images))
        self.total += len(images)
        self.calls += 1
        return self.last


class LogsInForward(Lit):
    """A model that calls `log` in `forward`."""

    def forward(self, images):
        logits = super().forward(images)
        if self._trainer and not self.trainer.sanity_checking:
            self.log("logit", logits.mean(), on_step=False, on_epoch=True)
        return logits


class FreezesInEvaluation(Lit):
    """A model that sets `requires_grad` in `forward`."""

    def forward(self, images):
        self.head.requires_grad_(self.training)
        return super().forward(images)


class MergesOnEval(WithoutDropout):
    """A model whose `eval` merges a scale into weights and whose `train` unmerges it, like LoRA; rounding stays."""

    def train(self, mode=True):
        if mode != self.training and hasattr(self, "head"):
            self.head.weight.data.mul_(1 / 1.1 if mode else 1.1)
        return super().train(mode)


class Reparametrised(Lit):
    """A model with spectral and weight norm, which compute weights in every forward pass."""

    def __init__(self):
        super().__init__()
        self.features[0] = parametrizations.spectral_norm(self.features[0])
        self.features[4] = spectral_norm(self.features[4])
        self.head = parametrizations.weight_norm(self.head)


class Tied(Lit):
    """A model with two layers that share weights, and two that share a BatchNorm."""

    def __init__(self):
        super().__init__()
        norm, twin = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1)
        twin.weight = self.features.append(nn.Conv2d(16, 16, 3, padding=1))[-1].weight
        self.features.extend([norm, nn.ReLU(), twin, norm])


class Attends(Lit):
    """A convolutional stem and a transformer."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, images):
        return self.head(self.encoder(self.features(images).flatten(2).transpose(1, 2)).mean(1))


class ChannelsLast(Lit):
    """A model in the channels-last memory format."""

    def __init__(self):
        super().__init__()
        self.to(memory_format=torch.channels_last)

    def forward(self, images):
        return super().forward(images.contiguous(memory_format=torch.channels_last))


class Checkpointed(Lit):
    """A model with activation checkpointing, which recomputes with the same random numbers."""

    reentrant = False

    def forward(self, images):
        return self.head(checkpoint(self.features, images, use_reentrant=self.reentrant).mean((2, 3)))


class CheckpointedReentrant(Checkpointed):
    """A model with reentrant checkpointing, which needs an input with grad."""

    reentrant = True

    def forward(self, images):
        return super().forward(images.detach().requires_grad_())


class Scripted(Lit):
    """A model with TorchScript parts, one of them with BatchNorm."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, but met
            self.features[1] = torch.jit.script(self.features[1])


def compiled(what: str, backend: str = "eager") -> Any:
    """Return `Lit`, or a part of it, compiled."""

    def make() -> Any:
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        model = WithoutDropout()
        if what == "whole":
            return torch.compile(model, backend=backend)
        if what == "part":
            model.features = torch.compile(model.features, backend=backend)
        else:
            model.features.compile(backend=backend)
        return model

    return make


def graphs(trainer: Any) -> Any:
    """Count compiled graphs: snapshots add none. (Lightning also compiles its own `log` of a compiled module.)"""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


ROWS = [
    Regime("dropout", "every training pass draws random numbers", "torch random state"),
    Regime(
        "no random forward pass", "only the order of the images is random", "torch random state", model=WithoutDropout
    ),
    Regime("frozen backbone", "only the head has gradients", "graph", model=FrozenBackbone),
    Regime(
        "frozen BatchNorm", "one module is in evaluation mode while others train", "train flags",
        model=FrozenBatchNorm, tolerates="Found 1 module.s. in eval mode",
    ),
    Regime("NumPy in evaluation", "`forward` draws from NumPy", "numpy random state", model=DrawsInEvaluation),
    Regime("Python in evaluation", "`forward` draws from `random`", "python random state", model=DrawsInEvaluation),
    Regime("buffers in evaluation", "`forward` counts in buffers", "buffers", model=CountsInEvaluation),
    Regime("attributes in evaluation", "`forward` updates metrics and lists", "attributes copied", model=Remembers),
    Regime("counts in evaluation", "`forward` depends on a plain number", "attributes restored", model=Remembers),
    Regime("logging in forward", "`self.log` inside `forward`", "nothing logged", model=LogsInForward),
    Regime(
        "freezes in evaluation", "`forward` sets `requires_grad`", "requires_grad",
        model=FreezesInEvaluation, val=None, looks=2,
    ),
    Regime("merges on eval", "`eval()` rewrites weights", "never eval", model=MergesOnEval),
    Regime("reparametrized weights", "spectral and weight norm", "hooks", model=Reparametrised),
    Regime("tied weights", "one weight, one BatchNorm, in two places", "hooks", model=Tied),
    Regime("transformer", "attention has a fast path in evaluation mode", "attention fast path", model=Attends),
    Regime(
        "attention captured", "`method=\"rollout\"` and `\"attention_relevance\"` in every snapshot",
        "attention fast path",
        model=Attends, monitor=lambda: {"method": ["rollout", "attention_relevance"]},
    ),
    Regime(
        "channels masked and ablated", "`method=\"scorecam\"` and `\"ablationcam\"`: modules stand in for themselves",
        "torch random state", monitor=lambda: {"method": ["scorecam", "ablationcam"]},
    ),
    Regime("channels last", "another memory format", "hooks", model=ChannelsLast),
    Regime(
        "activation checkpointing", "forward passes run again for backward", "torch random state", model=Checkpointed
    ),
    Regime(
        "activation checkpointing, reentrant", "backward runs inside backward", "reentrant",
        model=CheckpointedReentrant,
    ),
    Regime("TorchScript", "a part whose attributes are not accessible", "TorchScript", model=Scripted),
    Regime(
        "torch.compile", "the entire module", "eager", model=compiled("whole"),
        skip="PyTorch 2.6 cannot compile what Lightning logs" if TorchVersion(torch.__version__) < (2, 7) else "",
    ),
    Regime("torch.compile of a part", "a wrapper inside the module", "eager", model=compiled("part"), also=graphs),
    Regime("module.compile()", "no wrapper", "eager", model=compiled("in place", "aot_eager"), also=graphs),
    Regime("Inductor", "compiled to machine code", "eager", model=compiled("part", "inductor"), also=graphs, slow=True),
]  # fmt: skip
