"""The source of a run's images: passed by the user, or collected from batches."""

from __future__ import annotations

from typing import Any

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.collector import ProbeCollector
from lightning_gradcam.probe.probe import Probe


class ProbeSource:
    """The images of one run, until the monitor takes them over.

    Args:
        request: The images, or the number of images to collect.
    """

    def __init__(self, request: Probe | int) -> None:
        self.request = request
        self._collector = ProbeCollector(request) if isinstance(request, int) else None
        self._batches = 0
        self.name = ""
        """The kind of batches that images come from: "validation" or "training"; empty for given images."""

    @property
    def is_collecting(self) -> bool:
        """Whether images come from batches."""
        return self._collector is not None

    @property
    def label_name(self) -> str:
        """The name of the labels in the batches; empty for given images."""
        return "" if self._collector is None else self._collector.label_name

    @property
    def has_images(self) -> bool:
        """Whether there is at least one image to trace the model with."""
        return self._collector is None or len(self._collector) > 0

    def is_complete(self, classes: int | None) -> bool:
        """Return whether no further batch could change the images, for a model with this number of classes."""
        return self._collector is None or self._collector.is_complete(classes)

    def add_batch(self, batch: Any, name: str) -> None:
        """Collect images from a batch; ``name`` is the kind of batch in the summary."""
        if self._collector is not None:
            self._batches, self.name = self._batches + 1, name
            self._collector.add(batch)

    def restart(self) -> None:
        """Discard what was collected, because the same batches come again."""
        if self._collector is not None and isinstance(self.request, int):
            self._collector, self._batches = ProbeCollector(self.request), 0

    def release(self) -> None:
        """Stop collecting and free the images, which the monitor holds now."""
        self._collector = None

    def get_probe(self) -> Probe:
        """Return the images available now; given ones as a copy.

        Raises:
            NotExplainableError: There are no images.
        """
        if self._collector is None:
            assert isinstance(self.request, Probe)
            return self.request.clone()
        if not len(self._collector):
            reason = (
                f"{self._batches} batches were seen, none with images"
                if self._batches
                else "no batch was seen, so there are no images"
            )
            raise NotExplainableError(
                f"There is nothing to explain: {reason} (floating-point tensors of shape (N, C, H, W)). "
                "Pass `probe=(images, labels)`, preprocessed for the model; for signals (N, L), `signals[:, None]` "
                "and `forward=lambda model, probe: model(probe.images[:, 0])`."
            )
        return self._collector.probe()
