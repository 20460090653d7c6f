"""From a user's choices to a watched probe: what one run looks at, found as soon as it can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightning_gradcam.attacks import FGSM, PGD, Attack, coerce_attack
from lightning_gradcam.callback.config import CallbackConfig
from lightning_gradcam.callback.probe_source import ProbeSource
from lightning_gradcam.callback.summary import summarize
from lightning_gradcam.callback.trainer import PrecisionForward
from lightning_gradcam.capture.forward import default_forward, find_forward
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.chunking import Chunks
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.monitor.monitor import ProbeMonitor, check_attackable, resolve_target
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.probe.collector import drop_foreign_labels
from lightning_gradcam.probe.dataset_info import find_class_names, find_normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward
from lightning_gradcam.targets import TARGETS

LIMIT = 64 << 20
"""Bytes of a probe that a checkpoint holds; of a larger one it holds the hash."""


class ProbeSession:
    """The probe of one run, from the first batch to the last look.

    With several processes, `prepare` and `complete` are called in all of them: the first one's images are everyone's.

    Args:
        config: What the user asked for.
        ranks: The processes of the run.
    """

    def __init__(self, choices: CallbackConfig, ranks: Ranks | None = None) -> None:
        self.config, self.ranks = choices, ranks or Ranks()
        self.plan: Explainer | None = None
        self.monitor: ProbeMonitor | None = None
        self.sources: dict[str, str] = {}
        self.probe_source = ProbeSource(choices.probe)

    @property
    def gathering(self) -> bool:
        """Whether batches are still wanted."""
        return self.probe_source.gathers and self.monitor is None

    @property
    def settled(self) -> bool:
        """Whether no further batch could change the probe."""
        return self.probe_source.settled(self.plan.classes if self.plan else None)

    def offer(self, batch: Any, source: str) -> None:
        """Take from a batch what serves; ``source`` is what the choices call it."""
        if self.monitor is None and not (self.plan and self.settled):
            self.probe_source.offer(batch, source)

    def prepare(self, module: nn.Module, precision: Any) -> None:
        """Trace the model once on the images at hand and decide where to look.

        Raises:
            TypeError: A choice is of no known kind.
            ValueError: A choice does not fit the model.
            NotExplainableError: There are no images, or nothing in the model that can be explained.
        """
        probe = self._at_hand(module, precision)
        target = self.config.target
        if isinstance(self.config.probe, int) and target is TARGETS["label"]:
            target = None  # whether what was gathered are labels is seen once the classes are counted
        forward = PrecisionForward(self.ranks.through(self._forward(module)), precision)
        self.plan = self.ranks.run_on_all_ranks(
            lambda: prepare(
                module,
                probe,
                layers=self.config.layers,
                method=self.config.method,
                target=target or TARGETS["predicted"],
                forward=forward,
                fuse=self.config.fuse,
                flips=self.config.flips,
            )
        )
        self.config.display.check(self.plan.classes, probe.images.shape[1])
        if self.config.attack is not None:
            check_attackable(self.plan)

    def _forward(self, module: nn.Module) -> Forward:
        if self.config.forward is not None:
            return self.config.forward
        through = find_forward(module)
        if through is not None:
            self.sources["model"] = f"calls {through.child}, since {type(module).__name__} defines no forward"
        return through or default_forward(module)

    def complete(
        self, module: nn.Module, precision: Any, holders: Sequence[Any], state: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Fix the probe: from here on the same images are watched.

        Args:
            module: The model.
            precision: The run's precision plugin.
            holders: Datasets and datamodules to look for normalisation and class names in.
            state: What `state_dict` returned in the run that goes on.

        Returns:
            Warnings, where something found had to be put aside.
        """
        warnings = []
        if state is not None and state["probe"] is not None and isinstance(self.config.probe, int):
            self.config = replace(self.config, probe=Probe.from_state_dict(state["probe"]))
            self.probe_source = ProbeSource(self.config.probe)
        if self.plan is None:
            self.prepare(module, precision)
        assert self.plan is not None
        warnings.append(self.plan.note)
        probe = self._at_hand(module, precision)
        if self.probe_source.gathers:
            probe, warning = drop_foreign_labels(probe, self.plan.classes)
            warnings.append(warning)
        masks = probe.has_masks and self.plan.answer == "pixels"
        unlabelled = probe.classes is None and not probe.multilabel and not masks
        if self.config.target is TARGETS["label"] and unlabelled:
            raise NotExplainableError(
                " ".join([*warnings, "`target='label'` needs labels of shape (N,), and the batches hold none."]).strip()
            )
        target = resolve_target(self.config.target, probe, self.plan)
        portions, draws = ShardedExplainer(self.plan, self.ranks, Chunks(self.config.chunk)), self.ranks.is_rank_zero
        self.monitor = self.ranks.run_on_all_ranks(
            lambda: ProbeMonitor(
                probe,
                portions,
                target,
                self._display(probe, holders),
                draws=draws,
                attack=self._attack(probe),
                reference_maps=self.config.baseline.explanation.maps if self.config.baseline else None,
            )
        )
        if self.config.save_probe == "images" and not self._saves_images:
            warnings.append(
                f"The probe takes {probe.nbytes >> 20} MiB, so checkpoints hold its hash instead of its images: "
                "a resumed run has to be given, or to gather, the same ones."
            )
        if state is not None:
            if self._goes_on_from(state):
                self.monitor.load_state_dict(state["watch"])
            else:
                warnings.append(
                    "The checkpoint's looks explain other images, layers, methods or targets than this run, so they "
                    "are not compared with: its curves start anew."
                )
        self.probe_source.end()
        return [warning for warning in warnings if warning]

    def _goes_on_from(self, state: Mapping[str, Any]) -> bool:
        assert self.monitor is not None
        if self.monitor.signature != state["watch"]["signature"]:
            return False
        if state["probe"] is None:
            return bool(state["digest"] == self.monitor.probe.digest)
        before, now = Probe.from_state_dict(state["probe"]).images, self.monitor.probe.images.cpu()
        return before.shape == now.shape and torch.equal(before.to(now.dtype), now)

    @property
    def _saves_images(self) -> bool:
        assert self.monitor is not None
        return self.config.save_probe == "images" and self.monitor.probe.nbytes <= LIMIT

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, plain containers of CPU tensors; empty before the probe is complete."""
        if self.monitor is None:
            return {}
        probe = self.monitor.probe
        about = {"probe": probe.state_dict()} if self._saves_images else {"probe": None, "digest": probe.digest}
        return {**about, "watch": self.monitor.state_dict()}

    def describe(self) -> dict[str, str]:
        """What was chosen, and where it was found, in words."""
        return (
            summarize(self.monitor, self.config.probe, self.probe_source.source, self.sources) if self.monitor else {}
        )

    def _at_hand(self, module: nn.Module, precision: Any) -> Probe:
        own = self.ranks.broadcast_from_rank_zero(self._own)
        probe = self.ranks.run_on_all_ranks(lambda: own.to(_device(module)))
        # What was gathered is in the run's precision already.
        return probe if self.probe_source.gathers else replace(probe, images=precision.convert_input(probe.images))

    def _own(self) -> Probe:
        probe = self.probe_source.probe()
        return probe.to("cpu") if self.ranks.count > 1 else probe  # the other processes have other devices

    def _attack(self, probe: Probe) -> Attack | None:
        if self.config.attack is None:
            return None
        attack = coerce_attack(self.config.attack)
        if self.ranks.sharded:
            raise NotExplainableError(
                "`attack=` is not served where a model is sharded (FSDP, ModelParallel): the gradient in an image "
                "would have to pass through all of them. Leave `attack` out, or train with DDP."
            )
        return attack.with_defaults(probe.images) if isinstance(attack, (FGSM, PGD)) else attack

    def _display(self, probe: Probe, holders: Sequence[Any]) -> DisplayConfig:
        display, count = self.config.display, self.plan.named if self.plan else None
        if display.pixels is None and probe.pixels is None:
            pixels, where = find_normalization(holders)
            if pixels is not None:
                display, self.sources["normalisation"] = replace(display, pixels=pixels), f"found in {where}"
        if display.names is None:
            names, where = find_class_names(holders)
            if names is not None and len(names) == count:
                display, self.sources["class names"] = replace(display, names=names), f"found in {where}"
        return display


def _device(module: nn.Module) -> torch.device:
    tensor = next(module.parameters(), next(module.buffers(), torch.empty(0)))
    return tensor.device
