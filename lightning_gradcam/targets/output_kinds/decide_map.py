"""What numbers at each position are: scores of classes, or an image, depths or heatmaps."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets.output_kinds.base import OutputKind
from lightning_gradcam.targets.output_kinds.clues import OutputClues
from lightning_gradcam.targets.output_kinds.image import PIXEL_REMEDY, ImageOutput
from lightning_gradcam.targets.output_kinds.parts import DenseMap
from lightning_gradcam.targets.output_kinds.segmentation import SegmentationOutput
from lightning_gradcam.targets.output_kinds.unknown import UnknownOutput

COARSEST_STRIDE = 8
"""The largest stride at which scores of classes are expected without other evidence; detectors' grids go beyond."""


_SEGMENTERS = re.compile(r"(^|[._])(seg|segmentation|segmenter|masks?)([._\d]|$)")
"""Names of modules that return scores of classes at each pixel."""


def decide_map(dense: DenseMap, probe: Probe, clues: OutputClues, further: Sequence[DenseMap] = ()) -> OutputKind:
    """Decide what numbers at each position are.

    Args:
        dense: The first dense part of the output, which is explained.
        probe: The images.
        clues: What else is known.
        further: The other dense parts.
    """
    name, reason = (
        _see_labels(dense, probe, clues) or _see_loss(dense, probe, clues) or _see_shape(dense, probe, clues, further)
    )
    match name:
        case "segmentation":
            label = next((label.name for label in clues.labels if label.kind == "masks"), "")
            return SegmentationOutput(max(dense.channels, 2), reason, label_name=label)
        case "image":
            return ImageOutput(None, reason, channels=dense.channels)
        case _:
            size = "×".join(map(str, dense.size))
            channels = f"{dense.channels} {'channel' if dense.channels == 1 else 'channels'}"
            return UnknownOutput(
                reason=reason,
                refusal=f"The model returns {channels} at {size} positions and {reason}, so it is open whether they "
                f"are scores of classes. {PIXEL_REMEDY}",
            )


def _see_labels(dense: DenseMap, probe: Probe, clues: OutputClues) -> tuple[str, str] | None:
    """Decide by masks, by numbers of the output's shape, or by labels that are not classes of its channels."""
    masks = [label for label in clues.labels if label.kind == "masks"]
    if masks:
        is_possible = masks[0].high < max(dense.channels, 2)
        return ("segmentation", str(masks[0])) if is_possible else ("other", f"{masks[0]} up to {masks[0].high:.0f}")
    shape = (dense.channels, *dense.size)
    for label in clues.labels:
        if label.kind == "shares" and label.shape == shape:
            return "segmentation", f"{label} that sum to 1 at each pixel"
        if label.kind == "values" and label.shape in (shape, shape[1:]) and clues.loss != "classes":
            return "image", str(label)
    classes = [label for label in clues.labels if label.kind == "classes"]
    if classes and all(label.high >= dense.channels for label in classes) and clues.loss != "classes":
        is_photo = _has_shape_of_images(dense, probe)
        return ("image" if is_photo else "other"), str(classes[0])
    return None


def _see_loss(dense: DenseMap, probe: Probe, clues: OutputClues) -> tuple[str, str] | None:
    """Decide by the loss of the training; binary cross-entropy may also compare an image with itself."""
    if clues.loss == "values":
        return "image", f"training uses {clues.losses['values']}"
    if clues.names_class:
        return "segmentation", "`target` names a class"
    if clues.loss == "classes":
        name = clues.losses["classes"]
        is_open = _has_shape_of_images(dense, probe) and ("binary" in name or "bce" in name.lower())
        return ("other" if is_open else "segmentation"), f"training uses {name}"
    return None


def _see_shape(dense: DenseMap, probe: Probe, clues: OutputClues, further: Sequence[DenseMap]) -> tuple[str, str]:
    """Decide by the name, the number of channels and the size; else these are scores of classes."""
    if dense.name.split(".")[0] in ("out", "logits") and dense.channels > 1:
        return "segmentation", f"its name is {dense.name!r}"
    if _SEGMENTERS.search(dense.maker.lower()):
        return "segmentation", f"it comes from {dense.maker!r}"
    for holder, count in (("data", clues.num_classes), ("model", clues.model_classes)):
        if count is not None and count == max(dense.channels, 2):
            return "segmentation", f"the {holder} has {count} classes"
    if _has_shape_of_images(dense, probe):
        return "other", "this is the shape of the images"
    if dense.channels == 1:
        return "other", "nothing tells that these are masks"
    largest = max(map(max, zip(*(part.size for part in (dense, *further)), strict=True)))
    if largest * COARSEST_STRIDE < max(probe.size) or (further and _is_pyramid(dense, further, probe)):
        return "other", "the grid is coarse, as a detector's is"
    return "segmentation", "nothing speaks against it"


def _has_shape_of_images(dense: DenseMap, probe: Probe) -> bool:
    """Return whether an output has the channels and the size of the images."""
    return dense.channels == probe.images.shape[1] and dense.size == probe.size


def _is_pyramid(dense: DenseMap, further: Sequence[DenseMap], probe: Probe) -> bool:
    """Return whether all of several parts are coarse grids of different sizes."""
    sizes = {part.size for part in (dense, *further)}
    return len(sizes) > 1 and all(4 * max(size) < max(probe.size) for size in sizes)
