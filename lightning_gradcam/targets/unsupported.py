"""Error for a model output that a target cannot read."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_gradcam.errors import NotExplainableError


def unsupported_output(expected: str, output: Any, remedy: str = "") -> NotExplainableError:
    """Return the error for an output of another structure.

    Args:
        expected: What the target reads, with its shape.
        output: What the model returned.
        remedy: What to pass; by default ``forward=``.

    >>> import torch
    >>> print(unsupported_output("embeddings of shape (N, D)", torch.zeros(2, 3, 4)))
    Expected embeddings of shape (N, D) in the model's output, but got a Tensor of shape (2, 3, 4). Pass `forward=`, a
    callable of (model, probe) that returns them.
    """
    shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
    return NotExplainableError(
        f"Expected {expected} in the model's output, but got a {type(output).__name__}{shape}. "
        + (remedy or "Pass `forward=`, a callable of (model, probe) that returns them.")
    )
