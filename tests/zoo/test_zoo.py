"""Models of other libraries: what their output is, which layer is explained, and a map that is true."""

from __future__ import annotations

import copy
import re
import warnings
from functools import cache
from typing import Any

import pytest
import torch

from lightning_gradcam import Explanation, Probe, explain
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.pipeline import prepare
from tests.zoo.classifiers import CLASSIFIERS
from tests.zoo.dense import DENSE
from tests.zoo.entry import Entry, list_tensors
from tests.zoo.video import VIDEO

pytestmark = pytest.mark.zoo
ZOO = {**CLASSIFIERS, **DENSE, **VIDEO}


@pytest.fixture(autouse=True)
def _quiet():
    """Other libraries warn about themselves; what this package warns about is read where it matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def explained(name: str) -> tuple[Any, Explanation, dict[str, Any], dict[str, Any]]:
    """Explain an entry; return the model, the explanation, and the model's state before and after."""
    entry = ZOO[name]
    model = entry.create()
    before = state_of(model)
    explanation = explain(
        model, Probe(entry.batch()), target=lambda output, probe: entry.score(output), forward=entry.forward
    )
    return model, explanation, before, state_of(model)


def state_of(model: torch.nn.Module) -> dict[str, Any]:
    """Return what an explanation may not change: weights, modes, hooks, and the attributes of every module."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    state: dict[str, Any] = {key: copy.deepcopy(value) for key, value in model.state_dict().items()}
    for path, module in model.named_modules():
        state[f"{path} hooks"] = [len(getattr(module, kind)) for kind in hooks]
        state[f"{path} mode"] = module.training
        state[f"{path} attributes"] = sorted(vars(module))
        state[f"{path} values"] = [
            (key, value) for key, value in sorted(vars(module).items()) if isinstance(value, (bool, int, float, str))
        ]
    return state


def capture(entry: Entry, model: torch.nn.Module, layer: str, images: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """Run the model; return its output and what the layer returned in the call of the entry."""
    returned = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, output: returned.append(output))
    try:
        forward = entry.forward or (lambda model, probe: model(probe.images))
        with torch.enable_grad():
            output = forward(model, Probe(images.requires_grad_()))
    finally:
        handle.remove()
    return output, list_tensors(returned[entry.call])[0]


def list_entries(aspect: str, **fields: Any) -> list[Any]:
    """List the entries with these fields; known faults of an aspect are expected to fail."""
    chosen = {n: e for n, e in ZOO.items() if all(getattr(e, key) == value for key, value in fields.items())}
    faults = {n: [e.known[aspect]] if aspect in e.known else [] for n, e in chosen.items()}
    return [pytest.param(n, marks=[pytest.mark.xfail(strict=True, reason=r) for r in faults[n]]) for n in chosen]


@pytest.mark.parametrize("name", list_entries("kind"))
def test_output_is_taken_for_what_it_is(name):
    entry = ZOO[name]
    images = entry.batch()
    probe = Probe(images, labels=entry.labels(len(images)) if entry.labels else None)
    if entry.kind:
        model = entry.create()
        explainer = prepare(model, probe.read_axes(model), target=None, forward=entry.forward)
        assert explainer.output_kind.name == entry.kind, explainer.output_kind
        return
    with pytest.raises(NotExplainableError, match="target="):
        explain(entry.create(), probe, forward=entry.forward)


@pytest.mark.parametrize("name", list_entries("layer"))
def test_chosen_layer_is_one_an_expert_would_take(name):
    entry, (_, explanation, _, _) = ZOO[name], explained(name)
    [layer] = explanation.layers.values()
    assert re.fullmatch(entry.layers, layer.name), layer
    [evidence] = explanation.evidence.values()
    assert evidence.shape[1:] == entry.grid


@pytest.mark.parametrize("name", list_entries("map"))
def test_map_equals_plain_autograd(name):
    entry, (model, explanation, _, _) = ZOO[name], explained(name)
    [layer], [evidence] = explanation.layers.values(), explanation.evidence.values()
    output, activations = capture(entry, model, layer.name, entry.batch())
    [gradients] = torch.autograd.grad(entry.score(output).sum(), activations)
    activations, gradients = (entry.read(tensor.detach()) for tensor in (activations, gradients))
    weights = gradients.flatten(2).mean(2)[(...,) + (None,) * len(entry.grid)]
    expected = (weights * activations).sum(1)
    assert evidence.shape == expected.shape
    largest = expected.abs().max()
    assert largest > 0
    torch.testing.assert_close(evidence, expected, rtol=0, atol=1e-4 * float(largest))


@pytest.mark.parametrize("name", list_entries("place", local=True))
def test_changed_patch_changes_the_layer_at_its_place(name):
    entry, (model, explanation, _, _) = ZOO[name], explained(name)
    [layer] = explanation.layers.values()
    size, grid = explanation.size, entry.grid
    images = entry.batch(1)
    with torch.no_grad():
        before = layer.to_grid(capture(entry, model, layer.name, images.clone())[1].detach())
    extent = tuple(max(1, side // 4) for side in grid)  # cells of the patch along each side
    starts = [(0,) * len(grid), tuple(side - cells for side, cells in zip(grid, extent, strict=True))]
    starts.append(tuple((side - cells) // 2 for side, cells in zip(grid, extent, strict=True)))
    for start in starts:
        stop = tuple(first + cells for first, cells in zip(start, extent, strict=True))
        scales = [side / cells for side, cells in zip(size, grid, strict=True)]
        patch = tuple(
            slice(int(first * scale), max(int(last * scale), int(first * scale) + 1))
            for first, last, scale in zip(start, stop, scales, strict=True)
        )
        changed = images.clone()
        changed[(..., *patch)] = 1 - changed[(..., *patch)]
        after = layer.to_grid(capture(entry, model, layer.name, changed)[1].detach())
        change = (after - before).abs().sum(1)[0]
        most = torch.unravel_index(change.argmax(), change.shape)
        for cell, first, last in zip(most, start, stop, strict=True):
            assert first - 1 <= int(cell) <= last, (start, stop, most)


@pytest.mark.parametrize("name", ZOO)
def test_explanation_leaves_the_model_unchanged(name):
    _, _, before, after = explained(name)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key], key


@pytest.mark.parametrize("name", ZOO)
def test_second_explanation_is_the_same(name):
    entry, (model, explanation, _, _) = ZOO[name], explained(name)
    again = explain(
        model, Probe(entry.batch()), target=lambda output, probe: entry.score(output), forward=entry.forward
    )
    assert again.evidence.keys() == explanation.evidence.keys()
    for key, evidence in explanation.evidence.items():
        assert torch.equal(again.evidence[key], evidence)


def test_meta_tensor_is_explained_as_its_numbers():
    from monai.data import MetaTensor

    entry, (model, explanation, _, _) = ZOO["monai unet of volumes"], explained("monai unet of volumes")
    again = explain(model, Probe(MetaTensor(entry.batch())), target=lambda output, probe: entry.score(output))
    for key, evidence in explanation.evidence.items():
        assert torch.equal(again.evidence[key], evidence)
        assert type(again.evidence[key]) is torch.Tensor
