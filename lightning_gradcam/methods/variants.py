"""Variants of the CAM equations: transformed gradients and principal-component smoothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lightning_gradcam.methods import METHODS, LayerMethod, eigencam, eigengradcam, project_principal


@dataclass(frozen=True)
class Variant:
    """A registered equation with transformed gradients, or smoothed; a `LayerMethod` itself.

    Args:
        method: The name of a registered method of (activations, gradients).
        gradients: ``"signed"``, unchanged; ``"relu"``, the positive part, which favors the class; or ``"abs"``, the
            absolute value.
        smooth: ``"principal"`` replaces the sum over the channels' contributions by their first principal component
            (``eigen_smooth`` in pytorch-grad-cam; see `project_principal` for its sign).

    Raises:
        TypeError: The method is not a name.
        ValueError: An option is unknown, the method ignores gradients, or it already is a principal component.

    >>> Variant("gradcam", gradients="abs").name
    'gradcam, abs gradients'
    """

    method: str
    gradients: Literal["signed", "relu", "abs"] = "signed"
    smooth: Literal["principal"] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, str):
            raise TypeError(
                f"Expected `method` to be the name of a registered method, but got {self.method!r}. Register a "
                "function with `METHODS.register(name)` first."
            )
        equation = METHODS.resolve(self.method)
        if self.gradients not in _GRADIENT_TRANSFORMS:
            raise ValueError(f"Expected `gradients` to be 'signed', 'relu' or 'abs', but got {self.gradients!r}.")
        if self.smooth not in (None, "principal"):
            raise ValueError(f"Expected `smooth` to be None or 'principal', but got {self.smooth!r}.")
        if equation is eigencam:
            raise ValueError(
                "Expected `method` to use gradients, but got 'eigencam', which ignores them. Use `method='eigencam'` "
                "without a `Variant`."
            )
        if equation is eigengradcam and self.smooth:
            raise ValueError(
                "Expected `method` to sum over channels, but got 'eigengradcam', which already is a principal "
                "component. Use `smooth=None`."
            )

    @property
    def equation(self) -> LayerMethod:
        """The registered equation."""
        return METHODS.resolve(self.method)  # type: ignore[return-value]  # pass methods raise when called

    @property
    def name(self) -> str:
        """The name in figures and keys."""
        gradients = "" if self.gradients == "signed" else f", {self.gradients} gradients"
        return self.method + gradients + (", smoothed" if self.smooth else "")

    def __call__(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return signed evidence ``(n, *s)``."""
        transformed = _GRADIENT_TRANSFORMS[self.gradients](gradients)
        if self.smooth is None:
            return self.equation(activations, transformed)
        # Equations sum over channels: with one channel at a time, they return the terms of the sum.
        single_channels = activations.flatten(0, 1)[:, None], transformed.flatten(0, 1)[:, None]
        return project_principal(self.equation(*single_channels).reshape(activations.shape))


_GRADIENT_TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "signed": lambda gradients: gradients,
    "relu": lambda gradients: gradients.relu(),
    "abs": lambda gradients: gradients.abs(),
}


def parse_variant(name: str) -> Variant | None:
    """Return the variant that has this name, or None.

    >>> parse_variant("layercam, relu gradients, smoothed")
    Variant(method='layercam', gradients='relu', smooth='principal')
    """
    method, *options = name.split(", ")
    smooth: Literal["principal"] | None = "principal" if "smoothed" in options else None
    for gradients in _GRADIENT_TRANSFORMS:
        with contextlib.suppress(ValueError):  # methods without this variant
            variant = Variant(method, gradients, smooth)  # type: ignore[arg-type]  # a key of the transforms
            if variant.name == name:
                return variant
    return None
