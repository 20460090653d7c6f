"""Regimes of models that set themselves up in their first forward pass, which is a snapshot's here."""

from __future__ import annotations

import functools
import random
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.helpers.lit import Lit
from tests.regimes.modules import WithoutDropout
from tests.regimes.optimization import plain_images
from tests.regimes.regime import Regime


class InstallsHooks(WithoutDropout):
    """A model that records hidden states with hooks, which its first pass installs, as transformers does."""

    installed = False

    def __init__(self):
        super().__init__()
        self.hidden = []

    def forward(self, images):
        if not self.installed:
            for module in self.features:
                module.register_forward_hook(self.record)
            self.installed = True
        self.hidden.clear()
        logits = super().forward(images)
        return logits + 0.01 * len(self.hidden) + sum(h.mean() for h in self.hidden)

    def record(self, module, args, output):
        self.hidden.append(output)


class HooksOnce(WithoutDropout):
    """A model with a hook that measures the first batch and removes itself."""

    def __init__(self):
        super().__init__()
        self.scale = 1.0
        self.handle = self.features[0].register_forward_pre_hook(self.measure)

    def measure(self, module, args):
        self.scale = float(args[0].std())
        self.handle.remove()

    def forward(self, images):
        return super().forward(images) * self.scale


class ScalesGradients(WithoutDropout):
    """A model whose first pass hooks its weights, so that their gradients are halved."""

    scaled = False

    def forward(self, images):
        if not self.scaled:
            self.head.weight.register_hook(lambda gradient: gradient / 2)
            self.scaled = True
        return super().forward(images)


class ReplacesForward(WithoutDropout):
    """A model whose first pass replaces its `forward`, the class of a module and a child."""

    def forward(self, images):
        factor = 1 + torch.rand(()) if type(self.features[2]) is nn.ReLU else 3.0
        self.forward = MethodType(lambda self, images: factor * Lit.forward(self, images), self)
        self.features[2].__class__ = nn.Hardswish
        self.features[6] = nn.Tanh()
        return self(images)


class BuildsHead(WithoutDropout):
    """A model whose first pass creates its head, as wide as the features turn out to be."""

    def __init__(self):
        super().__init__()
        self.head = None

    def forward(self, images):
        features = self.features(images).mean((2, 3))
        if self.head is None:
            self.head = nn.Linear(features.shape[1], 3)
        return self.head(features)

    def configure_optimizers(self):
        return torch.optim.SGD(self.features.parameters(), lr=0.1)


class Lazy(WithoutDropout):
    """A model with lazy modules of PyTorch."""

    def __init__(self):
        super().__init__()
        self.features[4], self.head = nn.LazyConv2d(16, 3, padding=1), nn.LazyLinear(3)


class RegistersBuffers(WithoutDropout):
    """A model whose first pass draws a buffer, and replaces a parameter by a frozen copy."""

    def forward(self, images):
        if not hasattr(self, "noise"):
            self.register_buffer("noise", torch.rand(3))
            self.head.bias = nn.Parameter(self.head.bias.detach() + torch.rand(3), requires_grad=False)
        return super().forward(images) + self.noise


class Caches(WithoutDropout):
    """A model with caches: nested containers, one that two modules share, and a tensor in a list."""

    def __init__(self):
        super().__init__()
        self._cache: dict[str, Any] = {"levels": [{}], "steps": [torch.zeros(())]}
        self.features[0].levels = self._cache["levels"]

    def forward(self, images):
        levels = self.features[0].levels
        if "weight" not in levels[0]:
            levels[0]["weight"] = self.head.weight.detach() * torch.rand(())
            levels.append(set())
        levels[1].add(len(levels[1]))
        self._cache["steps"][0] += 1
        assert len(self._cache["levels"]) == 2
        scale = 1 + 0.01 * self._cache["steps"][0] + 0.01 * len(levels[1])
        return super().forward(images) * scale + self._cache["levels"][0]["weight"].mean()


