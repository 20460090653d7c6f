"""An explainer whose probe is shared out among the processes of a run."""

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
from lightning_gradcam.monitor.distributed import Ranks, Shard
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target


@dataclass
class ShardedExplainer:
    """Explains a shard of the probe in each process, and gathers the results.

    Args:
        explainer: The prepared explainer.
        ranks: The processes that share the work.
        chunks: The number of images explained at once.
    """

    explainer: Explainer
    ranks: Ranks = field(default_factory=Ranks)
    chunks: Chunks = field(default_factory=Chunks)

    def __call__(self, model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Explanation]:
        """Return, in every process, one explanation of all images for each target, like `Explainer`.

        Raises:
            NotExplainableError: Memory does not hold a single image; and what the explainer raises, in any process.
        """
        return self._run(self._with_rank_zero_buffers(model), model, probe, targets)

    def explain_attacked(self, model: nn.Module, probe: Probe, target: Target, attack: Attack) -> AttackedExplanation:
        """Attack all images, each process its shard, away from their labels, and explain the attacked images.

        Raises:
            ValueError: As `attacks.attack_probe`.
            NotExplainableError: As `__call__`.
        """
        explainer = AttackedExplainer(self._with_rank_zero_buffers(model), attack)
        return self._run(explainer, model, probe, [target])[0]

    def _with_rank_zero_buffers(self, model: nn.Module) -> Explainer:
        """Return the explainer with a forward pass that uses rank zero's buffers in every process."""
        buffers = self.ranks.broadcast_buffers(model)
        if not buffers:
            return self.explainer
        return replace(self.explainer, forward=_ForwardWithBuffers(self.explainer.forward, buffers))

    def _run(self, work: Work[Shard], model: nn.Module, probe: Probe, targets: Sequence[Target]) -> list[Shard]:
        """Run an explainer on this process's shard, and gather the results of all shards."""
        shard = self.ranks.get_shard(len(probe))
        # The processes of a sharded model must run the same passes, so none of them can repeat one.
        may_halve = not self.ranks.has_sharded_model
        results = self.ranks.run_on_all_ranks(lambda: self.chunks(work, model, probe, targets, shard, may_halve))
        return [self.ranks.gather_shards(result, len(probe)) for result in results]

    @property
    def memory_warning(self) -> str:
        """A message if memory ran out in this process, else empty; each process has a memory of its own."""
        if not self.chunks.ran_out:
            return ""
        process = "" if self.ranks.is_rank_zero else f" in process {self.ranks.index}"
        return f"Memory ran out{process}, so snapshots explain {self.chunks.size} images at once from here on."


@dataclass(frozen=True)
class _ForwardWithBuffers:
    """A forward pass with other values in the buffers; the isolated model has copies of them to write to."""

    forward: Forward
    buffers: Mapping[str, Tensor]

    def __call__(self, model: nn.Module, probe: Probe) -> Any:
        copies = dict(model.named_buffers())
        for name, buffer in self.buffers.items():
            copies[name].copy_(buffer)
        return self.forward(model, probe)
