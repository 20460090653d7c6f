"""Similarity of the maps to those of a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.stability import mean_and_error, spearman


@dataclass
class BaselineMaps:
    """Fixed maps that every snapshot is compared with.

    Args:
        maps: ``(N, *s)`` maps of the same images by key, on the device of the probe.
        similarities: ``(N,)`` similarities of the latest snapshot by key.
    """

    maps: Mapping[str, Tensor]
    similarities: dict[str, Tensor] = field(default_factory=dict)

    def measure(self, explanation: Explanation) -> dict[str, Tensor]:
        """Return the mean similarity of each map, under its curve's name."""
        numbers = {}
        for index, (key, maps) in enumerate(explanation.maps.items()):
            if key in self.maps:
                suffix = f"/{key}" if index else ""
                self.similarities[key] = spearman(self.maps[key], maps)
                numbers[f"baseline_similarity{suffix}"] = mean_and_error(self.similarities[key])[0]
        return numbers
