"""A probe explained by all processes of a run, each its share of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from lightning_gradcam.attacks import Attack
from lightning_gradcam.explainer.chunking import Chunks, Work
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.monitor.adversarial import AttackedExplainer, AttackedExplanation
from lightning_gradcam.monitor.distributed import Ranks, Rows
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target


@dataclass
class ShardedExplainer:
    """Carries a plan out.

    Args:
        plan: Where and how to look.
        ranks: The processes that share the work.
        chunks: How many images are explained at once.
    """

    plan: Explainer
    ranks: Ranks = field(default_factory=Ranks)
    chunks: Chunks = field(default_factory=Chunks)

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """As `Explainer`: one explanation of the whole probe for each target; with several processes, in each of them.

        Raises:
            NotExplainableError: Memory does not hold a single image; and what the plan raises, in any process.
        """
        return self._together(self._plan(model), model, probe, targets)

    def attacked(self, model: nn.Module, probe: Probe, target: Target, attack: Attack) -> AttackedExplanation:
        """The whole probe attacked, each process its share, away from its labels, and explained.

        Raises:
            ValueError: As `attacks.attack_probe`.
            NotExplainableError: As above.
        """
        return self._together(AttackedExplainer(self._plan(model), attack), model, probe, [target])[0]

    def _plan(self, model: nn.Module) -> Explainer:
        buffers = self.ranks.broadcast_buffers(model)
        return replace(self.plan, forward=_WithBuffers(self.plan.forward, buffers)) if buffers else self.plan

    def _together(self, work: Work[Rows], model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Rows]:
        share = self.ranks.rows(len(probe))
        # Processes that share one model have to make the same passes, so one of them cannot go back.
        may_halve = not self.ranks.sharded
        mine = self.ranks.run_on_all_ranks(lambda: self.chunks(work, model, probe, targets, share, may_halve))
        return [self.ranks.gather_rows(found, len(probe)) for found in mine]

    @property
    def note(self) -> str:
        """A sentence where memory ran out in this process, else empty."""
        where = "" if self.ranks.is_rank_zero else f" in process {self.ranks.index}"
        said = f"Memory ran out{where}, so looks explain {self.chunks.size} images at once from here on."
        return said if self.chunks.ran_out else ""


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
