"""All hooks of this package: what a model does on the way to a score, and with which gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.explanation import NotExplainableError
from lightning_gradcam.layout import Grid, Layouts, ToGrid
from lightning_gradcam.outputs import floats, ordinary, swap, version, with_grad
from lightning_gradcam.passes import Passes
from lightning_gradcam.places import Origin, Places
from lightning_gradcam.probe import Forward, Probe, Target
from lightning_gradcam.trace import Layer, LayerShape, vanishing

Hook = Callable[[nn.Module, Any, Any], Any]

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def clean_name(name: str) -> str:
    """A module's name without what torch.compile, FSDP and activation checkpointing put in front of it.

    >>> clean_name("_orig_mod.layer4._fsdp_wrapped_module.1")
    'layer4.1'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules inside ``model`` by name; where one is wrapped, the name is that of what is inside."""
    return {clean_name(name): module for name, module in model.named_modules() if clean_name(name)}


@contextmanager
def _hooked(hooks: Sequence[tuple[Callable[[Hook], Any], Hook]]) -> Iterator[None]:
    handles = []
    try:
        for register, hook in hooks:
            handles.append(register(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Made:
    """A tensor that a module made during a trace."""

    value: Tensor  # what the gradient is asked for
    handed: Tensor  # the clone that went on; an in-place operation changes it, and so its version
    version: int
    returned_by: list[tuple[nn.Module, int]]  # with which call of it; the innermost module first
    origin: Origin


@dataclass
class _Tape:
    """Hooks that note what the modules of a pass over so many rows make."""

    rows: int
    made: list[_Made] = field(default_factory=list)
    calls: Counter[nn.Module] = field(default_factory=Counter)
    running: list[tuple[int, list[tuple[Tensor, int]]]] = field(default_factory=list)

    def enter(self, module: nn.Module, args: Any) -> Any:
        """Before a module runs."""
        args = ordinary(module, args)
        self.running.append((len(self.made), [(arg, version(arg)) for arg in args if isinstance(arg, Tensor)]))
        return args

    def leave(self, module: nn.Module, _args: Any, output: Any) -> Any:
        """After it has run."""
        first_inside, given = self.running.pop()
        call = self.calls[module]
        self.calls[module] += 1
        tensor, others = next(found := floats(output), None), any(True for _ in found)
        if tensor is None or tensor.ndim < 2 or self.rows not in tensor.shape[: 2 if tensor.ndim == 3 else 1]:
            return None
        if any(arg is tensor and came == version(tensor) for arg, came in given):
            return None  # handed through, as dropout does in evaluation
        for record in self.made[first_inside:]:
            if record.handed is tensor and record.version == version(tensor):
                if not others:  # else the score may be made of those, and pass by the tensor on its way out
                    record.returned_by.append((module, call))
                return None
        value, handed = with_grad(tensor)  # also inside a no_grad block of the model's own
        origin = Origin(module, tensor, handed, [arg for arg, _ in given], first_inside)
        self.made.append(_Made(value, handed, handed._version, [(module, call)], origin))
        return swap(output, tensor, handed)


def trace(
    model: nn.Module, probe: Probe, forward: Forward, score: Callable[[Any], Tensor]
) -> tuple[tuple[LayerShape, ...], Any]:
    """Run the model once with grad and list what its modules returned, in order of execution.

    Args:
        model: As it is to be explained, see `isolation.isolated`.
        probe: A few images.
        forward: How the model is called.
        score: Turns the model's output into scores ``(n,)`` or ``(n, k)``.

    Returns:
        One `LayerShape` per distinct tensor with one row per image, and the model's output.
    """
    tape = _Tape(len(probe))
    names = {module: name for name, module in named_layers(model).items() if _can_be_traced(name, module)}
    entering = [(module.register_forward_pre_hook, tape.enter) for module in names]
    leaving = [(module.register_forward_hook, tape.leave) for module in names]
    with torch.enable_grad():
        with _hooked([*entering, *leaving]):  # type: ignore[list-item]  # pre-hooks take no output
            output = forward(model, probe)
        scores = score(output)
        gradients: Sequence[Tensor | None] = [None] * len(tape.made)
        if tape.made and scores.requires_grad:
            gradients = torch.autograd.grad(scores.sum(), [r.value for r in tape.made], allow_unused=True)
    layouts, places = Layouts(probe.size, len(probe)), Places(probe.images)
    read = [layouts.follow(record.origin, places) for record in tape.made]
    shapes = [_shape(r, names, tape.calls, *at, g) for r, at, g in zip(tape.made, read, gradients, strict=True)]
    if not vanishing(shapes):
        shapes = [replace(s, reaches=s.touched > 0) if s.tokens else s for s in shapes]
    return tuple(shapes), output


def _can_be_traced(name: str, module: nn.Module) -> bool:
    """Not what computes weights, and not what takes no hooks."""
    return ".parametrizations." not in f".{name}." and not isinstance(module, torch.jit.ScriptModule)


def _shape(
    record: _Made,
    names: Mapping[nn.Module, str],
    calls: Mapping[nn.Module, int],
    grid: Grid | None,
    to_grid: ToGrid,
    gradient: Tensor | None,
) -> LayerShape:
    (maker, _), (outermost, call) = record.returned_by[0], record.returned_by[-1]
    return LayerShape(
        name=names[outermost],
        kind=type(maker).__name__,
        shape=tuple(record.value.shape),
        grid=grid,
        call=-1 if call == calls[outermost] - 1 else call,
        reaches=gradient is not None,
        touched=0.0 if gradient is None else _touched(to_grid(gradient)),
        to_grid=to_grid,
        inner=tuple(names[module] for module, _ in record.returned_by[:-1]),
    )


def _touched(gradient: Tensor) -> float:
    """The share of places in ``(n, C, *s)`` with a gradient in some image and channel."""
    return (
        float((gradient != 0).flatten(2).any(1).any(0).float().mean()) if gradient.ndim > 2 else float(gradient.any())
    )


def capture(
    model: nn.Module,
    probe: Probe,
    layers: Sequence[Layer],
    forward: Forward,
    targets: Sequence[Target],
    keep: bool = True,
    differentiable: bool = False,
) -> list[Passes]:
    """Run the model once and keep what a gradient at ``layers`` needs: the graph from the earliest of them on.

    Under `torch.no_grad`, the pass runs without grad up to there, so that nothing of the body is saved for backward. A
    loss made of the activations and gradients of a ``differentiable`` one reaches all weights that want a gradient.

    Returns:
        One `Passes` per target, all of the same pass, to be read in this order. Unless told to ``keep`` it, the last
        one's gradients free the graph.

    Raises:
        NotExplainableError: A layer did not run.
    """
    output, tensors, cut = _run_to_graph(model, probe, layers, forward)
    with torch.enable_grad():
        carries_grad = all(target(output, probe).requires_grad for target in targets)
    if layers and (cut or not carries_grad):
        # The model has a no_grad block of its own around a layer, and grad was off again after it.
        with torch.enable_grad():
            output, tensors, _ = _run_to_graph(model, probe, layers, forward)
    missing = [layer.name for layer in layers if layer.key not in tensors]
    if missing:
        raise NotExplainableError(
            f"Layer {missing[0]!r} returned no floating-point tensor in this pass: it did not run, or its hook did not "
            "fire. Choose another with `layers=`."
        )
    by_key = {layer.key: layer for layer in layers}
    whole = Passes(
        model,
        probe,
        targets[0],
        output,
        tensors,
        by_key,
        lambda rows: forward(model, rows),
        differentiable=differentiable,
    )
    shared = [True] * (len(targets) - 1) + [keep]
    return [replace(whole, target=target, shared=each) for target, each in zip(targets, shared, strict=True)]


def _run_to_graph(
    model: nn.Module, probe: Probe, layers: Sequence[Layer], forward: Forward
) -> tuple[Any, dict[str, Tensor], bool]:
    """The output, the tensors, and whether grad was off again between two of them."""
    tensors: dict[str, Tensor] = {}
    cut = False
    calls: Counter[str] = Counter()
    modules = named_layers(model)
    gone = [layer.name for layer in layers if layer.name not in modules]
    if gone:
        raise NotExplainableError(
            f"Layer {gone[0]!r} is no longer in the model, whose structure has changed. Name one that stays: `layers=`."
        )

    def tap(layer: Layer) -> Hook:
        def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
            nonlocal cut
            call = calls[layer.key]
            calls[layer.key] += 1
            tensor = next(floats(output), None)
            if tensor is None or layer.call not in (-1, call):
                return None
            cut |= bool(tensors) and not torch.is_grad_enabled()
            # A clone goes on, so that an in-place operation behind the layer does not change what was captured.
            tensors[layer.key], handed = with_grad(tensor)
            return swap(output, tensor, handed)

        return leave

    before = torch.is_grad_enabled()
    taking = [m.register_forward_pre_hook for name, m in modules.items() if before and _can_be_traced(name, m)]
    tapping = [(modules[layer.name].register_forward_hook, tap(layer)) for layer in layers]
    with _hooked([*((register, ordinary) for register in taking), *tapping]):  # type: ignore[list-item]  # as above
        try:
            output = forward(model, probe)
        finally:
            torch.set_grad_enabled(before)
    return output, {layer.key: tensors[layer.key] for layer in layers if layer.key in tensors}, cut
