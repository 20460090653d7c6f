"""Logits in a model's output, and their probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.capture.pre_softmax import PROBABILITIES, find_softmax_input
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.targets.unsupported import unsupported_output


def probabilities(logits: Tensor, multilabel: bool = False) -> Tensor:
    """Return the softmax of logits ``(N, K)``, or the sigmoid if the labels are multi-label.

    Rows that are already probabilities that sum to 1 stay unchanged.

    >>> probabilities(torch.tensor([[0.25, 0.75], [0.0, 0.0]]))
    tensor([[0.2500, 0.7500], [0.5000, 0.5000]])
    """
    if multilabel:
        return logits.sigmoid()
    is_normalized = ((logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-3))[:, None]
    return torch.where(is_normalized, logits, logits.softmax(1))


def predictions(logits: Tensor, multilabel: bool = False) -> tuple[Tensor, Tensor]:
    """Return the probability ``(N,)`` and the number ``(N,)`` of the best class; NaN and -1 for non-finite logits.

    >>> predictions(torch.tensor([[0.0, 0.0, 9.0], [torch.nan, 0.0, 0.0]]))[1]
    tensor([ 2, -1])
    """
    confidence, predicted = probabilities(logits, multilabel).max(1)
    is_finite = logits.isfinite().all(1)
    return confidence.masked_fill(~is_finite, torch.nan), predicted.masked_fill(~is_finite, -1)


def require_logits(output: Any, head: str = "") -> Tensor:
    """Return the logits ``(n, K)`` in a classifier's output: a tensor, or the first one in a tuple, list or mapping.

    A mapping's ``"logits"`` and an object's ``.logits`` come first. A single logit per image, ``(n,)`` or ``(n, 1)``,
    is a binary classifier's: it becomes ``(n, 2)``, whose softmax is its sigmoid. If the output is probabilities, the
    inputs of their softmax or sigmoid are returned where they are known, see `capture.pre_softmax`.

    Args:
        output: What the model returned.
        head: The item of an output with several, by its key or position; "" for the first with logits.

    Raises:
        NotExplainableError: The output has no logits.

    >>> require_logits({"loss": torch.zeros(()), "logits": torch.tensor([[2.0]])})
    tensor([[-1.,  1.]])
    """
    logits = find_logits(output, head)
    if logits is None:
        raise report_missing_logits(output)
    return logits


def report_missing_logits(output: Any) -> NotExplainableError:
    """Return the error for an output without logits."""
    return unsupported_output(
        "Expected logits of shape (N, classes) in the model's output",
        output,
        "Pass `target=`, a callable of (output, probe) that returns one score per image, or `forward=`, a callable "
        "of (model, probe) that returns logits.",
    )


def find_logits(output: Any, head: str = "") -> Tensor | None:
    """Return the logits as `require_logits` does, or None if there are none."""
    items = (_to_logits(tensor) for name, tensor in list_items(output) if head in ("", name))
    return next((logits for logits in items if logits is not None), None)


def list_items(output: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in an output with their keys and positions, in the order in which logits are looked for.

    >>> [name for name, _ in list_items({"aux": torch.zeros(1), "logits": (torch.zeros(2), torch.zeros(3))})]
    ['logits.0', 'logits.1', 'aux']
    """
    if isinstance(output, Tensor):
        yield path, output
        return
    items: Sequence[tuple[str, Any]] = ()
    if isinstance(output, Mapping):
        items = [(str(k), output[k]) for k in ("logits", *(k for k in output if k != "logits")) if k in output]
    elif hasattr(output, "logits"):
        items = [("logits", output.logits)]
    elif isinstance(output, (tuple, list)) and not all(isinstance(item, Mapping) for item in output):
        items = [(str(i), item) for i, item in enumerate(output)]  # one mapping per image is boxes, not logits
    for name, item in items:
        yield from list_items(item, f"{path}.{name}" if path else name)


def _to_logits(output: Tensor) -> Tensor | None:
    """Return a tensor of logits or probabilities as logits ``(n, K)``; None for a tensor of another shape."""
    if not output.is_floating_point() or output.ndim not in (1, 2):
        return None
    scores = find_softmax_input(output, PROBABILITIES)
    logits = (output if scores is None else scores).reshape(len(output), -1)
    if logits.shape[1] > 1:
        return logits
    if scores is None and "Sigmoid" in type(output.grad_fn).__name__:
        logits = logits.logit(1e-6)  # a probability whose input was not recorded
    return torch.cat([-logits / 2, logits / 2], dim=1)


def are_probabilities(logits: Tensor) -> bool:
    """Return whether all rows ``(n, K)`` are probabilities that sum to 1, or log-probabilities. (Waits for the device.)

    >>> are_probabilities(torch.tensor([[0.25, 0.75]])), are_probabilities(torch.tensor([[0.25, 1.75]]))
    (True, False)
    """
    is_linear = (logits >= 0).all() & ((logits.sum(1) - 1).abs() < 1e-3).all()
    return bool(is_linear | ((logits <= 0).all() & (logits.logsumexp(1).abs() < 1e-3).all()))
