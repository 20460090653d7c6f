"""Methods with options: other gradients, smoothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lightning_gradcam.methods import METHODS, LayerMethod, eigencam, eigengradcam, project_principal


@dataclass(frozen=True)
class Variant:
    """A method with other gradients, or smoothed; a `LayerMethod` itself.

    Args:
        method: A registered method of (activations, gradients).
        gradients: ``"signed"`` as they are, ``"relu"`` only what speaks for the class, or ``"abs"`` all as if it did.
        smooth: ``"principal"``: the channels' shares of the evidence are not summed up, but their first principal
            component is taken (``eigen_smooth`` in pytorch-grad-cam; see `project_principal` for its sign).

    Raises:
        TypeError: The method is no name.
        ValueError: A choice is unknown, or the method takes no gradients or is a principal component already.

    >>> Variant("gradcam", gradients="abs").name
    'gradcam, abs gradients'
    """

    method: str
    gradients: Literal["signed", "relu", "abs"] = "signed"
    smooth: Literal["principal"] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, str):
            raise TypeError(f"Expected the name of a registered method, but got {self.method!r}: `METHODS.register`.")
        equation = METHODS.resolve(self.method)
        if self.gradients not in _GRADIENTS:
            raise ValueError(f"Expected `gradients` to be 'signed', 'relu' or 'abs', but got {self.gradients!r}.")
        if self.smooth not in (None, "principal"):
            raise ValueError(f"Expected `smooth` to be None or 'principal', but got {self.smooth!r}.")
        if equation is eigencam:
            raise ValueError("Expected a method of gradients, but 'eigencam' takes none: use it as it is.")
        if equation is eigengradcam and self.smooth:
            raise ValueError("Expected a sum over channels to smooth, but 'eigengradcam' is a principal component.")

    @property
    def equation(self) -> LayerMethod:
        """What is varied."""
        return METHODS.resolve(self.method)  # type: ignore[return-value]  # pass methods raise where they are called

    @property
    def name(self) -> str:
        """How pictures and keys name it."""
        gradients = "" if self.gradients == "signed" else f", {self.gradients} gradients"
        return self.method + gradients + (", smoothed" if self.smooth else "")

    def __call__(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Signed evidence ``(n, *s)``."""
        varied = _GRADIENTS[self.gradients](gradients)
        if self.smooth is None:
            return self.equation(activations, varied)
        # A sum over channels, given one channel at a time, shows what it sums up.
        flat = activations.flatten(0, 1)[:, None], varied.flatten(0, 1)[:, None]
        return project_principal(self.equation(*flat).reshape(activations.shape))


_GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "signed": lambda gradients: gradients,
    "relu": lambda gradients: gradients.relu(),
    "abs": lambda gradients: gradients.abs(),
}


def parse_variant(name: str) -> Variant | None:
    """The variant of a registered method that has this name, where there is one.

    >>> parse_variant("layercam, relu gradients, smoothed")
    Variant(method='layercam', gradients='relu', smooth='principal')
    """
    method, *options = name.split(", ")
    smooth: Literal["principal"] | None = "principal" if "smoothed" in options else None
    for gradients in _GRADIENTS:
        with contextlib.suppress(ValueError):  # of methods that do not vary so
            found = Variant(method, gradients, smooth)  # type: ignore[arg-type]  # one of the choices
            if found.name == name:
                return found
    return None
