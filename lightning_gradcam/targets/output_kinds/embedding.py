"""Embeddings: vectors whose coordinates are not classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets.embeddings import EmbeddingNorm
from lightning_gradcam.targets.output_kinds.names import OutputName
from lightning_gradcam.targets.output_kinds.numbers import NumbersOutput
from lightning_gradcam.targets.registry import TARGETS


@dataclass(frozen=True)
class EmbeddingOutput(NumbersOutput):
    """Embeddings ``(N, width)``.

    ``"predicted"`` explains the norm, see `EmbeddingNorm`; a number explains that coordinate.

    Args:
        width: Number of coordinates.
    """

    width: int = 0

    name: ClassVar[OutputName] = "embedding"
    other_targets: ClassVar[str] = "`target='norm'`, `target='cosine'` with `references`"

    def describe(self) -> str:
        """Return the number of coordinates."""
        return f"an embedding of {self.width} coordinates"

    def announce(self, target: Target | None) -> str:
        """Return that the norm is explained, if the kind was inferred."""
        if self.is_chosen or target is not TARGETS["predicted"]:
            return ""
        return (
            f"The output is read as {self.describe()}, since {self.reason}: maps show the evidence for its norm. Pass "
            "`target='cosine'` with `references` to explain a similarity, `output='classes'` if these are logits, or "
            "`output='embedding'` to confirm."
        )

    @property
    def num_columns(self) -> int:
        """Number of coordinates."""
        return self.width

    def score_all(self) -> Target:
        """Return the norm."""
        return EmbeddingNorm()
