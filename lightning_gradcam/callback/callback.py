"""The Lightning callback: its arguments, and the hooks in which it collects images and takes snapshots."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_gradcam.attacks import ATTACKS, FGSM, PGD
from lightning_gradcam.baseline.baseline import Baseline
from lightning_gradcam.callback.arguments import coerce_probe, short_repr
from lightning_gradcam.callback.compat import AnyCallback, raise_misconfiguration
from lightning_gradcam.callback.config import CallbackConfig
from lightning_gradcam.callback.controller import FitController
from lightning_gradcam.callback.import_paths import import_if_path
from lightning_gradcam.callback.state_key import StateKey, check_tags
from lightning_gradcam.callback.trainer import (
    count_batches,
    describe_explained_weights,
    get_log_step,
    has_validation,
    is_before_first_step,
    takes_iterator,
)
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.methods import METHODS
from lightning_gradcam.methods.variants import Variant
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.probe.types import Target
from lightning_gradcam.targets import TARGETS, coerce_target
from lightning_gradcam.targets.output_kinds import OutputName


class GradCAMCallback(AnyCallback):
    """Logs, epoch after epoch, where a model finds its evidence in a probe: a fixed batch of images.

    Training is bitwise identical to a run without the callback. A snapshot of the probe costs about one forward pass
    over it. Snapshots are taken before the first step if the probe is complete by then, after validations (or at the
    end of training epochs without one), and at the end of training.

    Args:
        layers: ``"auto"`` (the last feature map with at least 16 cells), ``"stages"`` (the last one of every
            resolution), a layer's name, a list of names, or a rule over the traced shapes.
        method: A method's name, a `Variant`, a callable of (activations, gradients) or (passes), or a list of these.
        target: ``"auto"`` (the label, or each of several, if batches have labels, else the predicted class), a name
            such as ``"topk"``, an object of `targets`, a class, one per image, or a callable of (output, probe).
        output: What the model's output is: ``"classes"``, ``"regression"``, ``"embedding"``, ``"segmentation"``,
            ``"image"``, ``"detection"`` or ``"other"``; ``"auto"`` infers it from the output, the labels, the losses of
            the training and the data, and the summary says from which.
        probe: The number of images to collect from the batches that Lightning passes to the hooks, or the images
            themselves, preprocessed for the model: a `Probe`, or ``(images, labels)``.
        every_n_epochs: Snapshots are taken in every n-th epoch from the first one on, and in the last.
        max_overhead: The fraction of the time that snapshots may take, in (0, 1). With it, fewer are taken if
            necessary, and when they are taken depends on the clock.
        chunk: The number of images explained at once; None for all. Halved for the rest of the run if memory runs out.
        pixels: The mean and standard deviation that images were normalized with; by default found in the
            ``Normalize`` of the dataset or datamodule.
        forward: How the model is called, a callable of (module, probe); by default ``module(probe.images)``.
        fuse: Adds, before the maps of several layers, one fused map: their ``"mean"``, their ``"max"``, or their mean
            ``"weighted"`` towards the deepest. The film and the plain curves show this map then.
        flips: Whether mirrored images are explained, too, and the mean is shown, which doubles the cost.
        attack: Attacks the images in each snapshot, and explains them a second time: ``"fgsm"``, ``"pgd"``, an `FGSM`
            or `PGD`, or a callable of (pixel-space model, images in [0, 1], labels).
        baseline: A file of `Baseline.save`, or a `Baseline`: its images are explained, at its layers, by its methods,
            for its classes, and ``baseline_similarity`` measures how well the maps agree with those of the baseline.
        class_names: The names of the classes; by default found in the dataset's ``classes``.
        scale: ``"image"`` stretches every map to its own range, ``"shared"`` shows all maps on the scale of the
            largest evidence of any snapshot so far, a number is the evidence that has the last color everywhere.
        colormap: A matplotlib colormap.
        interpolation: How maps are enlarged: ``"bilinear"``, ``"nearest"`` (shows the cells) or ``"bicubic"``.
        placement: Where the cells of a layer lie in the image: ``"receptive_field"``, at the centers of their receptive
            fields, or ``"stretch"``, spread evenly, as other libraries place them.
        film: The number of snapshots in the film, a figure of the whole run with one column per snapshot, drawn when
            training ends; 0 for no film.
        curves: The curves that loggers get: ``"main"``, the drift of the first layer, the overhead, and those of an
            attack or a baseline; or ``"all"``, which callbacks can monitor in any case.
        tag: The prefix of all names in the logger; two callbacks need two tags.
        save_probe: Whether checkpoints hold the ``"images"``, or their ``"hash"`` if they are large or private.
        on_error: ``"warn"`` disables explanations with one warning if the model cannot be explained; ``"raise"``
            raises the error.

    Raises:
        MisconfigurationException: An argument is wrong. Raised here, or before training starts if the check needs the
            model.
    """

    def __init__(
        self,
        *,
        # Of several types LightningCLI takes the first that fits: "1" is a class. Names and lists stand before
        # callables, which it would save them as.
        layers: str | Layer | list[str | Layer] | Callable[..., Any] = "auto",
        method: Variant | str | list[Variant | str | Callable[..., Any]] | Callable[..., Any] = "gradcam",
        target: int | str | list[int] | Callable[..., Any] = "auto",
        output: OutputName = "auto",
        probe: int | Probe | tuple[Tensor, Tensor] = 16,
        every_n_epochs: int = 1,
        max_overhead: float | None = None,
        chunk: int | None = None,
        pixels: Normalization | None = None,
        forward: Callable[..., Any] | None = None,
        fuse: Literal["mean", "max", "weighted"] | None = None,
        flips: bool = False,
        attack: FGSM | PGD | str | Callable[..., Any] | None = None,
        baseline: str | Path | Baseline | None = None,
        class_names: list[str] | None = None,
        scale: Literal["image", "shared"] | float = "image",
        colormap: str = "inferno",
        interpolation: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
        placement: Literal["receptive_field", "stretch"] = "receptive_field",
        film: int = 8,
        curves: Literal["main", "all"] = "main",
        tag: str = "gradcam",
        save_probe: Literal["images", "hash"] = "images",
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        arguments = {name: short_repr(value) for name, value in locals().items() if name in _DEFAULTS}
        self._arguments = {name: text for name, text in arguments.items() if text != short_repr(_DEFAULTS[name])}
        super().__init__()
        with raise_misconfiguration():
            self.config = CallbackConfig(
                layers=layers,
                method=import_if_path("method", method, METHODS),
                target=_resolve_target(target),
                output=output,
                probe=coerce_probe(probe),
                forward=forward,
                normalization=pixels,
                class_names=class_names,
                display=DisplayConfig(colormap, scale, film, interpolation),
                save_probe=save_probe,
                fuse=fuse,
                flips=flips,
                placement=placement,
                attack=import_if_path("attack", attack, ATTACKS),
                chunk=chunk,
                baseline=baseline,
                every_n_epochs=every_n_epochs,
                max_overhead=max_overhead,
                curves=curves,
                tag=tag.strip("/") if isinstance(tag, str) else tag,
                on_error=on_error,
            )
        self._controller = FitController(self.config, Ranks())
        self._is_set_up = False

    def __repr__(self) -> str:
        """Return the arguments that differ from their defaults."""
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in self._arguments.items())})"

    @property
    def state_key(self) -> str:
        """The key of the state in checkpoints, which differs between callbacks with different tags."""
        key = self._generate_state_key(tag=self.config.tag)
        return key if self._is_set_up else StateKey(key, owner=self)

    @property
    def monitor(self) -> ProbeMonitor | None:
        """The monitor of the probe with its snapshots so far; None until the probe is complete."""
        return self._controller.monitor

    def draw_film(self) -> Tensor | None:
        """Draw the run so far as one figure, snapshots across and images down, ``(3, height, width)`` uint8."""
        return self.monitor.draw_film() if self.monitor else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start a new run; the checkpoint that it may resume from is loaded after this hook.

        Raises:
            MisconfigurationException: Another callback has the same tag, or the baseline cannot be used.
        """
        with raise_misconfiguration():
            check_tags(c.config.tag for c in trainer.callbacks if isinstance(c, GradCAMCallback))  # type: ignore[attr-defined]
        self._is_set_up = True
        if stage == "fit":
            with raise_misconfiguration():
                config = self.config.with_baseline()
            self._controller = FitController(config, Ranks.from_trainer(trainer))
        self._controller.checkpoint = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the configuration before training starts."""
        with raise_misconfiguration():
            self._controller.check(trainer, pl_module, describe_explained_weights(trainer, self))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Discard the sanity check's batches, because the first validation has them again."""
        if not trainer.sanity_checking:
            self._controller.session.restart_collection()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Collect images before the step can change the batch, also in the sanity check."""
        if self._collects_from_validation(dataloader_idx) and not takes_iterator(pl_module.validation_step):
            self._controller.add_batch(trainer, batch, "validation")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect images if the step fetched the batch from an iterator itself."""
        if self._collects_from_validation(dataloader_idx) and takes_iterator(pl_module.validation_step):
            self._controller.add_batch(trainer, batch, "validation")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a snapshot after a validation."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._controller.take_snapshot_if_due(trainer, pl_module, get_log_step(trainer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a snapshot before the first step, if images were passed or the sanity check completed the probe."""
        with raise_misconfiguration():
            self._controller.start(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Collect images from training batches in runs without validation; the first batch may be enough."""
        if self._collects_from_training(trainer) and not takes_iterator(pl_module.training_step):
            self._controller.add_batch(trainer, batch, "training")
            if is_before_first_step(trainer):
                with raise_misconfiguration():
                    self._controller.start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect images if the step fetched the batch from an iterator itself."""
        if self._collects_from_training(trainer) and takes_iterator(pl_module.training_step):
            self._controller.add_batch(trainer, batch, "training")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a snapshot if no validation ended with this batch."""
        if self._controller.logged_at != count_batches(trainer):
            wait = self._controller.session.is_collecting and has_validation(trainer)
            self._controller.take_snapshot_if_due(trainer, pl_module, get_log_step(trainer) - 1, wait)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Explain the final weights, and log the film."""
        self._controller.finish(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log the film of a run that the user interrupted."""
        if isinstance(exception, KeyboardInterrupt):
            self._controller.log_film(trainer)

    def _collects_from_validation(self, dataloader_idx: int) -> bool:
        return self._controller.session.is_collecting and dataloader_idx == 0

    def _collects_from_training(self, trainer: Trainer) -> bool:
        return self._controller.session.is_collecting and not has_validation(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to explain the same images and continue the curves."""
        return self._controller.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume a run; what needs the device waits until training starts."""
        self._controller.load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments only: the controller holds the model, and so does `log`, which the Trainer attaches."""
        return {name: value for name, value in vars(self).items() if name not in ("log", "log_dict", "_controller")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the arguments, and start over."""
        vars(self).update(state)
        self._controller = FitController(self.config, Ranks())


def _resolve_target(target: Any) -> Target | None:
    """Return the target; None for ``"auto"``, which depends on the labels of the batches."""
    is_auto = isinstance(target, str) and target == "auto"
    return None if is_auto else coerce_target(import_if_path("target", target, TARGETS))


_DEFAULTS = {p.name: p.default for p in signature(GradCAMCallback).parameters.values()}
