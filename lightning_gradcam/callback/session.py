"""The steps from a configuration to a monitored probe, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_gradcam.callback.arguments import prepare_attack
from lightning_gradcam.callback.checks import (
    check_attackable,
    check_baseline_maps,
    check_class_names,
    check_normalization,
    check_probe,
)
from lightning_gradcam.callback.config import CallbackConfig
from lightning_gradcam.callback.data_settings import find_color_bands, find_names, find_pixels
from lightning_gradcam.callback.import_paths import import_rule
from lightning_gradcam.callback.output_labels import keep_output_labels
from lightning_gradcam.callback.probe_source import ProbeSource
from lightning_gradcam.callback.probe_state import LARGE_PROBE, can_resume, fits_checkpoint, identify_probe
from lightning_gradcam.callback.summary import summarize
from lightning_gradcam.callback.trainer import PrecisionForward
from lightning_gradcam.callback.warn_once import WarnOnce
from lightning_gradcam.capture.forward import default_forward, find_forward
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.explainer.chunking import Chunks
from lightning_gradcam.explainer.explainer import Explainer
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.monitor.monitor import ProbeMonitor, resolve_target
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.probe.dataset_info import find_num_classes
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Forward, Target
from lightning_gradcam.targets import TARGETS
from lightning_gradcam.targets.output_kinds.label_clues import LabelClues, read_labels

Setting = TypeVar("Setting")


class ProbeSession:
    """The probe of one run, from the first batch to the last snapshot.

    With several processes, `build_explainer` and `start_monitoring` are called in all of them, and all of them explain
    rank zero's images.

    Args:
        config: The callback's configuration.
        ranks: The processes of the run.
        warn_once: Takes the warnings.
    """

    def __init__(self, config: CallbackConfig, ranks: Ranks, warn_once: WarnOnce) -> None:
        self.config, self.ranks, self.warn_once = config, ranks, warn_once
        self.probe_source = ProbeSource(config.probe)
        self.explainer: Explainer | None = None
        self.monitor: ProbeMonitor | None = None
        self._num_classes: int | None = None
        self._sources: dict[str, str] = {}
        self._probe_state: dict[str, Any] = {}  # the same in every checkpoint

    @property
    def is_collecting(self) -> bool:
        """Whether images are collected from batches, and more may come."""
        return self.probe_source.is_collecting and self.monitor is None

    @property
    def is_complete(self) -> bool:
        """Whether no further batch could change the probe."""
        return self.probe_source.is_complete(self.explainer.output_kind.num_logits if self.explainer else None)

    def add_source(self, name: str, source: str) -> None:
        """Add a line to the summary: a setting, and where it was found."""
        self._sources[name] = source

    def _note(self, name: str, resolved: tuple[Setting, str]) -> Setting:
        """Return a setting, and add its source to the summary if it has one."""
        setting, source = resolved
        if source:
            self.add_source(name, source)
        return setting

    def add_batch(self, batch: Any, name: str) -> None:
        """Collect images from a batch; ``name`` is the kind of batch in the summary."""
        if self.monitor is None and not (self.explainer and self.is_complete):
            self.probe_source.add_batch(batch, name)

    def restart_collection(self) -> None:
        """Discard what was collected, because the same batches come again."""
        self.probe_source.restart()

    def build_explainer(self, module: nn.Module, precision: Any) -> Explainer:
        """Trace the model once with the images available now, and choose the layers.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument does not fit the model.
            NotExplainableError: There are no images, or the model has nothing that can be explained.
        """
        probe, target = self._load_probe(module, precision), self.config.target
        if self.probe_source.is_collecting and target is TARGETS["label"]:
            target = None  # whether the collected labels are classes is known once the model's classes are
        forward = PrecisionForward(self.ranks.wrap_forward(self._resolve_forward(module)), precision)
        labels = self._read_labels(probe)
        explainer = self.ranks.run_on_all_ranks(
            lambda: prepare(
                module,
                probe,
                layers=import_rule(self.config.layers, module),
                method=self.config.method,
                target=target or TARGETS["predicted"],
                forward=forward,
                fuse=self.config.fuse,
                flips=self.config.flips,
                output=self.config.output,
                labels=labels,
                num_classes=self._num_classes,
                placement=self.config.placement,
            )
        )
        check_class_names(self.config.class_names, explainer.output_kind.num_logits)
        check_normalization(self.config.normalization, probe.images.shape[1])
        if self.config.attack is not None:
            check_attackable(explainer)
        self.explainer = explainer
        return explainer

    def start_monitoring(
        self,
        module: nn.Module,
        precision: Any,
        data_sources: Sequence[Any],
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        """Fix the probe: from here on the same images are explained.

        Args:
            module: The model.
            precision: The run's precision plugin.
            data_sources: Datasets and datamodules that may hold the normalization and the class names.
            checkpoint: What `state_dict` returned in the run that is resumed.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument does not fit the model or the images.
            NotExplainableError: There are no images, or the model has nothing that can be explained.
        """
        if checkpoint is not None and checkpoint["probe"] is not None and isinstance(self.config.probe, int):
            self.probe_source = ProbeSource(Probe.from_state_dict(checkpoint["probe"]))
        self._num_classes = find_num_classes(data_sources)
        explainer = self.explainer or self.build_explainer(module, precision)
        probe, label_warning = self._load_probe(module, precision), ""
        explainer = self._update_output_kind(explainer, probe) or self.build_explainer(module, precision)
        if self.probe_source.is_collecting:
            probe, label_warning = keep_output_labels(probe, explainer.output_kind, self._get_label_name())
        target = self._resolve_target(probe, explainer, [explainer.note, label_warning])
        self.monitor = self.ranks.run_on_all_ranks(
            lambda: self._build_monitor(probe, explainer, target, [*data_sources], module)
        )
        self.warn_once(explainer.note, label_warning)
        if self.config.save_probe == "images" and not fits_checkpoint(probe):
            self.warn_once(LARGE_PROBE.format(size=probe.nbytes >> 20))
        if checkpoint is not None:
            self._resume(checkpoint)
        self.probe_source.release()

    def _load_probe(self, module: nn.Module, precision: Any) -> Probe:
        """Return rank zero's images on the model's device, in the run's precision."""
        original = self.ranks.broadcast_from_rank_zero(self._get_probe)
        probe = self.ranks.run_on_all_ranks(lambda: original.to(_get_device(module)))
        # Collected images are in the run's precision already.
        is_converted = self.probe_source.is_collecting
        probe = probe if is_converted else replace(probe, images=precision.convert_input(probe.images))
        return probe.read_axes(module)

    def _read_labels(self, probe: Probe) -> Sequence[LabelClues]:
        """Return what may be labels: those of the probe, and what came with collected images."""
        return read_labels(probe, self._get_label_name(), with_extras=isinstance(self.config.probe, int))

    def _get_label_name(self) -> str:
        """Return the name of the labels in rank zero's batches."""
        return self.ranks.broadcast_from_rank_zero(lambda: self.probe_source.label_name)

    def _update_output_kind(self, explainer: Explainer, probe: Probe) -> Explainer | None:
        """Return the explainer with the kind that all labels and the data imply; None if it is another one."""
        assert explainer.reading is not None
        current = explainer.output_kind
        kind = explainer.reading.update(current, probe, self._read_labels(probe), self._num_classes)
        kind = kind.for_target(self.config.target or TARGETS["predicted"])
        if (type(kind), kind.head) != (type(current), current.head):
            return None
        return replace(explainer, output_kind=kind)

    def _get_probe(self) -> Probe:
        probe = self.probe_source.get_probe()
        return probe.to("cpu") if self.ranks.count > 1 else probe  # other processes have other devices

    def _resolve_forward(self, module: nn.Module) -> Forward:
        """Return the user's forward pass, or the child module's if the module has none, or the default."""
        if self.config.forward is not None:
            return self.config.forward
        child_forward = find_forward(module)
        if child_forward is not None:
            self.add_source("model", f"calls {child_forward.child}, since {type(module).__name__} defines no forward")
        return child_forward or default_forward(module)

    def _resolve_target(self, probe: Probe, explainer: Explainer, warnings: Sequence[str]) -> Target:
        """Return the target, or raise with the warnings that explain why there are no labels."""
        masks = explainer.output_kind.reads_masks(probe)
        if self.config.target is TARGETS["label"] and probe.classes is None and not probe.multilabel and not masks:
            reason = "`target='label'` needs labels of shape (N,), and the batches hold none."
            raise NotExplainableError(" ".join(filter(None, [*warnings, reason])))
        return resolve_target(self.config.target, probe, explainer)

    def _build_monitor(
        self, probe: Probe, explainer: Explainer, target: Target, data_sources: Sequence[Any], module: nn.Module
    ) -> ProbeMonitor:
        config, num_classes = self.config, explainer.output_kind.num_classes
        normalization = self._note("normalization", find_pixels(config.normalization, probe, data_sources, module))
        probe = replace(probe, pixels=normalization)
        class_names = self._note("class names", find_names(config.class_names, num_classes, data_sources))
        bands = self._note("bands", find_color_bands(probe, data_sources))
        attack = prepare_attack(config.attack, probe.images, self.ranks.has_sharded_model)
        check_probe(probe, explainer, attack is not None)
        check_baseline_maps(config.baseline_maps, explainer)
        return ProbeMonitor(
            probe,
            ShardedExplainer(explainer, self.ranks, Chunks(config.chunk)),
            target,
            replace(config.display, bands=bands),
            class_names=class_names,
            draws=self.ranks.is_rank_zero,
            attack=attack,
            baseline_maps=config.baseline_maps,
        )

    def _resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue the monitor of an earlier run, if it explained the same."""
        assert self.monitor is not None
        if can_resume(checkpoint, self.monitor):
            self.monitor.load_state_dict(checkpoint["watch"])
        else:
            self.warn_once(
                "The snapshots in the checkpoint explain other images, layers, methods or targets than this run, so "
                "its curves start over."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs as plain containers of CPU tensors; empty until the probe is complete."""
        if self.monitor is None:
            return {}
        if not self._probe_state:
            request = self.probe_source.request  # the user's probe, or that of the checkpoint
            pixels = request.pixels if isinstance(request, Probe) else None
            self._probe_state = identify_probe(self.monitor.probe, pixels, self.config.save_probe)
        return {**self._probe_state, "watch": self.monitor.state_dict()}

    def summarize(self) -> dict[str, str]:
        """Return what is explained, and where it was found, one line per setting; empty without a monitor."""
        return summarize(self.monitor, self.probe_source, self._sources) if self.monitor else {}


def _get_device(module: nn.Module) -> torch.device:
    tensor = next(module.parameters(), next(module.buffers(), torch.empty(0)))
    return tensor.device
