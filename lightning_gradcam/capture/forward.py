"""How a model is called, and what is said where that fails."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_gradcam.capture.pre_softmax import TrackSoftmaxInputs
from lightning_gradcam.errors import ForwardError, NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "_ALLOC_FAILED")


@dataclass(frozen=True)
class CheckedForward:
    """A forward pass whose errors say with what the model was called.

    Args:
        forward: How it is called.
        notes: Whether what the last softmax is given is noted, which takes a tenth of a small model's pass.
    """

    forward: Forward
    notes: bool = True

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """What the model returns.

        Raises:
            ForwardError: The model raised; but memory that runs out stays what it is.
        """
        try:
            with TrackSoftmaxInputs() if self.notes else nullcontext():
                return self.forward(model, probe)
        except NotExplainableError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Three dimensions are signals (N, C, L), or a photo (C, H, W) of which nobody can tell.
            single = " A single image needs a batch dimension: image[None]." if probe.images.ndim == 3 else ""
            raise ForwardError(
                f"The forward pass of {type(model).__name__} failed on images of shape {tuple(probe.images.shape)} "
                f"({probe.images.dtype}): {type(error).__name__}: {error}. If it needs other input, pass `forward=`, a "
                f"callable of (model, probe).{single}"
            ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error says; only CUDA's allocator has an error of its own for it.

    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    """
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    return said or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def default_forward(model: nn.Module) -> Forward:
    """``model(probe.images)``, for models that need no more.

    Raises:
        NotExplainableError: The model's ``forward`` has other required arguments.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or not parameters:
        raise NotExplainableError(
            f"{type(model).__name__}.forward needs ({', '.join(needed)}), but would be called with the images only. "
            "Pass `forward=`, a callable of (model, probe): `lambda model, probe: model(probe.images, ...)`; what else "
            "a batch holds is in `probe.extras`."
        )
    return _images_only


def _images_only(model: nn.Module, probe: Probe) -> Any:
    return model(probe.images)


@dataclass(frozen=True)
class ChildForward:
    """Calls the child of a module that has no ``forward`` of its own."""

    child: str

    def __call__(self, module: nn.Module, probe: Probe) -> Any:
        """``module.child(probe.images)``."""
        return module.get_submodule(self.child)(probe.images)


def find_forward(module: nn.Module) -> ChildForward | None:
    """None where a LightningModule has a ``forward``; else the call of the child that trains the most parameters.

    Raises:
        NotExplainableError: It has no child with parameters either.
    """
    base = next((c for c in type(module).__mro__ if c.__name__ == "LightningModule"), nn.Module)
    if getattr(type(module), "forward", None) is not getattr(base, "forward", None):
        return None
    sizes = {
        name: (
            sum(p.numel() for p in child.parameters() if p.requires_grad),
            sum(p.numel() for p in child.parameters()),
        )
        for name, child in module.named_children()
    }
    if not any(parameters for _, parameters in sizes.values()):
        raise NotExplainableError(
            f"{type(module).__name__} has neither a `forward` nor a child with parameters. Define `forward(self, "
            "images)`, or pass `forward=`, a callable of (module, probe)."
        )
    return ChildForward(max(sizes, key=lambda name: sizes[name]))
