"""From a user's choices to a watched probe: what one training run looks at, found as soon as it can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.explanation import NotExplainableError
from lightning_gradcam.gathering import Gatherer, without_foreign_labels
from lightning_gradcam.host import InPrecision
from lightning_gradcam.layers import Layers
from lightning_gradcam.methods import coerce_methods
from lightning_gradcam.pipeline import Methods, Plan, default_forward, prepare
from lightning_gradcam.probe import Forward, Probe, Target
from lightning_gradcam.render.colors import check_colormap
from lightning_gradcam.surroundings import find_class_names, find_forward, find_pixels
from lightning_gradcam.targets import TARGETS
from lightning_gradcam.watch import Display, Watch, choose_target


@dataclass(frozen=True)
class Choices:
    """What the user asked for.

    Args:
        layers: Where to look.
        method: How.
        target: What is explained; None is the label where there is one, else the predicted class.
        probe: The images, or how many to gather.
        forward: How the model is called; None finds out.
        display: How looks are shown; what it leaves open is found in the data.

    Raises:
        TypeError: A choice is of no known kind.
        ValueError: A choice is out of range, or two contradict one another.
    """

    layers: Layers
    method: Methods
    target: Target | None
    probe: Probe | int
    forward: Forward | None
    display: Display

    def __post_init__(self) -> None:
        coerce_methods(self.method)
        check_colormap(self.display.colormap)
        if isinstance(self.probe, int) and self.probe < 1:
            raise ValueError(f"Expected at least 1 image in `probe`, but got {self.probe}.")
        scale = self.display.scale
        if scale not in ("image", "shared") and (isinstance(scale, str) or not scale > 0):
            raise ValueError(f"Expected `scale` to be 'image', 'shared' or a number over 0, but got {scale!r}.")
        if self.display.film < 0 or self.display.film == 1:
            raise ValueError(f"Expected `film` to be 0 (none) or at least 2 looks, but got {self.display.film}.")
        if isinstance(self.probe, Probe) and self.target is TARGETS["label"] and self.probe.classes is None:
            raise ValueError("Expected labels of shape (N,) in `probe` for `target='label'`, but it has none.")


def coerce_probe(probe: object) -> Probe | int:
    """A number of images, or a probe: a `Probe`, or ``(images, labels)``.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(probe, Probe) or (isinstance(probe, int) and not isinstance(probe, bool)):
        return probe
    if isinstance(probe, (tuple, list)) and len(probe) == 2 and all(isinstance(part, Tensor) for part in probe):
        return Probe(probe[0], labels=probe[1])
    what = type(probe).__name__
    if isinstance(probe, Tensor):
        what = "a tensor: with labels say (images, labels), without Probe(images)"
    raise TypeError(f"Expected `probe` to be a number of images, a Probe, or (images, labels) tensors, but got {what}.")


