"""Check of inferred layouts: a map is one only if a change of a patch changes the map at the patch's own place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.capture.hooks import register_hooks
from lightning_gradcam.capture.layouts import holds_tokens
from lightning_gradcam.capture.outputs import list_float_tensors
from lightning_gradcam.capture.random_state import reseed
from lightning_gradcam.errors import ForwardError
from lightning_gradcam.layers.graded_outputs import GradedOutput
from lightning_gradcam.layers.patch_changes import (
    Pattern,
    change_patches,
    compare_halves,
    draw_pattern,
    measure_agreement,
    remove_axis_means,
)
from lightning_gradcam.layers.shown_layouts import find_shown_layout
from lightning_gradcam.layers.spatial_grid import NO_GRID, GridReading
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward

_MIN_CELLS = 16
"""Fewer cells are not checked: with so few, cells agree with patches by chance."""

_PASSES = 4
"""Most patterns that are tried while it is open whether a layout is right; nearly always the first one shows it."""

_FAINT = 0.25
"""Correlation that confirms a layout that is known."""

_REPEATED = 0.7
"""Correlation between the changes for opposite patterns above which they depend on places."""


@dataclass(frozen=True)
class CheckedReading:
    """A reading after the check.

    Args:
        reading: The inferred reading, or the one that the changes show.
        misplaced: Whether its cells do not follow the image, and no other layout is known that does.
    """

    reading: GridReading
    misplaced: bool = False


def check_readings(
    model: nn.Module, probe: Probe, forward: Forward, outputs: Sequence[GradedOutput]
) -> list[CheckedReading]:
    """Check the readings of a traced pass by changing patches of its images; correct them where another layout fits.

    One more pass without grad, and only if there is a layout that autograd's graph does not show; more of them if the
    first leaves one open that may be chosen. Call it inside of `isolated`, with the model as it was traced.

    Args:
        model: The model.
        probe: The images of the traced pass.
        forward: Calls the model.
        outputs: What the modules returned.
    """
    results = [CheckedReading(output.reading) for output in outputs]
    checked = [i for i, output in enumerate(outputs) if _is_checkable(output)]
    verdicts = _find_proven(outputs, checked)
    inferred = [i for i in checked if not outputs[i].is_certain and i not in verdicts]
    if not inferred or not probe.images.is_floating_point():
        return results
    coarsest = min((outputs[i].reading.grid or () for i in inferred), key=math.prod)
    last_by_reading = {outputs[i].reading: i for i in inferred}  # the ones that rules choose from
    patterns: list[Pattern] = []
    for seed in range(_PASSES):
        pattern = draw_pattern(probe.size, coarsest, seed // 2)
        if seed % 2:
            pattern = pattern._replace(signs=-pattern.signs)  # the other patches, and other noise
        open_ones = [i for i in checked if i not in verdicts]
        try:
            _measure_changes(model, probe, forward, pattern, [outputs[i] for i in open_ones], seed)
        except ForwardError:
            return results  # the model does not take changed images; its layouts remain inferred
        patterns.append(pattern)
        for i in open_ones:
            if (grid_reading := find_shown_layout(outputs[i], patterns, probe.size)) is not None:
                verdicts[i] = grid_reading
        for i in last_by_reading.values():
            if i not in verdicts and (earlier_reading := _confirm_earlier(i, outputs, verdicts, patterns)) is not None:
                verdicts[i] = earlier_reading
        if all(i in verdicts or not _may_follow_images(outputs[i], patterns) for i in last_by_reading.values()):
            break
    confirmed: set[GridReading] = set()
    doubted: set[GridReading] = set()
    for i in checked:
        reading = outputs[i].reading
        grid_reading = verdicts.get(i) or _confirm_earlier(i, outputs, verdicts, patterns)
        results[i] = _conclude(outputs[i], grid_reading, reading in confirmed, reading in doubted)
        if grid_reading == reading:
            confirmed.add(reading)
        if results[i].misplaced:
            doubted.add(reading)
    return results


def _find_proven(outputs: Sequence[GradedOutput], checked: Sequence[int]) -> dict[int, GridReading]:
    """Find the readings that the graph shows, of the outputs ``checked``.

    What a module returns on the way from one of them to another, in the same layout, is a branch that is added to it.
    """
    proven: dict[int, GridReading] = {}
    shown_later: set[GridReading] = set()
    for i in reversed(checked):
        output = outputs[i]
        if output.is_proven:
            shown_later.add(output.reading)
        if output.is_proven or (output.reading in shown_later and not output.needs_proof):
            proven[i] = output.reading
    return proven


def _confirm_earlier(
    index: int, outputs: Sequence[GradedOutput], verdicts: Mapping[int, GridReading], patterns: Sequence[Pattern]
) -> GridReading | None:
    """Return the layout that changes showed for an earlier output read in the same way, if this one agrees faintly.

    What the layers in between spread over all cells may hide the places, but does not move them.
    """
    output = outputs[index]
    earlier = [
        grid_reading for i, grid_reading in verdicts.items() if i < index and outputs[i].reading == output.reading
    ]
    if not earlier or output.needs_proof:
        return None
    agreement = measure_agreement(output.contrasts, patterns, earlier[-1].to_grid)
    return earlier[-1] if agreement.correlation >= _FAINT else None


def _is_checkable(output: GradedOutput) -> bool:
    return output.is_reached and output.reading.grid is not None and math.prod(output.reading.grid) >= _MIN_CELLS


def _measure_changes(
    model: nn.Module, probe: Probe, forward: Forward, pattern: Pattern, outputs: Sequence[GradedOutput], seed: int
) -> None:
    """Run the model on changed images, and add to each output how it changed."""
    # The rows of a single image are the halves: it is changed twice, the second time in the other patches.
    signs = [pattern.signs] if len(probe) > 1 else [pattern.signs, -pattern.signs]
    contrasts: list[dict[int, Tensor]] = []
    for half in signs:
        meter = _ChangeMeter({(o.maker, o.call): o for o in outputs}, len(probe))
        reseed(probe.images.device)
        changed = replace(probe, images=change_patches(probe.images, half, seed))
        hooks = [(module.register_forward_hook, meter.measure) for module in {o.maker for o in outputs}]
        with torch.no_grad(), register_hooks(hooks):
            forward(model, changed)
        contrasts.append(meter.contrasts)
    for output in outputs:
        halves = [c[id(output)] for c in contrasts if id(output) in c]
        if len(halves) == len(signs):
            output.contrasts.append(halves[0] if len(halves) == 1 else halves[0] - halves[1])


@dataclass
class _ChangeMeter:
    """Forward hook that compares outputs with those of the traced pass."""

    outputs: Mapping[tuple[nn.Module, int], GradedOutput]
    images: int
    calls: Counter[nn.Module] = field(default_factory=Counter)
    contrasts: dict[int, Tensor] = field(default_factory=dict)

    def measure(self, module: nn.Module, _args: Any, result: Any) -> None:
        """Measure the change of an output."""
        output = self.outputs.get((module, self.calls[module]))
        self.calls[module] += 1
        tensor = next(list_float_tensors(result), None)
        if output is not None and tensor is not None and tensor.shape == output.value.shape:
            change = tensor.detach() - output.value.detach()
            self.contrasts[id(output)] = compare_halves(change, output.reading.to_grid, self.images)


def _may_follow_images(output: GradedOutput, patterns: Sequence[Pattern]) -> bool:
    """Return whether further patterns may show the layout of an output that is still open."""
    if len(output.contrasts) < len(patterns):
        return False
    if output.needs_proof:
        return measure_agreement(output.contrasts, patterns, output.reading.to_grid).z > 1
    return len(patterns) < 2 or _depends_on_places(output)


def _depends_on_places(output: GradedOutput) -> bool:
    """Return whether it matters to the positions of an output which patches are changed, wherever these are.

    The first two patterns are opposite, with different noise. Where attention spreads every change over all positions,
    as it may in a model with random weights, what is left is chance.
    """
    if len(output.contrasts) < 2:
        return False
    first, second = (remove_axis_means(contrast.flatten()) for contrast in output.contrasts[:2])
    spread = first.norm() * second.norm()
    return bool(spread > 0 and -(first @ second) / spread > _REPEATED)


def _conclude(
    output: GradedOutput, grid_reading: GridReading | None, is_shown_earlier: bool, is_doubted: bool
) -> CheckedReading:
    """Return the final reading of an output.

    Args:
        output: The output.
        grid_reading: The layout that its changes show, if they do.
        is_shown_earlier: Whether changes showed the inferred layout for an earlier output: then there are tokens on
            this grid, and later ones need no proof of their own.
        is_doubted: Whether an earlier output of the same reading is misplaced.
    """
    if grid_reading is not None:
        return CheckedReading(grid_reading)
    if output.is_certain:
        return CheckedReading(output.reading)
    has_tokens = holds_tokens(output.reading.to_grid)
    if output.needs_proof and not (has_tokens and is_shown_earlier):
        return CheckedReading(output.reading, misplaced=True) if has_tokens else CheckedReading(NO_GRID)
    return CheckedReading(output.reading, misplaced=is_doubted or _depends_on_places(output))
