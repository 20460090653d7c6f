"""Forward passes: how a model is called on a probe.

A `Forward` is a callable of ``(model, probe)``. Classes that wrap one and are one
themselves add a behavior each and form a chain. The general ones are here. The others are next to the code that needs
them: counting in ``cli``, precision in ``callback``, rank-zero buffers and sharded models in ``monitor``.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_gradcam.capture.outputs import with_plain_tensors
from lightning_gradcam.capture.pre_softmax import TrackSoftmaxInputs
from lightning_gradcam.errors import ForwardError, NotExplainableError
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "_ALLOC_FAILED")


@dataclass(frozen=True)
class CheckedForward:
    """A forward pass whose errors name the model, the input and the remedy.

    Args:
        forward: The wrapped forward pass.
        tracks_softmax: Whether to record the input of the last softmax, which takes a tenth of a small model's pass.
    """

    forward: Forward
    tracks_softmax: bool = True

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        """Return the model's output, for images in the order in which it takes their dimensions.

        Raises:
            ForwardError: The model raised an error. Out-of-memory errors are raised unchanged.
        """
        probe = probe.restore_axes()
        try:
            with TrackSoftmaxInputs() if self.tracks_softmax else nullcontext():
                return with_plain_tensors(self.forward(model, probe))
        except NotExplainableError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Three dimensions are signals (N, C, L), or a single image (C, H, W) by mistake.
            hint = " A single image needs a batch dimension: image[None]." if probe.images.ndim == 3 else ""
            raise ForwardError(
                f"The forward pass of {type(model).__name__} failed on images of shape {tuple(probe.images.shape)} "
                f"({probe.images.dtype}): {type(error).__name__}: {error}. If the model needs other input, pass "
                f"`forward=`, a callable of (model, probe).{hint}"
            ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that memory ran out; only CUDA's allocator has an error class for it.

    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    """
    has_message = isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)
    return has_message or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def default_forward(model: nn.Module) -> Forward:
    """Return ``model(probe.images)`` as a forward pass, for models that need only images.

    Raises:
        NotExplainableError: The model's ``forward`` has other required arguments.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) > 1 or not parameters:
        raise NotExplainableError(
            f"{type(model).__name__}.forward needs ({', '.join(required)}), but would be called with the images only. "
            "Pass `forward=`, a callable of (model, probe): `lambda model, probe: model(probe.images, ...)`. Other "
            "tensors of a batch are in `probe.extras`."
        )
    return _call_on_images


def _call_on_images(model: nn.Module, probe: Probe) -> Any:
    return model(probe.images)


@dataclass(frozen=True)
class ChildForward:
    """A forward pass through a child, for a module that does not define ``forward``.

    Args:
        child: The child's name.
    """

    child: str

    def __call__(self, module: nn.Module, probe: Probe) -> Any:
        """Return ``module.child(probe.images)``."""
        return module.get_submodule(self.child)(probe.images)


def find_forward(module: nn.Module) -> ChildForward | None:
    """Find the child with the most trainable parameters; return None if a LightningModule defines ``forward``.

    Raises:
        NotExplainableError: The module has neither a ``forward`` nor a child with parameters.
    """
    base_class = next((c for c in type(module).__mro__ if c.__name__ == "LightningModule"), nn.Module)
    if getattr(type(module), "forward", None) is not getattr(base_class, "forward", None):
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
