"""Which dimension of a sequence the places are: signals are followed from tensor to tensor through the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

EXTRA = 8
"""So many tokens may stand in front of the patches: class, distillation and register tokens."""

_ALONG = (nn.Conv1d, nn.ConvTranspose1d)
_KEEPING = (
    nn.BatchNorm1d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.GroupNorm, nn.Upsample, nn.MaxPool1d, nn.AvgPool1d,
    nn.LPPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d, nn.ZeroPad1d, nn.ConstantPad1d, nn.ReflectionPad1d,
    nn.ReplicationPad1d, nn.CircularPad1d,
)  # fmt: skip
_ACROSS = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.RNNBase, nn.MultiheadAttention)


class Axes(NamedTuple):
    """Which dimensions of a sequence ``(n, C, L)``, ``(n, L, C)`` or ``(L, n, C)`` the images and the places are.

    Args:
        rows: The images' dimension.
        places: The places' dimension; the third is the channels'.
        lost: Whether the places were mixed, as a linear layer along them does, into ones of an order of their own.
    """

    rows: int
    places: int
    lost: bool = False

    @property
    def channels(self) -> int:
        """The dimension that is left."""
        return 3 - self.rows - self.places


FIRST = Axes(0, 2)
"""``(n, C, L)``, as convolutions take it, and as the images are."""

_LAYOUTS = (FIRST, Axes(0, 1), Axes(1, 0))


@dataclass(frozen=True)
class TensorOrigin:
    """Where a tensor comes from.

    Args:
        maker: The module that made it, the innermost.
        returned: As that returned it.
        handed: The clone that went on to the next module.
        given: What the maker was given.
        inside: How many tensors had been made before it began; later ones were made inside.
    """

    maker: nn.Module
    returned: Tensor
    handed: Tensor
    given: Sequence[Tensor] = ()
    inside: int = 0


@dataclass
class AxisTracker:
    """Follows the places of signals ``(n, C, L)``, to be asked of every tensor in order of execution.

    Shapes cannot tell ``(n, C, L)`` from ``(n, L, C)``. What can: which tensor a module was given, and whether it is
    the one of before or a transposed view of it; along which dimension the layers of PyTorch work; and the sizes of
    what was there before. Where these leave it open, so does the answer.

    Args:
        images: The signals.
    """

    images: Tensor
    _seen: list[tuple[Tensor, Axes | None]] = field(default_factory=list)

    def read(self, origin: TensorOrigin) -> Axes | None:
        """Where the places of a tensor are; None where it cannot be told, or it is no sequence."""
        axes = self._read(origin) if origin.returned.ndim == 3 else None
        if axes and origin.returned.shape[axes.rows] != len(self.images):
            axes = None
        self._seen.append((origin.handed, axes))
        return axes

    def found(self) -> Axes | None:
        """The places of the last one are in order after all: there are as many as somewhere before."""
        tensor, axes = self._seen[-1]
        axes = axes and axes._replace(lost=False)
        self._seen[-1] = tensor, axes
        return axes

    @property
    def _known(self) -> list[tuple[Tensor, Axes | None]]:
        return [(self.images, FIRST), *self._seen]

    def _read(self, origin: TensorOrigin) -> Axes | None:
        returned, maker = origin.returned, origin.maker
        is_view, axes = self._followed(returned)
        if is_view:
            return axes
        given = [tensor for tensor in origin.given if tensor.ndim == 3]
        certain = [(tensor, axes) for tensor in given if (axes := self._followed(tensor)[1])]
        usual = _usual(maker, returned, len(self.images))
        if not certain and (not usual or isinstance(maker, (nn.Linear, *_KEEPING))):  # which take any dimension
            fitting = [(tensor, _by_sizes(tensor, self._known)) for tensor in given if not self._followed(tensor)[0]]
            certain = [(tensor, possible[0]) for tensor, possible in fitting if len(possible) == 1]
            undecided = any(len(possible) > 1 for _, possible in fitting) or len(fitting) < len(given)
            if isinstance(maker, nn.Linear) and not certain and undecided and any(axes for _, axes in self._seen):
                return None
        kept = [axes for tensor, axes in certain if tensor.shape == returned.shape]
        if kept:
            return kept[0]
        if not usual:
            return self._of_parts(origin, certain)
        if not certain:
            return usual
        mixed = None if isinstance(maker, _KEEPING) else 1 if isinstance(maker, _ALONG) else 2
        axes = certain[0][1]
        return axes._replace(lost=axes.lost or axes.places == mixed)

    def _followed(self, tensor: Tensor) -> tuple[bool, Axes | None]:
        """Whether a tensor is one of before, or a view of one with its dimensions in another order; and its axes."""
        for known, axes in reversed(self._known):
            if known is tensor:
                return True, axes
            if axes and known.ndim == tensor.ndim and _base(known) is _base(tensor):
                channels = (known.shape[axes.channels], known.stride(axes.channels))
                fitting = [
                    new
                    for new in _like(tensor, known, axes)
                    if (tensor.shape[new.channels], tensor.stride(new.channels)) == channels
                    and tensor.stride(new.places) == known.stride(axes.places)
                ]
                if len(fitting) == 1:
                    return True, fitting[0]
        return False, None

    def _of_parts(self, origin: TensorOrigin, given: Sequence[tuple[Tensor, Axes]]) -> Axes | None:
        """Of a module of any kind: as what was made inside, or given, with which it shares a size."""
        returned = origin.returned
        inside = [(tensor, axes) for tensor, axes in self._seen[origin.inside :] if axes and tensor.ndim == 3]
        same = {axes for tensor, axes in inside if tensor.shape == returned.shape}
        if same:
            return same.pop() if len(same) == 1 else None
        parts = inside or given
        possible = _by_sizes(returned, parts)
        if not possible and parts:
            possible = _by_one_size(returned, *parts[-1])
        if possible or parts:
            return possible[0] if len(possible) == 1 else None
        before = [axes for tensor, axes in self._known if axes and tensor.shape == returned.shape]
        # As many places as channels: as the latest such one, unless the memory shows that it was turned.
        return before[-1] if before and returned.is_contiguous() else None


def _base(tensor: Tensor) -> Tensor:
    return tensor if tensor._base is None else tensor._base


def _usual(maker: nn.Module, returned: Tensor, rows: int) -> Axes | None:
    """Where a layer of PyTorch has the places, whatever it was given."""
    if isinstance(maker, (*_ALONG, *_KEEPING)):
        return FIRST
    if not isinstance(maker, _ACROSS) or (isinstance(maker, nn.LayerNorm) and len(maker.normalized_shape) > 1):
        return None
    batch_first = getattr(maker, "batch_first", returned.shape[0] == rows)
    return Axes(0, 1) if batch_first else Axes(1, 0)


def _by_sizes(tensor: Tensor, known: Sequence[tuple[Tensor, Axes | None]]) -> list[Axes]:
    """Of the latest that a tensor can be made of place by place, extra tokens in front aside: all that fit."""
    for before, axes in reversed(known):
        if axes is None or before.ndim != tensor.ndim:
            continue
        possible = [
            new
            for new in _like(tensor, before, axes)
            if tensor.shape[new.channels] == before.shape[axes.channels]
            and 0 <= tensor.shape[new.places] - before.shape[axes.places] <= EXTRA
        ]
        if possible:
            return possible
    return []


def _by_one_size(tensor: Tensor, before: Tensor, axes: Axes) -> list[Axes]:
    """With as many places, or as many channels, as something before: all that fit."""
    return [
        new
        for new in _like(tensor, before, axes)
        if tensor.shape[new.channels] == before.shape[axes.channels]
        or tensor.shape[new.places] == before.shape[axes.places]
    ]


def _like(tensor: Tensor, before: Tensor, axes: Axes) -> list[Axes]:
    rows = before.shape[axes.rows]
    return [new._replace(lost=axes.lost) for new in _LAYOUTS if tensor.shape[new.rows] == rows]
