"""What a model says about its output: the losses of its training, and classifiers that its forward pass leaves out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from inspect import isroutine
from itertools import chain
from types import CodeType
from typing import Any, Literal, TypeAlias

from torch import nn

LossKind: TypeAlias = Literal["embeddings", "values", "classes"]
"""What a loss compares."""

_NAMES: Mapping[LossKind, re.Pattern[str]] = {
    "embeddings": re.compile(r"triplet|contrastive|cosine_?embedding|nt_?xent|info_?nce|(arc|cos)_?face(_?loss)?$"),
    "values": re.compile(
        r"(^|_)mse(_?loss)?$|l1_?loss|huber|(gaussian|poisson)_?nll|mean_?(squared|absolute)_?(log_?)?error|r2_?score"
    ),
    "classes": re.compile(
        r"cross_?entropy|nll_?loss|bce|(focal|dice|jaccard|tversky|lovasz|hinge|margin)_?(\w*_)?loss|accuracy|auroc"
        r"|f1_?score|confusion_?matrix"
    ),
}
"""Names of losses and metrics in lower case, in the order in which they are tried."""

_FRAMEWORKS = ("torch", "lightning", "pytorch_lightning", "builtins")


def read_losses(model: nn.Module) -> dict[LossKind, str]:
    """Find the losses and metrics that a model's training uses, without running it.

    These are submodules and attributes that are losses or metrics, and such functions that the methods of the model's
    own class call, `training_step` among them. A LightningModule has them; a plain model has none.

    >>> class Model(nn.Module):
    ...     def training_step(self, batch):
    ...         return nn.functional.mse_loss(self(batch[0]), batch[1])
    >>> read_losses(Model())
    {'values': 'mse_loss'}
    """
    losses: dict[LossKind, str] = {}
    for name in chain(_list_criteria(model), _list_called_names(type(model))):
        kind = next((kind for kind, pattern in _NAMES.items() if pattern.search(name.lower())), None)
        if kind is not None:
            losses.setdefault(kind, name)
    return losses


def _list_criteria(model: nn.Module) -> Iterator[str]:
    """Yield the names of the model's submodules and attributes that are losses or metrics."""
    attributes = [value for name, value in vars(model).items() if not name.startswith("_")]
    for item in chain(model.modules(), attributes):
        name = item.__name__ if isroutine(item) else type(item).__name__
        is_metric = all(callable(getattr(type(item), method, None)) for method in ("update", "compute"))
        if item is not model and (is_metric or re.search(r"(loss|criterion|entropy)$", name.lower())):
            yield name


def _list_called_names(model_type: type) -> Iterator[str]:
    """Yield the names that occur in the methods of a model's class, apart from overridden and frameworks' ones."""
    methods: dict[str, Any] = {}
    for base in model_type.__mro__:
        if base.__module__.split(".")[0] not in _FRAMEWORKS:
            methods = {**vars(base), **methods}
    for method in methods.values():
        function = getattr(method, "__func__", method)  # of a static method
        yield from _list_code_names(getattr(function, "__code__", None))


def _list_code_names(code: Any) -> Iterator[str]:
    """Yield the names in a function's code, and in that of functions inside of it."""
    if isinstance(code, CodeType):
        yield from code.co_names
        for constant in code.co_consts:
            yield from _list_code_names(constant)


@dataclass(frozen=True)
class UnusedClassifier:
    """A part of a model that may turn its output into classes, and that its forward pass does not use.

    Args:
        name: Its name in the model.
        width: Width of its input.
        num_classes: Number of its classes.
        is_certain: Whether the shape has one reading, as that of a linear layer; the centers of classes have two.
    """

    name: str
    width: int
    num_classes: int
    is_certain: bool


def find_unused_classifiers(model: nn.Module, used: Collection[str]) -> tuple[UnusedClassifier, ...]:
    """List the linear layers and the matrices of class centers that the forward pass leaves to the loss.

    Args:
        model: The model.
        used: Names of the modules that its forward pass calls; what lies inside of them counts as used.

    >>> model = nn.ModuleDict({"body": nn.Linear(8, 4), "head": nn.Linear(4, 10)})
    >>> find_unused_classifiers(model, {"body"})
    (UnusedClassifier(name='head', width=4, num_classes=10, is_certain=True),)
    """
    classifiers = []
    for name, module in model.named_modules():
        parts = name.split(".")
        if not name or any(".".join(parts[:i]) in used for i in range(1, len(parts) + 1)):
            continue
        if isinstance(module, nn.Linear):
            classifiers.append(UnusedClassifier(name, module.in_features, module.out_features, True))
            continue
        for key, weight in module.named_parameters(recurse=False):
            if weight.ndim == 2:
                rows, columns = weight.shape
                path = f"{name}.{key}"
                classifiers += [UnusedClassifier(path, *sides, False) for sides in ((columns, rows), (rows, columns))]
    return tuple(classifiers)


def read_num_classes(model: nn.Module) -> int | None:
    """Return what a model or its children call ``num_classes``, as attribute or hyperparameter; None if they differ.

    The 0 of a backbone, which returns features, says nothing about the output if another child has parameters, too.

    >>> model = nn.Sequential(nn.Linear(8, 4))
    >>> model.num_classes = 4
    >>> read_num_classes(model)
    4
    """
    hyperparameters = getattr(model, "hparams", None)
    counts = [hyperparameters.get("num_classes")] if isinstance(hyperparameters, Mapping) else []
    counts = [getattr(model, "num_classes", None), *counts]
    if not any(_is_count(count) for count in counts):
        children = list(model.children())
        is_wrapper = sum(any(True for _ in child.parameters()) for child in children) == 1
        counts = [getattr(child, "num_classes", None) for child in children]
        counts = [count for count in counts if count != 0 or is_wrapper]
    distinct = {count for count in counts if _is_count(count)}
    return distinct.pop() if len(distinct) == 1 else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
