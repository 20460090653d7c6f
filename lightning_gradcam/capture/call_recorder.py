"""Records of module calls in a forward pass, for passes that replay them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from lightning_gradcam.capture.outputs import get_version, map_tensors


@dataclass
class ModuleCall:
    """The output of one call of a module.

    Args:
        module: The module.
        output: Its output, which the model continues with.
        copy: A copy of the output.
        expected_version: The output's version, see `sum_versions`, if only modules that have ended changed it in place.
    """

    module: nn.Module
    output: Any
    copy: Any
    expected_version: int

    @staticmethod
    def from_output(module: nn.Module, output: Any) -> ModuleCall:
        """Create the record when the module returns."""
        return ModuleCall(module, output, copy_tensors(output), sum_versions(output))

    @property
    def is_overwritten(self) -> bool:
        """Whether code outside of finished modules changed the output in place: then each replay needs a new copy."""
        return sum_versions(self.output) != self.expected_version


@dataclass
class CallRecorder:
    """Hooks that record the outermost module calls that end before a layer returns.

    Args:
        layer: The layer.
        call: Index of the layer's call; -1 is the last.
        num_calls: Number of the layer's calls in the pass so far.
        frames: Per running module, the calls of its children that have ended.
        versions: Per running module, the versions of all outputs when it started.
        recorded: The calls recorded up to the layer's, in order of execution; the last is the layer's.
    """

    layer: nn.Module
    call: int
    num_calls: int = 0
    frames: list[list[ModuleCall]] = field(default_factory=lambda: [[]])
    versions: list[list[tuple[ModuleCall, int]]] = field(default_factory=list)
    recorded: list[ModuleCall] = field(default_factory=list)

    def enter(self, _module: nn.Module, _args: Any) -> None:
        """Record the versions of all outputs before a module runs (a forward pre-hook)."""
        self.versions.append([(call, sum_versions(call.output)) for frame in self.frames for call in frame])
        self.frames.append([])

    def leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        """Record the module's output (a forward hook)."""
        self.frames.pop()  # the calls inside of it do not run again
        for call, version in self.versions.pop():
            # A replayed module changes nothing in place, so the replayed output must contain its change already.
            if sum_versions(call.output) != version:
                call.copy = copy_tensors(call.output)
                call.expected_version += sum_versions(call.output) - version
        self.frames[-1].append(ModuleCall.from_output(module, output))
        if module is self.layer:
            if self.call in (-1, self.num_calls):
                self.recorded = [replace(call) for frame in self.frames for call in frame]
            self.num_calls += 1


def list_tensors(output: Any) -> list[Tensor]:
    """List all tensors in a module's output."""
    tensors: list[Tensor] = []

    def append(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(output, append)
    return tensors


def sum_versions(output: Any) -> int:
    """Return the version of a module's output: how often its tensors were changed in place, in total."""
    return sum(get_version(tensor) for tensor in list_tensors(output))


def copy_tensors(output: Any) -> Any:
    """Copy a module's output with all its tensors."""
    return map_tensors(output, lambda tensor: tensor.detach().clone())