class Session:
    """The probe of one run, from the first batch to the last look.

    Args:
        choices: What the user asked for.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.plan: Plan | None = None
        self.watch: Watch | None = None
        self.sources: dict[str, str] = {}
        self.batches = 0
        self._gatherer = Gatherer(choices.probe) if isinstance(choices.probe, int) else None

    @property
    def gathering(self) -> bool:
        """Whether batches are still wanted."""
        return self._gatherer is not None and self.watch is None

    @property
    def has_images(self) -> bool:
        """Whether there is at least one image to trace the model with."""
        return self._gatherer is None or len(self._gatherer) > 0

    @property
    def settled(self) -> bool:
        """Whether no further batch could change the probe."""
        return self._gatherer is None or self._gatherer.settled(self.plan.classes if self.plan else None)

    def offer(self, batch: Any) -> None:
        """Take from a batch what serves."""
        if self._gatherer is not None and self.watch is None:
            self.batches += 1
            self._gatherer.add(batch)

    def start_over(self) -> None:
        """Forget what was gathered: the same batches will come again."""
        if isinstance(self.choices.probe, int) and self.watch is None:
            self._gatherer, self.batches = Gatherer(self.choices.probe), 0

    def prepare(self, module: nn.Module, precision: Any) -> None:
        """Trace the model once on the images at hand and decide where to look.

        Raises:
            TypeError: A choice is of no known kind.
            ValueError: A choice does not fit the model.
            NotExplainableError: There are no images, or nothing in the model that can be explained.
        """
        probe = self._at_hand(module, precision)
        target = self.choices.target
        if isinstance(self.choices.probe, int) and target is TARGETS["label"]:
            target = None  # whether what was gathered are labels is seen once the classes are counted
        self.plan = prepare(
            module,
            probe,
            layers=self.choices.layers,
            method=self.choices.method,
            target=target or TARGETS["predicted"],
            forward=InPrecision(self.choices.forward or find_forward(module) or default_forward(module), precision),
        )

    def complete(
        self, module: nn.Module, precision: Any, holders: Sequence[Any], state: Mapping[str, Any] | None = None
    ) -> str:
        """Fix the probe: from here on the same images are watched.

        Args:
            module: The model.
            precision: The run's precision plugin.
            holders: Datasets and datamodules to look for normalisation and class names in.
            state: What `state_dict` returned in the run that goes on.

        Returns:
            A warning, where something found had to be put aside.
        """
        if state is not None:
            self.choices = replace(self.choices, probe=Probe.from_state_dict(state["probe"]))
            self._gatherer = None
        if self.plan is None:
            self.prepare(module, precision)
        assert self.plan is not None
        probe, warning = self._at_hand(module, precision), ""
        if isinstance(self.choices.probe, int):
            probe, warning = without_foreign_labels(probe, self.plan.classes)
        if self.choices.target is TARGETS["label"] and probe.classes is None:
            raise NotExplainableError(
                warning or "`target='label'` needs labels of shape (N,), but the batches hold none."
            )
        target = choose_target(self.choices.target, probe, self.plan)
        self.watch = Watch(probe, self.plan, target, self._display(probe, holders))
        if state is not None:
            self.watch.load_state_dict(state["watch"])
        self._gatherer = None
        return warning

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, plain containers of CPU tensors; empty before the probe is complete."""
        if self.watch is None:
            return {}
        return {"probe": self.watch.probe.state_dict(), "watch": self.watch.state_dict()}

    def describe(self) -> dict[str, str]:
        """What was chosen, and where it was found, in words."""
        return {} if self.watch is None else {**self.watch.describe(), **self.sources}

    def _at_hand(self, module: nn.Module, precision: Any) -> Probe:
        if self._gatherer is None:
            assert isinstance(self.choices.probe, Probe)
            probe = self.choices.probe.clone().to(_device(module))
            return replace(probe, images=precision.convert_input(probe.images))
        if not len(self._gatherer):
            seen = (
                f"{self.batches} batches were seen, none with" if self.batches else "no batch was seen, so there are no"
            )
            raise NotExplainableError(
                f"There is nothing to explain: {seen} images (floating-point tensors of shape (N, C, H, W)). "
                "Pass `probe=(images, labels)`, as the model takes them."
            )
        return self._gatherer.probe()

    def _display(self, probe: Probe, holders: Sequence[Any]) -> Display:
        display, count = self.choices.display, self.plan.classes if self.plan else None
        if display.pixels is None and probe.pixels is None:
            pixels, where = find_pixels(holders)
            if pixels is not None:
                display, self.sources["normalisation"] = replace(display, pixels=pixels), f"found in {where}"
        if display.names is None:
            names, where = find_class_names(holders)
            if names is not None and len(names) == count:
                display, self.sources["class names"] = replace(display, names=names), f"found in {where}"
        return display


def _device(module: nn.Module) -> torch.device:
    tensor = next(module.parameters(), next(module.buffers(), torch.empty(0)))
    return tensor.device
