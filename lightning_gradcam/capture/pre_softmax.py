"""What a model's last softmax, sigmoid or normalisation was given, found while the model runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_gradcam.capture.outputs import list_float_tensors

PROBABILITIES = frozenset({"softmax", "log_softmax", "sigmoid", "expit"})
"""Functions that make probabilities of scores, however they are called: module, function or method."""

NORMALISATIONS = frozenset({"normalize"})

_ALONG = frozenset({"clone", "contiguous", "double", "flatten", "float", "reshape", "squeeze", "to", "view"})
"""What may still be done to the result: the same is done to what it was made of."""

_GIVEN = WeakTensorKeyDictionary()  # by what was returned; an entry goes with its tensor


class TrackSoftmaxInputs(TorchFunctionMode):
    """Inside, what such a function is given can be found afterwards: see `find_softmax_input`.

    Only results of one or two dimensions count, which outputs have; attention, say, keeps no memory here.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``, and note what it was given."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in PROBABILITIES or name in NORMALISATIONS:
            given = args[0] if args else (kwargs or {}).get("input")
            if isinstance(given, Tensor) and given is not result and given.ndim in (1, 2):
                _GIVEN[result] = name, given
        elif name in _ALONG and result is not args[0] and args[0].ndim in (1, 2) and args[0] in _GIVEN:
            known, given = _GIVEN[args[0]]
            _GIVEN[result] = known, func(given, *args[1:], **(kwargs or {}))
        return result


def has_softmax_input(output: Any) -> bool:
    """Whether anything in what a model returned is the result of such a function."""
    return any(tensor in _GIVEN for tensor in list_float_tensors([output, getattr(output, "logits", None)]))


def find_softmax_input(result: Tensor, functions: Collection[str]) -> Tensor | None:
    """What ``result`` was made of by one of these functions; None where that was not noted.

    >>> import torch
    >>> with TrackSoftmaxInputs():
    ...     found = torch.tensor([[0.0, 3.0]]).softmax(1).squeeze(0)
    >>> find_softmax_input(found, PROBABILITIES), find_softmax_input(torch.ones(2), PROBABILITIES)
    (tensor([0., 3.]), None)
    """
    name, given = _GIVEN.get(result, ("", None))  # type: ignore[no-untyped-call]  # PyTorch's has no types
    return given if name in functions else None
