"""Where the logits are in what a model returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.capture.pre_softmax import PROBABILITIES, find_softmax_input
from lightning_gradcam.errors import NotExplainableError


def probabilities(logits: Tensor, multilabel: bool = False) -> Tensor:
    """Softmax ``(N, K)``, or where each class has a label of its own, sigmoid.

    Rows that already are probabilities that add up to 1 stay as they are.

    >>> probabilities(torch.tensor([[0.25, 0.75], [0.0, 0.0]]))
    tensor([[0.2500, 0.7500], [0.5000, 0.5000]])
    """
    if multilabel:
        return logits.sigmoid()
    given = ((logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-3))[:, None]
    return torch.where(given, logits, logits.softmax(1))


def predictions(logits: Tensor, multilabel: bool = False) -> tuple[Tensor, Tensor]:
    """Probability ``(N,)`` and class ``(N,)`` of the best class; NaN and -1 where logits are not finite.

    >>> predictions(torch.tensor([[0.0, 0.0, 9.0], [torch.nan, 0.0, 0.0]]))[1]
    tensor([ 2, -1])
    """
    sure, predicted = probabilities(logits, multilabel).max(1)
    finite = logits.isfinite().all(1)
    return sure.masked_fill(~finite, torch.nan), predicted.masked_fill(~finite, -1)


def require_logits(output: Any) -> Tensor:
    """The logits ``(n, K)`` in what a classifier returned: a tensor, or the first one in a tuple, list or mapping.

    A mapping's ``"logits"`` and an object's ``.logits`` come first. One logit per image, ``(n,)`` or ``(n, 1)``, is a
    binary classifier's: it becomes ``(n, 2)``, whose softmax is its sigmoid. Of probabilities, the scores that they
    were made of are taken where they are known, see `endings`.

    Raises:
        NotExplainableError: There are none.

    >>> require_logits({"loss": torch.zeros(()), "logits": torch.tensor([[2.0]])})
    tensor([[-1.,  1.]])
    """
    logits = find_logits(output)
    if logits is None:
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        raise NotExplainableError(
            f"Expected logits of shape (N, classes) in the model's output, but got a {type(output).__name__}{shape}. "
            "Pass `target=`, a callable of (output, probe) that returns one score per image, or `forward=`, a callable "
            "of (model, probe) that returns logits."
        )
    return logits


def find_logits(output: Any) -> Tensor | None:
    """As `require_logits`, but None where there are none."""
    if isinstance(output, Tensor):
        if not output.is_floating_point() or output.ndim not in (1, 2):
            return None
        scores = find_softmax_input(output, PROBABILITIES)
        logits = (output if scores is None else scores).reshape(len(output), -1)
        if logits.shape[1] > 1:
            return logits
        if scores is None and "Sigmoid" in type(output.grad_fn).__name__:
            logits = logits.logit(1e-6)  # a probability: back to what it was made of
        return torch.cat([-logits / 2, logits / 2], dim=1)
    if isinstance(output, Mapping):
        items = [output[k] for k in ("logits", *(k for k in output if k != "logits")) if k in output]
    elif hasattr(output, "logits"):
        items = [output.logits]
    else:
        items = list(output) if isinstance(output, (tuple, list)) else []
        if all(isinstance(item, Mapping) for item in items):
            return None  # one for each image: boxes, which are no logits
    return next((found for item in items if (found := find_logits(item)) is not None), None)


def are_probabilities(logits: Tensor) -> bool:
    """Whether all rows ``(n, K)`` are probabilities that add up to 1, or their logarithms. (Waits for the device.)

    >>> are_probabilities(torch.tensor([[0.25, 0.75]])), are_probabilities(torch.tensor([[0.25, 1.75]]))
    (True, False)
    """
    plain = (logits >= 0).all() & ((logits.sum(1) - 1).abs() < 1e-3).all()
    return bool(plain | ((logits <= 0).all() & (logits.logsumexp(1).abs() < 1e-3).all()))
