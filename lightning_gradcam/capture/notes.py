"""What the modules of a pass return before a layer does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from lightning_gradcam.outputs import mapped, version


@dataclass
class Returned:
    """What one call of a module returned."""

    module: nn.Module
    live: Any  # the output, as it goes on
    kept: Any  # a copy
    written: int  # how often modules that ended since have written into it

    @staticmethod
    def of(module: nn.Module, output: Any) -> Returned:
        """As it returns."""
        return Returned(module, output, copied(output), -versions(output))

    @property
    def changes(self) -> bool:
        """Whether code outside of modules that ended has written into it: then each pass needs a copy of its own."""
        return versions(self.live) + self.written != 0


@dataclass
class Notes:
    """Hooks that note, of the outermost modules that end before a layer returns, what they return."""

    layer: nn.Module
    call: int
    calls: int = 0
    frames: list[list[Returned]] = field(default_factory=lambda: [[]])
    before: list[list[tuple[Returned, int]]] = field(default_factory=list)
    found: list[Returned] = field(default_factory=list)

    def enter(self, _module: nn.Module, _args: Any) -> None:
        """Before a module runs."""
        self.before.append([(each, versions(each.live)) for frame in self.frames for each in frame])
        self.frames.append([])

    def leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        """After it has run."""
        self.frames.pop()  # what ran inside of it need not run again
        for each, count in self.before.pop():
            if versions(each.live) != count:  # in place: what this module changes does not change when it stands in
                each.kept, each.written = copied(each.live), each.written + count - versions(each.live)
        returned = Returned.of(module, output)
        self.frames[-1].append(returned)
        if module is self.layer:
            if self.call in (-1, self.calls):
                self.found = [replace(each) for frame in self.frames for each in frame]
            self.calls += 1


def tensors(output: Any) -> list[Tensor]:
    """All tensors in what a module returned."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(output, note)
    return found


def versions(output: Any) -> int:
    """How often they were changed in place, altogether."""
    return sum(version(tensor) for tensor in tensors(output))


def copied(output: Any) -> Any:
    """The same with copies of them."""
    return mapped(output, lambda tensor: tensor.detach().clone())
