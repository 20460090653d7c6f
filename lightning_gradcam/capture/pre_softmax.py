"""The input of a model's last softmax, sigmoid or normalization, recorded while the model runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_gradcam.capture.outputs import list_float_tensors

PROBABILITIES = frozenset({"softmax", "log_softmax", "sigmoid", "expit"})
"""Functions that turn scores into probabilities, called as a module, a function or a method."""

NORMALIZATIONS = frozenset({"normalize"})

_PASSED_ON = frozenset({"clone", "contiguous", "double", "flatten", "float", "reshape", "squeeze", "to", "view"})
"""Functions applied to a result afterwards; they are also applied to its recorded input."""

_INPUTS = WeakTensorKeyDictionary()  # function and input by result; an entry is freed with its result


class TrackSoftmaxInputs(TorchFunctionMode):
    """A mode that records the inputs of these functions for `find_softmax_input`.

    Only results with one or two dimensions are recorded, as outputs have; attention, for example, is not kept.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` and record its input."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in PROBABILITIES or name in NORMALIZATIONS:
            scores = args[0] if args else (kwargs or {}).get("input")
            if isinstance(scores, Tensor) and scores is not result and scores.ndim in (1, 2):
                _INPUTS[result] = name, scores
        elif name in _PASSED_ON and result is not args[0] and args[0].ndim in (1, 2) and args[0] in _INPUTS:
            function, scores = _INPUTS[args[0]]
            _INPUTS[result] = function, func(scores, *args[1:], **(kwargs or {}))
        return result


def has_softmax_input(output: Any) -> bool:
    """Return whether a tensor in a model's output is the result of such a function."""
    return any(tensor in _INPUTS for tensor in list_float_tensors([output, getattr(output, "logits", None)]))


def find_softmax_input(result: Tensor, functions: Collection[str]) -> Tensor | None:
    """Find the input from which one of these functions computed ``result``; None if it was not recorded.

    >>> import torch
    >>> with TrackSoftmaxInputs():
    ...     probabilities = torch.tensor([[0.0, 3.0]]).softmax(1).squeeze(0)
    >>> find_softmax_input(probabilities, PROBABILITIES), find_softmax_input(torch.ones(2), PROBABILITIES)
    (tensor([0., 3.]), None)
    """
    name, scores = _INPUTS.get(result, ("", None))  # type: ignore[no-untyped-call]  # PyTorch's class is untyped
    return scores if name in functions else None
