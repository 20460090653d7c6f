"""Where a run's images come from: they are given, or gathered from the batches that Lightning hands over."""

from __future__ import annotations

from typing import Any

from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.collector import ProbeCollector
from lightning_gradcam.probe.probe import Probe


class ProbeSource:
    """The images of one run, until they are watched.

    Args:
        asked: The images, or how many of them are to be gathered.
    """

    def __init__(self, asked: Probe | int) -> None:
        self._asked = asked
        self._gatherer = ProbeCollector(asked) if isinstance(asked, int) else None
        self.batches, self.source = 0, ""

    @property
    def gathers(self) -> bool:
        """Whether images come from batches."""
        return self._gatherer is not None

    @property
    def has_images(self) -> bool:
        """Whether there is at least one image to trace the model with."""
        return self._gatherer is None or len(self._gatherer) > 0

    def settled(self, classes: int | None) -> bool:
        """Whether no further batch could change them, as far as the number of classes is known."""
        return self._gatherer is None or self._gatherer.is_complete(classes)

    def offer(self, batch: Any, source: str) -> None:
        """Take from a batch what serves; ``source`` is what the choices call it."""
        if self._gatherer is not None:
            self.batches, self.source = self.batches + 1, source
            self._gatherer.add(batch)

    def start_over(self) -> None:
        """Forget what was gathered: the same batches will come again."""
        if self._gatherer is not None and isinstance(self._asked, int):
            self._gatherer, self.batches = ProbeCollector(self._asked), 0

    def end(self) -> None:
        """Keep nothing that was gathered: the images are watched."""
        self._gatherer = None

    def probe(self) -> Probe:
        """The images at hand, the caller's own.

        Raises:
            NotExplainableError: There are none.
        """
        if self._gatherer is None:
            assert isinstance(self._asked, Probe)
            return self._asked.clone()
        if not len(self._gatherer):
            seen = (
                f"{self.batches} batches were seen, none with" if self.batches else "no batch was seen, so there are no"
            )
            raise NotExplainableError(
                f"There is nothing to explain: {seen} images (floating-point tensors of shape (N, C, H, W)). "
                "Pass `probe=(images, labels)`, as the model takes them; for signals (N, L), `signals[:, None]` "
                "and `forward=lambda model, probe: model(probe.images[:, 0])`."
            )
        return self._gatherer.probe()
