"""A probe explained in portions: each process its share, and no more images at once than memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import Tensor, nn

from lightning_gradcam.attacks import Attack
from lightning_gradcam.calling import memory_ran_out
from lightning_gradcam.explanation import Explanation, NotExplainableError
from lightning_gradcam.pairs import Attacked, AttackedPlan
from lightning_gradcam.plan import Plan
from lightning_gradcam.probe import Forward, Probe, Target
from lightning_gradcam.ranks import Ranks, Rows
from lightning_gradcam.targets import for_rows

_Work: TypeAlias = Callable[[nn.Module, Probe, Sequence[Target]], list[Rows]]


@dataclass
class Portions:
    """Carries a plan out.

    Args:
        plan: Where and how to look.
        ranks: The processes that share the work.
        at_once: How many images are explained at once; None is all. Halved where memory runs out, which later looks
            begin with. No checkpoint holds it: a resumed run may have another machine.
    """

    plan: Plan
    ranks: Ranks = field(default_factory=Ranks)
    at_once: int | None = None
    _ran_out: bool = False

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """As `Plan`: one explanation of the whole probe for each target; with several processes, in each of them.

        Raises:
            NotExplainableError: Memory does not hold a single image; and what the plan raises, in any process.
        """
        return self._together(self._plan(model), model, probe, targets)

    def attacked(self, model: nn.Module, probe: Probe, target: Target, attack: Attack) -> Attacked:
        """The whole probe attacked, each process its share, away from its labels, and explained.

        Raises:
            ValueError: As `attacks.attack_probe`.
            NotExplainableError: As above.
        """
        return self._together(AttackedPlan(self._plan(model), attack), model, probe, [target])[0]

    def _plan(self, model: nn.Module) -> Plan:
        buffers = self.ranks.firsts_buffers(model)
        return replace(self.plan, forward=_WithBuffers(self.plan.forward, buffers)) if buffers else self.plan

    def _together(self, work: _Work[Rows], model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Rows]:
        mine = self.ranks.all_do(lambda: self._share(work, model, probe, targets))
        return [self.ranks.joined(found, len(probe)) for found in mine]

    @property
    def note(self) -> str:
        """A sentence where memory ran out in this process, else empty."""
        where = "" if self.ranks.is_first else f" in process {self.ranks.index}"
        said = f"Memory ran out{where}, so looks explain {self.at_once} images at once from here on."
        return said if self._ran_out else ""

    def _share(self, work: _Work[Rows], model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Rows]:
        share = self.ranks.rows(len(probe))
        while True:
            at_once = min(self.at_once or len(probe), share.stop - share.start)
            try:
                parts = [work(model, *part) for part in _cut(probe, targets, share, at_once)]
                return [type(of_one_target[0]).cat(of_one_target) for of_one_target in zip(*parts, strict=True)]
            except (RuntimeError, MemoryError) as error:
                # Processes that share one model have to make the same passes, so one of them cannot go back.
                if not memory_ran_out(error) or self.ranks.sharded:
                    raise
                problem = str(error)
            # Outside of the handler: until it ends, the error holds on to the tensors of the pass.
            if at_once == 1:
                raise NotExplainableError(
                    f"Memory does not hold one image's explanation ({problem}). Try a later layer."
                )
            self.at_once, self._ran_out = (at_once + 1) // 2, True


def _cut(
    probe: Probe, targets: Sequence[Target], share: slice, at_once: int
) -> Iterator[tuple[Probe, Sequence[Target]]]:
    for start in range(share.start, share.stop, at_once):
        rows = slice(start, min(start + at_once, share.stop))
        yield probe[rows], [for_rows(target, rows) for target in targets]


@dataclass(frozen=True)
class _WithBuffers:
    """A forward pass with other buffers; the model is isolated, so it has copies of its own to put them into."""

    forward: Forward
    buffers: Mapping[str, Tensor]

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        own = dict(model.named_buffers())
        for name, buffer in self.buffers.items():
            own[name].copy_(buffer)
        return self.forward(model, probe)
