"""What a user asks for, checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from lightning_gradcam.attacks import Attack, coerce_attack
from lightning_gradcam.baseline.baseline import Baseline
from lightning_gradcam.capture.layer import Layer
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
from lightning_gradcam.utils.interpolation import check_interpolation


@dataclass(frozen=True)
class CallbackConfig:
    """What the user asked for.

    Args:
        layers: Where to look.
        method: How.
        target: What is explained; None is the label where there is one, else the predicted class.
        probe: The images, or how many to gather.
        forward: How the model is called; None finds out.
        display: How looks are shown; what it leaves open is found in the data.
        save_probe: What checkpoints hold of the images.
        fuse: How several layers become one map, where they do.
        flips: Whether mirrored images are explained, too.
        attack: What images are attacked with, by name or as a callable; None for no attack.
        chunk: How many images are explained at once; None is all.
        baseline: Whose images, layers, methods and classes are taken, and compared with.

    Raises:
        TypeError: A choice is of no known kind.
        ValueError: A choice is out of range, or two contradict one another.
    """

    layers: Layers
    method: Methods
    target: Target | None
    probe: Probe | int
    forward: Forward | None
    display: DisplayConfig
    save_probe: Literal["images", "hash"] = "images"
    fuse: Fuse | None = None
    flips: bool = False
    attack: str | Attack | None = None
    baseline: Baseline | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        display = self.display
        check_kind("layers", self.layers, (str, nn.Module, Layer, list, tuple), or_callable=True)
        check_kind("forward", self.forward, (type(None),), or_callable=True)
        check_kind("pixels", display.pixels, (Normalization, type(None)))
        check_kind("class_names", display.names, (list, tuple, type(None)))
        check_kind("film", display.film, (int,))
        check_kind("scale", display.scale, (str, int, float))
        coerce_methods(self.method)
        check_patience(self.method)
        if self.save_probe not in ("images", "hash"):
            raise ValueError(f"Expected `save_probe` to be 'images' or 'hash', but got {self.save_probe!r}.")
        check_fuse(self.fuse)
        if self.attack is not None:
            coerce_attack(self.attack)
        check_flips(self.flips)
        check_kind("chunk", self.chunk, (int, type(None)))
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"Expected `chunk` to be None or at least 1 image, but got {self.chunk}.")
        check_interpolation(display.interpolation)
        check_colormap(display.colormap)
        if isinstance(self.probe, int) and self.probe < 1:
            raise ValueError(f"Expected at least 1 image in `probe`, but got {self.probe}.")
        if display.scale not in ("image", "shared") and (isinstance(display.scale, str) or not display.scale > 0):
            raise ValueError(f"Expected `scale` to be 'image', 'shared' or a number over 0, but got {display.scale!r}.")
        if display.film != 0 and not 2 <= display.film <= 16:
            raise ValueError(f"Expected `film` to be 0 (none) or 2 to 16 looks, but got {display.film}.")
        labelled = not isinstance(self.probe, Probe) or self.probe.multilabel or _says_label(self.probe)
        if self.target is TARGETS["label"] and not labelled:
            raise ValueError("Expected labels of shape (N,) in `probe` for `target='label'`, but it has none.")
        if isinstance(self.probe, int) and isinstance(self.target, CosineSimilarity):
            raise ValueError(
                "Expected `probe=Probe(images, references=...)` beside the target 'cosine': what an image is compared "
                "with, another image or an embedding, is not found in batches."
            )
        if isinstance(self.probe, int) and isinstance(self.target, ClassScore) and self.target.per_image:
            raise ValueError(
                "Expected `probe=(images, labels)` beside a `target` with one class per image: gathered images come in "
                "no order that could be known."
            )


def apply_baseline(choices: CallbackConfig, baseline: str | os.PathLike[str] | Baseline) -> CallbackConfig:
    """The same choices for the images, layers, methods and classes of a baseline.

    Raises:
        ValueError: The file is no baseline, or holds no images, or other images, layers, methods or targets are chosen.
    """
    kept = baseline if isinstance(baseline, Baseline) else Baseline.load(baseline)
    plain = {"layers": "auto", "method": "gradcam", "target": None, "fuse": None, "flips": False}
    chosen = [name for name, default in plain.items() if getattr(choices, name) != default]
    if not isinstance(choices.probe, int) or chosen:
        raise ValueError(
            f"Expected no `{'probe' if not chosen else chosen[0]}` beside `baseline`, which says what is explained: "
            "leave it out, or record another baseline."
        )
    probe, pixels = kept.probe, choices.display.pixels
    if pixels is not None and kept.images is not None:
        probe = replace(probe, images=pixels.normalize(kept.images), pixels=pixels)
    layers, methods = kept.locations
    classes = kept.explanation.classes
    target = choices.target if classes is None else freeze_classes(classes)
    return replace(choices, probe=probe, layers=layers, method=methods, target=target, baseline=kept)


def check_patience(methods: Methods) -> None:
    """Raise a ValueError where one that is too slow for looks is chosen by its name alone."""
    several = [methods] if isinstance(methods, str) or not isinstance(methods, Sequence) else methods
    for name in several:
        method = METHODS[name] if isinstance(name, str) else None
        if isinstance(method, (Lime, KernelShap)):
            raise ValueError(
                f"Expected a `method` that a look has time for, but {name!r} makes {method.samples} passes for each "
                f"image. `explain(..., method={name!r})` is the place for it; where it is meant here, pass the object: "
                f"`lightning_gradcam.{type(method).__name__}(samples=100)`."
            )


def check_kind(name: str, value: object, kinds: tuple[type, ...], or_callable: bool = False) -> None:
    """Raise a TypeError where an argument is of none of these kinds; True and False are no numbers."""
    if (isinstance(value, kinds) and not (isinstance(value, bool))) or (or_callable and callable(value)):
        return
    choices = [kind.__name__.replace("NoneType", "None") for kind in kinds] + ["a callable"] * or_callable
    raise TypeError(f"Expected `{name}` to be {' or '.join(choices)}, but got {type(value).__name__}: {value!r}.")


def _says_label(probe: Probe) -> bool:
    """Whether there is a class for each image, or one for each of its pixels."""
    return probe.classes is not None or probe.has_masks


def check_schedule(every_n_epochs: int, tag: str, on_error: str, max_overhead: float | None) -> None:
    """Raise a TypeError or ValueError where the callback is told wrongly when to look, and what to do with it."""
    check_kind("every_n_epochs", every_n_epochs, (int,))
    check_kind("tag", tag, (str,))
    check_kind("max_overhead", max_overhead, (int, float, type(None)))
    if max_overhead is not None and not 0 < max_overhead < 1:
        raise ValueError(f"Expected `max_overhead` to be None or a share between 0 and 1, but got {max_overhead}.")
    if every_n_epochs < 1:
        raise ValueError(f"Expected `every_n_epochs` of at least 1, but got {every_n_epochs}.")
    if not tag.strip("/"):
        raise ValueError(f"Expected a `tag` of at least one character, but got {tag!r}.")
    if on_error not in ("warn", "raise"):
        raise ValueError(f"Expected `on_error` to be 'warn' or 'raise', but got {on_error!r}.")


def short_repr(value: object) -> str:
    """A choice in few words, for a `repr`.

    >>> import torch
    >>> short_repr((torch.rand(4, 3, 8, 8), torch.arange(4))), short_repr(["layer3", "layer4"]), short_repr(len)
    ('<4 images>', "['layer3', 'layer4']", 'len')
    """
    if isinstance(value, Probe) or (isinstance(value, tuple) and value and isinstance(value[0], Tensor)):
        return f"<{len(value if isinstance(value, Probe) else value[0])} images>"
    return str(getattr(value, "__name__", None) or repr(value))


def coerce_probe(probe: object) -> Probe | int:
    """A number of images, or a probe: a `Probe`, or ``(images, labels)``.

    Raises:
        TypeError: It is something else, or labels are no integers.
    """
    if isinstance(probe, Probe) or (isinstance(probe, int) and not isinstance(probe, bool)):
        return probe
    if isinstance(probe, (tuple, list)) and len(probe) == 2 and all(isinstance(part, Tensor) for part in probe):
        images, labels = probe
        if labels.ndim == 1 and labels.is_floating_point():
            raise TypeError(f"Expected integer labels in `probe`, but got {labels.dtype}: `labels.long()`?")
        return replace(Probe(images), labels=labels)  # the images are judged first
    what = type(probe).__name__
    if isinstance(probe, (tuple, list)):
        what = f"a {what} of {', '.join(type(part).__name__ for part in probe)} (`torch.as_tensor` makes tensors)"
    if isinstance(probe, Tensor):
        what = "a tensor: with labels say (images, labels), without Probe(images)"
    raise TypeError(f"Expected `probe` to be a number of images, a Probe, or (images, labels) tensors, but got {what}.")
