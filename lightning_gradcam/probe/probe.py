"""The fixed images whose explanations are watched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.utils.inference_mode import without_inference_tensors


@dataclass(frozen=True)
class Probe:
    """A batch of images with all that belongs to them; every field has one row per image.

    Args:
        images: ``(N, C, *spatial)``, as the model takes them; ``spatial`` has 1, 2 or 3 dimensions.
        labels: ``(N,)`` classes, ``(N, K)`` multi-label, or ``(N, *spatial)`` masks of classes.
        masks: ``(N, *spatial)`` bool: where the evidence should lie.
        references: ``(N, ...)`` second image or embedding of a pair.
        ids: N names of the images.
        groups: N names of the groups that the images belong to.
        extras: What else the model's forward pass needs, N rows each.
        pixels: The normalisation of ``images``, where it is known.

    Raises:
        TypeError: A field is no tensor.
        ValueError: A field has another number of rows, or ``images`` another number of dimensions.

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

    def __post_init__(self) -> None:
        for name, rows in self._rows():
            if name not in ("ids", "groups") and not isinstance(rows, Tensor):
                raise TypeError(f"Expected {name} of a Probe to be a tensor, but got {type(rows).__name__}.")
        if self.images.ndim not in (3, 4, 5) or 0 in self.images.shape:
            raise ValueError(
                "Expected images of shape (N, C, *spatial) with one to three spatial dimensions and no empty one, "
                f"but got {tuple(self.images.shape)}. A single image needs a batch dimension, image[None]; signals "
                "(N, L) one for their channel, signals[:, None]: where the model takes them without, pass "
                "`forward=lambda model, probe: model(probe.images[:, 0])`."
            )
        for name, rows in self._rows():
            if len(rows) != len(self.images):
                raise ValueError(f"Expected {len(self.images)} rows in {name}, one per image, but got {len(rows)}.")

    def _rows(self) -> Iterator[tuple[str, Any]]:
        for f in fields(self):
            if f.name not in ("extras", "pixels") and getattr(self, f.name) is not None:
                yield f.name, getattr(self, f.name)
        yield from ((f"extras[{name!r}]", rows) for name, rows in self.extras.items())

    def _map(self, change: Callable[[Any], Any]) -> Probe:
        changed = {name: change(rows) for name, rows in self._rows() if not name.startswith("extras[")}
        return replace(self, **changed, extras={name: change(rows) for name, rows in self.extras.items()})

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Sequence[int]) -> Probe:
        """The images of a slice, or of a list of row numbers."""

        def pick(field_rows: Any) -> Any:
            if isinstance(rows, slice):
                return field_rows[rows]
            return field_rows[list(rows)] if isinstance(field_rows, Tensor) else [field_rows[i] for i in rows]

        return self._map(pick)

    @property
    def nbytes(self) -> int:
        """What all its tensors take."""
        return sum(rows.nbytes for _, rows in self._rows() if isinstance(rows, Tensor))

    @property
    def size(self) -> tuple[int, ...]:
        """The images' spatial dimensions."""
        return tuple(self.images.shape[2:])

    @property
    def photos(self) -> Tensor | None:
        """The images before their normalisation, ``(N, C, *spatial)`` in [0, 1]; None where ``pixels`` is."""
        return None if self.pixels is None else self.pixels.restore(self.images).clamp(0, 1)

    @property
    def classes(self) -> Tensor | None:
        """The labels as ``(N,)`` int64 where there is one class per image, else None."""
        if self.labels is None or self.labels.ndim != 1 or self.labels.is_floating_point():
            return None
        return self.labels.long()

    @property
    def multilabel(self) -> bool:
        """Whether each image has a label for every class, ``(N, K)``."""
        return self.labels is not None and self.labels.ndim == 2 and self.labels.shape[1:] != self.size

    @property
    def has_masks(self) -> bool:
        """Whether labels are masks of classes, ``(N, *spatial)`` integers."""
        labels = self.labels
        return labels is not None and labels.ndim == self.images.ndim - 1 > 2 and not labels.is_floating_point()

    def to(self, device: torch.device | str) -> Probe:
        """The same probe with its tensors on another device."""
        return self._map(lambda rows: rows.to(device) if isinstance(rows, Tensor) else rows)

    def mirrored(self) -> Probe:
        """The images mirrored along their last dimension, and with them whatever has their places: masks, say."""

        def mirror(rows: Any) -> Any:
            has_places = isinstance(rows, Tensor) and rows.ndim > len(self.size)
            return rows.flip(-1) if has_places and rows.shape[-len(self.size) :] == self.size else rows

        return self._map(mirror)

    def clone(self) -> Probe:
        """A copy that shares no memory with this one; its tensors are ordinary ones, also in inference mode."""
        with torch.inference_mode(False), torch.no_grad():
            return self._map(lambda rows: rows.detach().clone() if isinstance(rows, Tensor) else list(rows))

    def without_inference_tensors(self) -> Probe:
        """Return this probe, or one in which normal copies replace its inference tensors, which autograd rejects."""
        if not any(isinstance(values, Tensor) and values.is_inference() for _, values in self._rows()):
            return self
        return self._map(lambda values: without_inference_tensors(values)[0])

    @cached_property
    def digest(self) -> str:
        """What tells these images from others: the SHA-256 of their kind, shape and bytes. (Waits for the device.)

        >>> Probe(torch.zeros(1, 1, 2, 2)).digest[:12]
        '349b0934f2ab'
        """
        images = self.images.detach().cpu().contiguous()
        seen = hashlib.sha256(f"{images.dtype} {tuple(images.shape)} ".encode())
        seen.update(images.flatten().view(torch.uint8).numpy().tobytes())
        return seen.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Plain containers of CPU tensors, which `from_state_dict` turns back."""
        state: dict[str, Any] = dict(self.to("cpu")._rows())
        state = {name: rows for name, rows in state.items() if not name.startswith("extras[")}
        pixels = None if self.pixels is None else {"mean": self.pixels.mean, "std": self.pixels.std}
        return {**state, "extras": {name: rows.cpu() for name, rows in self.extras.items()}, "pixels": pixels}

    @staticmethod
    def from_state_dict(state: Mapping[str, Any]) -> Probe:
        """The probe that `state_dict` was taken of, on the CPU.

        >>> probe = Probe(torch.rand(2, 1, 4, 4), pixels=Normalization((0.5,), (0.5,)), ids=["a", "b"])
        >>> Probe.from_state_dict(probe.state_dict()).pixels
        Normalization(mean=(0.5,), std=(0.5,))
        """
        pixels = state["pixels"]
        return Probe(**{**state, "pixels": None if pixels is None else Normalization(**pixels)})

    @staticmethod
    def cat(probes: Sequence[Probe]) -> Probe:
        """Put probes with the same fields behind one another.

        Raises:
            ValueError: There is none, or they have different fields.
        """
        if not probes or any(dict(p._rows()).keys() != dict(probes[0]._rows()).keys() for p in probes):
            raise ValueError("Expected at least one probe, all with the same fields.")

        def join(rows: Sequence[Any]) -> Any:
            return torch.cat(list(rows)) if isinstance(rows[0], Tensor) else [r for part in rows for r in part]

        names = [name for name, _ in probes[0]._rows() if not name.startswith("extras[")]
        return replace(
            probes[0],
            **{name: join([getattr(p, name) for p in probes]) for name in names},
            extras={name: join([p.extras[name] for p in probes]) for name in probes[0].extras},
        )


def restore_pixels(probe: Probe) -> Tensor:
    """The images in [0, 1], where their normalisation is known."""
    return probe.images if probe.pixels is None else probe.pixels.restore(probe.images)