class State:
    """An object that counts passes, and keeps the first shift."""

    def __init__(self):
        self.calls, self.shifts = 0, []


class KeepsState(WithoutDropout):
    """A model with an object of its own, also shared by a child, that its first pass fills."""

    def __init__(self):
        super().__init__()
        self.state = self.features[0].state = State()

    def forward(self, images):
        self.state.calls += 1
        if not self.state.shifts:
            self.state.shifts.append(torch.rand(()))
        return super().forward(images) * 1.01**self.state.calls + self.features[0].state.shifts[0]


def on_class() -> Lit:
    """Create a model whose class says what its first pass set up."""

    class KeepsOnClass(WithoutDropout):
        shift, seen = None, []

        def forward(self, images):
            if self.shift is None:
                type(self).shift = torch.rand(())
                type(self).late = 2
            self.seen.append(self.late)
            return super().forward(images) * 1.01 ** len(self.seen) + self.shift

    return KeepsOnClass()


@functools.cache
def projection(size):
    """Draw a random projection, once."""
    return torch.rand(size)


def with_function_caches() -> Lit:
    """Create a model with a function and a method that cache what they draw."""
    projection.cache_clear()

    class Remembered(WithoutDropout):
        @staticmethod
        @functools.lru_cache
        def shift(size):
            return torch.rand(size)

        @functools.cached_property
        def offset(self):
            return torch.rand(3)

        def forward(self, images):
            return super().forward(images) * projection(3) + self.shift(3) + self.offset

    return Remembered()


class OwnGenerators(WithoutDropout):
    """A model that draws from generators of its own."""

    def __init__(self):
        super().__init__()
        self.generators = {"torch": torch.Generator().manual_seed(3), "python": random.Random(3)}
        self.generator, self.legacy = np.random.default_rng(3), np.random.RandomState(3)

    def forward(self, images):
        noise = torch.rand(images.shape, generator=self.generators["torch"])
        level = self.generators["python"].random() + self.generator.random() + self.legacy.rand()
        return super().forward(images + 0.1 * level * noise)


FIRST: dict[str, Any] = {"monitor": plain_images, "trainer": {"num_sanity_val_steps": 0}}
"""The first pass of the run is that of the snapshot before the first step."""

ROWS = [
    Regime("hooks installed in forward", "an attribute says so", "hooks restored", model=InstallsHooks, **FIRST),
    Regime("hook that removes itself", "it measures the first batch", "hooks restored", model=HooksOnce, **FIRST),
    Regime(
        "hooks on weights", "the first pass halves the gradients to come", "hooks of weights",
        model=ScalesGradients, **FIRST,
    ),
    Regime(
        "forward replaced", "with the class of a module, and a child", "classes of modules",
        model=ReplacesForward, **FIRST,
    ),
    Regime("weights replaced", "with a random buffer", "parameters restored", model=RegistersBuffers, **FIRST),
    Regime(
        "layers built in forward", "explained after the first epoch, and then in each", "parameters restored",
        model=BuildsHead, **{**FIRST, "looks": 2},
    ),
    Regime(
        "lazy modules", "explained after the first epoch, and then in each", "lazy parameters",
        model=Lazy, **{**FIRST, "looks": 2}, tolerates="Lazy modules|A layer with UninitializedParameter|The total",
    ),
    Regime("nested caches", "shared by two modules", "containers restored", model=Caches, **FIRST),
    Regime("state in an object", "shared by two modules", "containers restored", model=KeepsState, **FIRST),
    Regime("state of a class", "all instances share it", "classes restored", model=on_class, **FIRST),
    Regime(
        "function caches", "`functools.cache` of random numbers", "function caches",
        model=with_function_caches, **FIRST,
    ),
    Regime("generators of the model", "of PyTorch, NumPy and Python", "own generators", model=OwnGenerators, **FIRST),
]  # fmt: skip
