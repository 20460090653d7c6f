"""How a model is called, and what is said where that fails."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_gradcam.endings import NotingEndings
from lightning_gradcam.explanation import ForwardError, NotExplainableError
from lightning_gradcam.probe import Forward, Probe

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "_ALLOC_FAILED")


@dataclass(frozen=True)
class Called:
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
            with NotingEndings() if self.notes else nullcontext():
                return self.forward(model, probe)
        except NotExplainableError:
            raise
        except Exception as error:
            if memory_ran_out(error):
                raise
            # Three dimensions are signals (N, C, L), or a photo (C, H, W) of which nobody can tell.
            single = " A single image needs a batch dimension: image[None]." if probe.images.ndim == 3 else ""
            raise ForwardError(
                f"The forward pass of {type(model).__name__} failed on images of shape {tuple(probe.images.shape)} "
                f"({probe.images.dtype}): {type(error).__name__}: {error}. If it needs other input, pass `forward=`, a "
                f"callable of (model, probe).{single}"
            ) from error


def memory_ran_out(error: BaseException) -> bool:
    """Whether that is what an error says; only CUDA's allocator has an error of its own for it.

    >>> memory_ran_out(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
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
