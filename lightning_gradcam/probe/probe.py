"""The probe: a fixed batch of images to explain, with labels and other fields. (It is not a linear probe.)"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradcam.probe.image_axes import CHANNELS_FIRST, ImageAxes, find_axes, put_channels_first, restore_axes
from lightning_gradcam.probe.inference_tensors import without_inference_tensors
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.packing import pack, unpack
from lightning_gradcam.probe.plain_tensors import as_plain_tensor


@dataclass(frozen=True)
class Probe:
    """A batch of images with its labels and other fields, each of which has one row per image.

    Args:
        images: Preprocessed images ``(N, C, *spatial)``; ``spatial`` has 1, 2 or 3 dimensions.
        labels: ``(N,)`` classes, ``(N, K)`` multi-label, or ``(N, *spatial)`` class masks.
        masks: ``(N, *spatial)`` bool, the region that should contain the evidence.
        references: ``(N, ...)``, the second image or embedding of each pair.
        ids: N names of the images.
        groups: N names of the groups of the images.
        extras: Further inputs of the model's forward pass, N rows each.
        pixels: The normalization of ``images``, if known.
        axes: How the model takes the images, if not as ``(N, C, *spatial)``; see `read_axes`.

    Raises:
        TypeError: A field is not a tensor.
        ValueError: The number of rows differs between fields, or ``images`` has an unsupported shape.

    Example:
        >>> probe = Probe(torch.rand(4, 3, 8, 8), labels=torch.arange(4))
        >>> len(probe), probe[1:3].labels
        (4, tensor([1, 2]))
        >>> len(Probe.cat([probe, probe[:1]]))
        5
    """

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    references: Tensor | None = None
    ids: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    pixels: Normalization | None = None
    axes: ImageAxes = CHANNELS_FIRST

    def __post_init__(self) -> None:
        for name, values in self._list_fields():
            if name not in ("ids", "groups") and not isinstance(values, Tensor):
                raise TypeError(f"Expected {name} of a Probe to be a tensor, but got {type(values).__name__}.")
        for name in ("images", "labels", "masks", "references"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_plain_tensor(getattr(self, name)))
        object.__setattr__(self, "extras", {name: as_plain_tensor(values) for name, values in self.extras.items()})
        if self.images.ndim not in (3, 4, 5) or 0 in self.images.shape:
            raise ValueError(
                "Expected images of shape (N, C, *spatial) with one to three spatial dimensions, none of size 0, but "
                f"got {tuple(self.images.shape)}. Add a batch dimension to a single image, image[None], and a channel "
                "dimension to signals (N, L), signals[:, None]. If the model expects signals without channels, also "
                "pass `forward=lambda model, probe: model(probe.images[:, 0])`."
            )
        for name, values in self._list_fields():
            if len(values) != len(self.images):
                raise ValueError(f"Expected {len(self.images)} rows in {name}, one per image, but got {len(values)}.")

    def _list_fields(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the values of each field that has rows and is not None."""
        for f in fields(self):
            if f.name not in ("extras", "pixels", "axes") and getattr(self, f.name) is not None:
                yield f.name, getattr(self, f.name)
        yield from ((f"extras[{name!r}]", values) for name, values in self.extras.items())

    def _map_fields(self, change: Callable[[Any], Any]) -> Probe:
        """Return a probe with the values of every field changed."""
        changed = {name: change(values) for name, values in self._list_fields() if not name.startswith("extras[")}
        return replace(self, **changed, extras={name: change(values) for name, values in self.extras.items()})

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Sequence[int]) -> Probe:
        """Return the probe of a slice, or of a list of row indices."""

        def select(values: Any) -> Any:
            if isinstance(rows, slice):
                return values[rows]
            return values[list(rows)] if isinstance(values, Tensor) else [values[i] for i in rows]

        return self._map_fields(select)

    def read_axes(self, model: nn.Module) -> Probe:
        """Return the probe with its images as ``(N, C, *spatial)``, where the model takes them in another order.

        >>> Probe(torch.rand(2, 6, 3, 8, 8)).read_axes(nn.Conv2d(3, 4, 3)).size
        (6, 8, 8)
        """
        axes = find_axes(self.images, model) if self.axes == CHANNELS_FIRST else CHANNELS_FIRST
        return self if axes == CHANNELS_FIRST else self._change_axes(put_channels_first, axes, axes)

    def restore_axes(self) -> Probe:
        """Return the probe with its images as the model takes them."""
        return self if self.axes == CHANNELS_FIRST else self._change_axes(restore_axes, self.axes, CHANNELS_FIRST)

    def _change_axes(self, change: Callable[[Tensor, ImageAxes], Tensor], axes: ImageAxes, result: ImageAxes) -> Probe:
        """Change the order of the dimensions of the images, and of references of the same shape."""
        references = self.references
        if references is not None and references.shape[1:] == self.images.shape[1:]:
            references = change(references, axes)
        return replace(self, images=change(self.images, axes), references=references, axes=result)

    @property
    def nbytes(self) -> int:
        """The memory of all tensors, in bytes."""
        return sum(values.nbytes for _, values in self._list_fields() if isinstance(values, Tensor))

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial size of the images."""
        return tuple(self.images.shape[2:])

    @property
    def photos(self) -> Tensor | None:
        """The images before normalization, ``(N, C, *spatial)`` in [0, 1]; None if ``pixels`` is None."""
        return None if self.pixels is None else self.pixels.restore(self.images).clamp(0, 1)

    @property
    def classes(self) -> Tensor | None:
        """The labels ``(N,)`` int64 if there is one class per image, else None."""
        if self.labels is None or self.labels.ndim != 1 or self.labels.is_floating_point():
            return None
        return self.labels.long()

    @property
    def multilabel(self) -> bool:
        """Whether each image has a label for every class, ``(N, K)``."""
        return self.labels is not None and self.labels.ndim == 2 and self.labels.shape[1:] != self.size

    @property
    def has_masks(self) -> bool:
        """Whether the labels are class masks, ``(N, *spatial)`` integers."""
        labels = self.labels
        return labels is not None and labels.ndim == self.images.ndim - 1 > 2 and not labels.is_floating_point()

    def to(self, device: torch.device | str) -> Probe:
        """Return the probe with its tensors on another device."""
        return self._map_fields(lambda values: values.to(device) if isinstance(values, Tensor) else values)

    def mirror(self) -> Probe:
        """Flip the images along their last dimension, and all fields of the same spatial size, such as masks."""

        def flip(values: Any) -> Any:
            is_spatial = isinstance(values, Tensor) and values.ndim > len(self.size)
            return values.flip(-1) if is_spatial and values.shape[-len(self.size) :] == self.size else values

        return self._map_fields(flip)

    def clone(self) -> Probe:
        """Return a copy that shares no memory with this probe; its tensors are normal ones, also in inference mode."""
        with torch.inference_mode(False), torch.no_grad():
            return self._map_fields(
                lambda values: values.detach().clone() if isinstance(values, Tensor) else list(values)
            )

    def without_inference_tensors(self) -> Probe:
        """Return this probe, or one in which normal copies replace its inference tensors, which autograd rejects."""
        if not any(isinstance(values, Tensor) and values.is_inference() for _, values in self._list_fields()):
            return self
        return self._map_fields(lambda values: without_inference_tensors(values)[0])

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the images' dtype, shape and bytes. (Waits for the device.)

        >>> Probe(torch.zeros(1, 1, 2, 2)).digest[:12]
        '349b0934f2ab'
        """
        images = self.images.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{images.dtype} {tuple(images.shape)} ".encode())
        digest.update(images.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers of CPU tensors, packed without loss, for `from_state_dict`."""
        state = {
            name: pack(values.cpu()) if isinstance(values, Tensor) else values
            for name, values in self._list_fields()
            if not name.startswith("extras[")
        }
        extras = {name: pack(values.cpu()) for name, values in self.extras.items()}
        pixels: dict[str, Any] | None = None
        if self.pixels is not None:
            pixels = {"mean": self.pixels.mean, "std": self.pixels.std}
            pixels |= {} if self.pixels.bands is None else {"bands": self.pixels.bands}
        axes = {} if self.axes == CHANNELS_FIRST else {"axes": self.axes}
        return {**state, "extras": extras, "pixels": pixels, **axes}

    @staticmethod
    def from_state_dict(state: Mapping[str, Any]) -> Probe:
        """Restore a probe from its `state_dict`, or from an earlier one with plain tensors, on the CPU.

        >>> probe = Probe(torch.rand(2, 1, 4, 4), pixels=Normalization((0.5,), (0.5,)), ids=["a", "b"])
        >>> Probe.from_state_dict(probe.state_dict()).pixels
        Normalization(mean=(0.5,), std=(0.5,))
        """
        fields_by_name: dict[str, Any] = {
            name: unpack(values) if isinstance(values, (Tensor, Mapping)) else values
            for name, values in state.items()
            if name not in ("extras", "pixels")
        }
        extras = {name: unpack(values) for name, values in state["extras"].items()}
        pixels = None if state["pixels"] is None else Normalization(**state["pixels"])
        return Probe(**fields_by_name, extras=extras, pixels=pixels)

    @staticmethod
    def cat(probes: Sequence[Probe]) -> Probe:
        """Concatenate probes that have the same fields.

        Raises:
            ValueError: There are no probes, or their fields differ.
        """
        field_names = {tuple(sorted(dict(probe._list_fields()))) for probe in probes}
        if len(field_names) != 1:
            combinations = " and ".join(", ".join(names) for names in sorted(field_names))
            raise ValueError(f"Expected probes with the same fields, at least one, but got {combinations or 'none'}.")

        def join(values: Sequence[Any]) -> Any:
            return torch.cat(list(values)) if isinstance(values[0], Tensor) else [v for items in values for v in items]

        names = [name for name, _ in probes[0]._list_fields() if not name.startswith("extras[")]
        return replace(
            probes[0],
            **{name: join([getattr(p, name) for p in probes]) for name in names},
            extras={name: join([p.extras[name] for p in probes]) for name in probes[0].extras},
        )


def restore_pixels(probe: Probe) -> Tensor:
    """Return the images in [0, 1] if their normalization is known, else the images unchanged."""
    return probe.images if probe.pixels is None else probe.pixels.restore(probe.images)
