"""Arguments of the callback: in a few words, and in the types that a run works with."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from lightning_gradcam.attacks import FGSM, PGD, Attack, coerce_attack
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.probe.probe import Probe


def short_repr(value: object) -> str:
    """Return an argument in a few words, for a `repr`.

    >>> import torch
    >>> short_repr((torch.rand(4, 3, 8, 8), torch.arange(4))), short_repr(["layer3", "layer4"]), short_repr(len)
    ('<4 images>', "['layer3', 'layer4']", 'len')
    """
    if isinstance(value, Probe) or (isinstance(value, tuple) and value and isinstance(value[0], Tensor)):
        return f"<{len(value if isinstance(value, Probe) else value[0])} images>"
    return str(getattr(value, "__name__", None) or repr(value))


def coerce_probe(probe: object) -> Probe | int:
    """Return the ``probe`` argument as a number of images or a `Probe`.

    Raises:
        TypeError: It is not a number, a `Probe` or ``(images, labels)``, or the labels are not integers.
    """
    if isinstance(probe, Probe) or (isinstance(probe, int) and not isinstance(probe, bool)):
        return probe
    if isinstance(probe, (tuple, list)) and len(probe) == 2 and all(isinstance(tensor, Tensor) for tensor in probe):
        images, labels = probe
        if labels.ndim == 1 and labels.is_floating_point():
            raise TypeError(
                f"Expected integer labels in `probe`, but got {labels.dtype}. Pass `labels.long()`, or "
                "`Probe(images, labels=labels)` for a regression."
            )
        return replace(Probe(images), labels=labels)  # in two steps, so that the images are validated first
    description = type(probe).__name__
    if isinstance(probe, (tuple, list)):
        types = ", ".join(type(item).__name__ for item in probe)
        description = f"a {description} of {types} (`torch.as_tensor` makes tensors)"
    if isinstance(probe, Tensor):
        description = "a tensor. Pass (images, labels), or Probe(images) without labels"
    raise TypeError(
        f"Expected `probe` to be a number of images, a Probe, or (images, labels) tensors, but got {description}."
    )


def prepare_attack(attack: str | Attack | None, images: Tensor, has_sharded_model: bool) -> Attack | None:
    """Return an attack with its default parameters for these images; None without an attack.

    Raises:
        NotExplainableError: No process has the whole model.
    """
    if attack is None:
        return None
    coerced = coerce_attack(attack)
    if has_sharded_model:
        raise NotExplainableError(
            "`attack` is not supported for sharded models (FSDP, ModelParallel), because the gradient at the "
            "images would have to pass through all shards. Remove `attack`, or train with DDP."
        )
    return coerced.with_defaults(images) if isinstance(coerced, (FGSM, PGD)) else coerced
