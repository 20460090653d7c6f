"""Types of explanation methods, and the registry of their names."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import ClassVar, TypeAlias

from torch import Tensor

from lightning_gradcam.capture.passes import CapturedPass
from lightning_gradcam.utils.registry import Registry

LayerMethod: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(activations, gradients)``, both ``(n, C, *s)``, to signed evidence ``(n, *s)``, without a final ReLU."""

PassMethod: TypeAlias = Callable[[CapturedPass], Mapping[str, Tensor]]
"""``(passes)`` to signed evidence ``(n, *s)`` per key, for methods that need more than one layer's tensors.

Keys are those of `CapturedPass.layers`. A method whose evidence is not at a layer has an attribute ``location``. Any
function of one argument is a pass method; `BasePassMethod` documents all attributes that this package reads.
"""

METHODS = Registry[LayerMethod | PassMethod]("method")
"""Methods by name; ``@METHODS.register("name")`` adds one."""


class BasePassMethod(ABC):
    """Base class of the pass methods of this package.

    Subclasses are frozen dataclasses whose fields are the method's options, so that they compare, print and load from
    YAML. A plain function of one argument needs no base class; it may have the attribute ``location``.
    """

    requires: ClassVar[str | None] = None
    """The optional package that the method imports, which is also the name of the extra that installs it."""

    enlarges_maps: ClassVar[bool] = False
    """Whether the evidence is computed from an enlarged map, so that it depends on where the map's cells lie."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in figures and keys."""

    @property
    def location(self) -> str | None:
        """The key of evidence that is not at a layer: `layer.PIXELS` or `layer.ATTENTION`; None for layers."""
        return None

    @property
    def neuron(self) -> tuple[int, ...] | None:
        """The neuron that is explained instead of the target, ``(channel, i, j)``; None for the target."""
        return None

    @abstractmethod
    def __call__(self, passes: CapturedPass) -> Mapping[str, Tensor]:
        """Return signed evidence ``(n, *s)`` per layer key, or under `location`."""


def is_pass_method(method: LayerMethod | PassMethod) -> bool:
    """Return whether a method is a `PassMethod`, which may use the whole graph, and not a `LayerMethod`."""
    return count_arguments(method) == 1


def get_location(method: LayerMethod | PassMethod) -> str | None:
    """Return the key of a method's evidence if it is not at a layer."""
    return getattr(method, "location", None)


def get_neuron(method: LayerMethod | PassMethod) -> tuple[int, ...] | None:
    """Return the neuron that a method explains instead of the target."""
    return getattr(method, "neuron", None)


def check_requirement(method: LayerMethod | PassMethod) -> None:
    """Check that the optional package of a method is installed, without importing it.

    Raises:
        ValueError: The package is missing.
    """
    package = getattr(method, "requires", None)
    if package is not None and find_spec(package) is None:
        raise ValueError(
            f"Expected {package} to be installed, which the method {getattr(method, 'name', method)!r} requires. "
            f"Run: pip install 'lightning_gradcam[{package}]'"
        )


def count_arguments(function: Callable[..., object]) -> int:
    """Count the positional arguments without a default.

    >>> count_arguments(lambda activations, gradients, scale=1: activations)
    2
    """
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
