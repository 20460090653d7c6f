"""The callback's configuration, validated before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Literal

from torch import Tensor, nn

from lightning_gradcam.attacks import Attack, coerce_attack
from lightning_gradcam.baseline.baseline import Baseline
from lightning_gradcam.callback.validation import Validator, require, require_choice, require_type
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.errors import UnreadableError
from lightning_gradcam.explainer.fusion import Fuse, check_flips, check_fuse
from lightning_gradcam.layers import Layers
from lightning_gradcam.methods import METHODS, KernelShap, Lime
from lightning_gradcam.methods.resolve import Methods, coerce_methods
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.render.colors import check_colormap
from lightning_gradcam.targets import TARGETS, ClassScore, CosineSimilarity, freeze_classes
from lightning_gradcam.targets.output_kinds import OutputName, check_output_name
from lightning_gradcam.utils.cell_centers import Placement, check_placement
from lightning_gradcam.utils.interpolation import check_interpolation


@dataclass(frozen=True)
class CallbackConfig:
    """The arguments of `GradCAMCallback`, in the types that the run works with.

    Args:
        layers: The layers to explain, or a rule that selects them.
        method: One method, or several.
        target: The score that is explained; None for the label if there is one, else the predicted class.
        probe: The images, or the number of images to collect.
        output: What the model's output is; "auto" to infer it.
        forward: How the model is called; None for the default call.
        normalization: The normalization of the images; None to find it in the data.
        class_names: The names of the classes; None to find them in the data.
        display: Options of the figures.
        save_probe: Whether checkpoints hold the images or their hash.
        fuse: How the maps of several layers are fused; None for no fused map.
        flips: Whether mirrored images are explained, too.
        placement: Where the cells of a layer lie in the image.
        attack: An attack, by name or as a callable; None for no attack.
        chunk: The number of images explained at once; None for all.
        baseline: A baseline, or its file, that determines what is explained; see `with_baseline`.
        every_n_epochs: The number of epochs between snapshots.
        max_overhead: The fraction of the time that snapshots may take, in (0, 1); None for any.
        curves: Which curves loggers get.
        tag: The prefix of all names in the logger.
        on_error: Whether a failure of the explanations is a warning or an exception.
        baseline_maps: The baseline's maps by key, to compare with; set by `with_baseline`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument is out of range, or two of them contradict one another.
    """

    layers: Layers = "auto"
    method: Methods = "gradcam"
    target: Target | None = None
    probe: Probe | int = 16
    output: OutputName = "auto"
    forward: Forward | None = None
    normalization: Normalization | None = None
    class_names: Sequence[str] | None = None
    display: DisplayConfig = field(default_factory=DisplayConfig)
    save_probe: Literal["images", "hash"] = "images"
    fuse: Fuse | None = None
    flips: bool = False
    placement: Placement = "receptive_field"
    attack: str | Attack | None = None
    chunk: int | None = None
    baseline: str | os.PathLike[str] | Baseline | None = None
    every_n_epochs: int = 1
    max_overhead: float | None = None
    curves: Literal["main", "all"] = "main"
    tag: str = "gradcam"
    on_error: Literal["warn", "raise"] = "warn"
    baseline_maps: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, validate in VALIDATORS:
            validate(attrgetter(path)(self))
        check_target_and_probe(self.target, self.probe)

    def with_baseline(self) -> CallbackConfig:
        """Return the config with the probe, layers, methods and classes of its baseline, or itself without one.

        Raises:
            ValueError: The file is not a baseline, or holds no images, or an argument contradicts the baseline.
        """
        if self.baseline is None:
            return self
        try:
            baseline = self.baseline if isinstance(self.baseline, Baseline) else Baseline.load(self.baseline)
        except UnreadableError as error:
            raise ValueError(f"Expected `baseline` to be a file of `Baseline.save`, but {error}") from error
        determined = ("layers", "method", "target", "fuse", "flips", "placement")
        conflicts = [name for name in determined if getattr(self, name) != getattr(CallbackConfig, name)]
        if not isinstance(self.probe, int) or conflicts:
            name = conflicts[0] if conflicts else "probe"
            raise ValueError(
                f"`{name}` cannot be combined with `baseline`, which determines what is explained. "
                f"Remove `{name}`, or record another baseline."
            )
        probe, normalization = baseline.probe, self.normalization
        if normalization is not None and baseline.images is not None:
            probe = replace(probe, images=normalization.normalize(baseline.images), pixels=normalization)
        layers, methods = baseline.locations
        classes = baseline.explanation.classes
        return replace(
            self,
            probe=probe,
            layers=layers,
            method=methods,
            target=self.target if classes is None else freeze_classes(classes),
            output=baseline.metadata.output if self.output == "auto" else self.output,
            placement=baseline.metadata.placement,
            baseline_maps=baseline.explanation.maps,
        )


def check_method_speed(methods: Methods) -> None:
    """Raise a ValueError if a method that is too slow for training is chosen by its name alone."""
    names = [methods] if isinstance(methods, str) or not isinstance(methods, Sequence) else methods
    for name in names:
        method = METHODS[name] if isinstance(name, str) else None
        if isinstance(method, (Lime, KernelShap)):
            raise ValueError(
                f"`method={name!r}` needs {method.samples} forward passes per image, which is too slow during "
                f"training. Use `explain(..., method={name!r})`, or pass "
                f"`lightning_gradcam.{type(method).__name__}(samples=100)` explicitly."
            )


def check_attack(attack: str | Attack | None) -> None:
    """Raise a ValueError or TypeError if there is no such attack."""
    if attack is not None:
        coerce_attack(attack)


def check_target_and_probe(target: Target | None, probe: Probe | int) -> None:
    """Raise a ValueError if the probe lacks what the target explains."""
    if isinstance(probe, Probe):
        has_labels = probe.multilabel or probe.classes is not None or probe.has_masks
        if target is TARGETS["label"] and not has_labels:
            raise ValueError("Expected labels of shape (N,) in `probe` for `target='label'`, but it has none.")
    elif isinstance(target, CosineSimilarity):
        raise ValueError(
            "`target='cosine'` requires `probe=Probe(images, references=...)`, because batches do not contain the "
            "image or embedding to compare with."
        )
    elif isinstance(target, ClassScore) and target.per_image:
        raise ValueError(
            "A `target` with one class per image requires `probe=(images, labels)`, because the order of collected "
            "images is not known in advance."
        )


def is_scale(scale: Any) -> bool:
    """Return whether a value is "image", "shared" or a positive number."""
    return scale in ("image", "shared") or (not isinstance(scale, str) and scale > 0)


VALIDATORS: Sequence[tuple[str, Validator]] = (
    ("layers", require_type("layers", str, nn.Module, Layer, list, tuple, or_callable=True)),
    ("forward", require_type("forward", type(None), or_callable=True)),
    ("normalization", require_type("pixels", Normalization, type(None))),
    ("class_names", require_type("class_names", list, tuple, type(None))),
    ("method", coerce_methods),
    ("method", check_method_speed),
    ("output", check_output_name),
    ("save_probe", require_choice("save_probe", "images", "hash")),
    ("fuse", check_fuse),
    ("attack", check_attack),
    ("flips", check_flips),
    ("placement", check_placement),
    ("chunk", require_type("chunk", int, type(None))),
    ("chunk", require(lambda size: size is None or size >= 1, "Expected `chunk` to be None or at least 1 image")),
    ("probe", require(lambda probe: isinstance(probe, Probe) or probe >= 1, "Expected at least 1 image in `probe`")),
    ("display.film", require_type("film", int)),
    (
        "display.film",
        require(lambda film: film == 0 or 2 <= film <= 16, "Expected `film` to be 0 (none) or 2 to 16 snapshots"),
    ),
    ("display.scale", require_type("scale", str, int, float)),
    ("display.scale", require(is_scale, "Expected `scale` to be 'image', 'shared' or a positive number")),
    ("display.interpolation", check_interpolation),
    ("display.colormap", check_colormap),
    ("every_n_epochs", require_type("every_n_epochs", int)),
    ("every_n_epochs", require(lambda epochs: epochs >= 1, "Expected `every_n_epochs` of at least 1")),
    ("max_overhead", require_type("max_overhead", int, float, type(None))),
    (
        "max_overhead",
        require(
            lambda fraction: fraction is None or 0 < fraction < 1,
            "Expected `max_overhead` to be None or a fraction between 0 and 1",
        ),
    ),
    ("curves", require_choice("curves", "main", "all")),
    ("tag", require_type("tag", str)),
    ("tag", require(lambda tag: bool(tag.strip("/")), "Expected a `tag` of at least one character")),
    ("on_error", require_choice("on_error", "warn", "raise")),
)
"""The validators of each field, in the order in which they run; they name the callback's argument."""
