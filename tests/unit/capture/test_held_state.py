"""State in containers, objects, classes and function caches is restored in place."""

from __future__ import annotations

import functools
import random
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradcam.capture import held_state
from lightning_gradcam.capture.isolation import isolated

CONTAINERS = {
    "list": [1, 2],
    "dict": {"a": 1},
    "set": {1, 2},
    "deque": deque([1, 2], maxlen=2),
    "ordered": OrderedDict(a=1, b=2),
    "default": defaultdict(list, a=[1]),
    "counter": Counter("aab"),
}


def change(container):
    if isinstance(container, (list, deque)):
        container.append(3)
    elif isinstance(container, set):
        container.add(3)
    else:
        container["a"] = container.pop("a")
        container["c"] = 3


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("place", ["attribute", "_private", "nested", "object", "class"])
def test_container_is_restored_in_place(kind, place):
    class State:
        pass

    class Model(nn.Module):
        state = State()

    model, container = Model(), CONTAINERS[kind].copy()
    if place == "nested":
        model.outer = {"inner": [container]}
    elif place == "object":
        model.state.inner = container
    elif place == "class":
        Model.inner = container
    else:
        setattr(model, place, container)
    if place == "object":
        model.own = model.state
    before = list(container.items()) if isinstance(container, dict) else list(container)
    with isolated(model):
        change(container)
    assert (list(container.items()) if isinstance(container, dict) else list(container)) == before
    assert type(container) is type(CONTAINERS[kind])


def refuse(*args, **kwargs):
    raise RuntimeError("not allowed")


class Output(OrderedDict):
    """A mapping that refuses changes, as outputs of models in transformers do."""

    update = pop = setdefault = __delitem__ = refuse


class Frozen(dict):
    """Settings that cannot be changed."""

    copy = clear = update = __setitem__ = refuse


@pytest.mark.parametrize("kind", [Output, Frozen])
def test_container_that_refuses_changes_is_restored(kind):
    model, tensor = nn.Linear(2, 2), torch.zeros(2)
    model.last = last = kind(a=tensor, b=[1])
    with isolated(model):
        assert model.last["a"] is not tensor
        model.last["a"].add_(1)
        model.last["b"].append(2)
    assert model.last is last
    assert list(last.items()) == [("a", tensor), ("b", [1])]
    assert last["a"] is tensor
    assert not tensor.any()


def test_model_is_restored_if_a_container_is_not(monkeypatch):
    restore = held_state._restore_container
    monkeypatch.setattr(held_state, "_restore_container", lambda c, saved: refuse() if c == {} else restore(c, saved))
    model = nn.Linear(2, 2)
    model.first, model.stubborn, model.last = [], {}, []
    attributes = vars(model)

    def run():
        with isolated(model):
            model.first.append(1)
            model.last.append(1)

    with pytest.raises(RuntimeError, match="not allowed"):
        run()
    assert vars(model) is attributes
    assert model.training
    assert model.first == model.last == []


def test_shared_containers_and_tensors_stay_shared_inside():
    model = nn.Sequential(nn.Identity(), nn.Identity())
    total = torch.zeros(1)
    model[0].found = model[1].found = model.found = [total]
    model[0].total = model.total = total
    with isolated(model):
        model[0].found.append("new")
        model[1].found[0] += 1
        assert model.found[1] == "new"
        assert model.found[0] is model.total
        assert model[0].total.item() == 1
    assert model.found == [total]
    assert total.item() == 0
    assert model.total is total


def test_parameters_in_containers_are_not_copied():
    model = nn.Linear(2, 2)
    model.group = [model.weight]
    with isolated(model):
        assert model.group[0] is model.weight


def test_cyclic_state_is_restored():
    model = nn.Identity()
    model.cycle = [1]
    model.cycle.append(model.cycle)
    with isolated(model):
        model.cycle.clear()
    assert model.cycle[0] == 1
    assert model.cycle[1] is model.cycle


def test_objects_of_other_packages_are_not_touched():
    model, event = nn.Identity(), functools.partial(print)
    model.event = event
    with isolated(model):
        event.note = "kept"
    assert event.note == "kept"


def test_class_attributes_are_restored():
    class Model(nn.Module):
        count, kept = 0, "kept"

    with isolated(Model()):
        Model.count += 1
        Model.late = True
        del Model.kept
    assert (Model.count, Model.kept) == (0, "kept")
    assert not hasattr(Model, "late")


@functools.cache
def draw(size):
    return torch.rand(size)


def test_function_cache_is_emptied_if_it_was_empty():
    class Model(nn.Module):
        @classmethod
        @functools.lru_cache
        def own(cls, size):
            return torch.rand(size)

    draw.cache_clear()
    with isolated(Model()):
        draw(2)
        Model.own(2)
    assert draw.cache_info().currsize == 0
    assert Model.own.cache_info().currsize == 0
    kept = draw(3)
    with isolated(Model()):
        draw(2)
    assert draw(3) is kept
    draw.cache_clear()


GENERATORS = {
    "torch": (lambda: torch.Generator().manual_seed(3), lambda g: torch.rand((), generator=g).item()),
    "numpy": (lambda: np.random.default_rng(3), lambda g: g.random()),
    "numpy, Philox": (lambda: np.random.Generator(np.random.Philox(3)), lambda g: g.random()),
    "numpy, legacy": (lambda: np.random.RandomState(3), lambda g: g.rand()),
    "python": (lambda: random.Random(3), lambda g: g.random()),
}


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("nested", [False, True])
def test_generator_is_seeded_inside_and_restored(kind, nested):
    create, draw_number = GENERATORS[kind]
    model, generator, untouched = nn.Identity(), create(), create()
    model.generators = [generator] if nested else generator
    draws = []
    for _ in range(2):
        with isolated(model):
            draws.append(draw_number(generator))
        assert draw_number(generator) == draw_number(untouched)
    assert draws[0] == draws[1]  # the same weights give the same map
