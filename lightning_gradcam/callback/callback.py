"""The Lightning callback: its arguments, and when it gathers and looks."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_gradcam.attacks import FGSM, PGD
from lightning_gradcam.baseline.baseline import Baseline
from lightning_gradcam.callback.compat import AnyCallback, raise_misconfiguration
from lightning_gradcam.callback.config import CallbackConfig, apply_baseline, check_schedule, coerce_probe, short_repr
from lightning_gradcam.callback.controller import FitController
from lightning_gradcam.callback.schedule import SnapshotSchedule
from lightning_gradcam.callback.trainer import (
    count_batches,
    describe_explained_weights,
    get_log_step,
    has_validation,
    is_before_first_step,
    takes_iterator,
)
from lightning_gradcam.capture.layer import Layer
from lightning_gradcam.methods.variants import Variant
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe
from lightning_gradcam.targets import coerce_target


class GradCAMCallback(AnyCallback):
    """Shows in the logger, epoch after epoch, where a model finds its evidence in a fixed set of images.

    Training is bit for bit what it would be without it. A look costs about one forward pass over the probe. Looks are
    made before the first step where the probe is complete by then, after validations (or at the end of training epochs
    without one), and at the end of training.

    Args:
        layers: ``"auto"`` (the last feature map with at least 16 cells), ``"stages"`` (the last one of every
            resolution), a layer's name, a list of names, or a rule over the traced shapes.
        method: A method's name, a `Variant`, a callable of (activations, gradients) or (passes), or a list of these.
        target: ``"auto"`` (the label, or each of several, where batches have labels, else the predicted class), a name
            (``"topk"``, say), an object of `targets`, a class, one per image, or a callable of (output, probe).
        probe: How many images to gather from the batches that Lightning hands over, or the images themselves, as the
            model takes them: a `Probe`, or ``(images, labels)``.
        every_n_epochs: Looks are made in every n-th epoch from the first one on, and in the last.
        max_overhead: The share of the time that looks may take, else they are made less often; when, the clock decides.
        chunk: How many images are explained at once; None is all. Halved where memory runs out, until the run ends.
        pixels: The mean and standard deviation that images were normalised with; by default found in the
            ``Normalize`` of the dataset or datamodule.
        forward: How the model is called, a callable of (module, probe); by default ``module(probe.images)``.
        fuse: Of several layers, one map in front of theirs: the ``"mean"``, the ``"max"``, or the mean ``"weighted"``
            towards the deepest. The picture of the run and the plain curves are this map's then.
        flips: Whether mirrored images are explained, too, and the mean is shown; a look costs twice as much then.
        attack: What the images are attacked with at each look, for its passes and a second look: ``"fgsm"``, ``"pgd"``,
            an `FGSM` or `PGD`, or a callable of (pixel-space model, images in [0, 1], labels).
        baseline: A file of `Baseline.save`, or a `Baseline`: its images are explained, at its layers, by its methods,
            for its classes, and ``baseline_similarity`` tells how far maps agree with those kept.
        class_names: What the classes are called; by default found in the dataset's ``classes``.
        scale: ``"image"`` stretches every map to its own range, ``"shared"`` shows all on the scale of the largest
            evidence of any look so far, a number is the evidence that has the last colour everywhere.
        colormap: A matplotlib colormap.
        interpolation: How maps are enlarged: ``"bilinear"``, ``"nearest"`` (shows the cells) or ``"bicubic"``.
        film: How many looks the picture of the whole run shows, drawn when training ends; 0 for no such picture.
        tag: What all names in the logger begin with; two callbacks need two.
        save_probe: What checkpoints hold: ``"images"``, or their ``"hash"`` where they are large or private.
        on_error: ``"warn"`` gives up with one warning where the model cannot be explained; ``"raise"`` raises.

    Raises:
        MisconfigurationException: An argument is wrong; here, or before training starts where the model has to tell.
    """

    def __init__(
        self,
        *,
        # Of several kinds LightningCLI takes the first that fits: "1" is a class, and a dotted path a callable.
        layers: str | Layer | list[str | Layer] | Callable[..., Any] = "auto",
        method: Variant | Callable[..., Any] | str | list[Variant | Callable[..., Any] | str] = "gradcam",
        target: int | Callable[..., Any] | str | list[int] = "auto",
        probe: int | Probe | tuple[Tensor, Tensor] = 16,
        every_n_epochs: int = 1,
        max_overhead: float | None = None,
        chunk: int | None = None,
        pixels: Normalization | None = None,
        forward: Callable[..., Any] | None = None,
        fuse: Literal["mean", "max", "weighted"] | None = None,
        flips: bool = False,
        attack: FGSM | PGD | Callable[..., Any] | str | None = None,
        baseline: str | Path | Baseline | None = None,
        class_names: list[str] | None = None,
        scale: Literal["image", "shared"] | float = "image",
        colormap: str = "inferno",
        interpolation: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
        film: int = 8,
        tag: str = "gradcam",
        save_probe: Literal["images", "hash"] = "images",
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name in _DEFAULTS}
        said = {name: short_repr(value) for name, value in arguments.items()}
        self._set = {name: words for name, words in said.items() if words != short_repr(_DEFAULTS[name])}
        super().__init__()
        with raise_misconfiguration():
            self.config = CallbackConfig(
                layers,
                method,
                None if isinstance(target, str) and target == "auto" else coerce_target(target),
                coerce_probe(probe),
                forward,
                DisplayConfig(pixels, class_names, colormap, scale, film, interpolation),
                save_probe,
                fuse,
                flips,
                attack,
                chunk=chunk,
            )
            check_schedule(every_n_epochs, tag, on_error, max_overhead)
        self.every_n_epochs, self.tag, self.on_error = every_n_epochs, tag.strip("/"), on_error
        self.baseline, self.max_overhead = baseline, max_overhead
        self._begin()

    def _begin(self) -> None:
        self._run = FitController(
            self.config, self.tag, SnapshotSchedule(self.every_n_epochs, self.max_overhead), self.on_error == "raise"
        )

    def __repr__(self) -> str:
        """The arguments that are not the default."""
        return f"{type(self).__name__}({', '.join(f'{name}={words}' for name, words in self._set.items())})"

    @property
    def state_key(self) -> str:
        """Tells the checkpoint state of several callbacks apart."""
        return self._generate_state_key(tag=self.tag)

    @property
    def monitor(self) -> ProbeMonitor | None:
        """The probe with its looks so far; None before it is complete."""
        return self._run.session.monitor

    def draw_film(self) -> Tensor | None:
        """The run so far as one picture, looks across and images down, ``(3, height, width)`` uint8."""
        return self.monitor.draw_film() if self.monitor else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """A new run begins; the checkpoint that it may go on from is loaded after this."""
        if stage == "fit":
            self._begin()
            if self.baseline is not None:
                with raise_misconfiguration():
                    self._run.config = apply_baseline(self.config, self.baseline)
        self._run.restored = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise what the user can mend before anything has run."""
        with raise_misconfiguration():
            self._run.check(trainer, pl_module, describe_explained_weights(trainer, self))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The sanity check's batches come again in the first validation."""
        if not trainer.sanity_checking:
            self._run.session.probe_source.start_over()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Gather, before the step can change the batch; the sanity check's batches count."""
        if self._gathers(dataloader_idx) and not takes_iterator(pl_module.validation_step):
            self._run.offer(trainer, batch, "validation")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Gather where the step fetched the batch itself."""
        if self._gathers(dataloader_idx) and takes_iterator(pl_module.validation_step):
            self._run.offer(trainer, batch, "validation")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look after a validation."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._run.look_if_due(trainer, pl_module, get_log_step(trainer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the model before its first step, where images are given or the sanity check has shown enough."""
        with raise_misconfiguration():
            self._run.start(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Gather from training batches where no others come; the first one may be enough."""
        if self._gathers_from_training(trainer) and not takes_iterator(pl_module.training_step):
            self._run.offer(trainer, batch, "training")
            if is_before_first_step(trainer):
                with raise_misconfiguration():
                    self._run.start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Gather where the step fetched the batch itself."""
        if self._gathers_from_training(trainer) and takes_iterator(pl_module.training_step):
            self._run.offer(trainer, batch, "training")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look where no validation ended with this batch."""
        if self._run.logged_at != count_batches(trainer):
            wait = self._run.session.gathering and has_validation(trainer)
            self._run.look_if_due(trainer, pl_module, get_log_step(trainer) - 1, wait)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what training ended with, and show the run."""
        self._run.finish(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Show the run up to where it was interrupted."""
        if isinstance(exception, KeyboardInterrupt):
            self._run.show_film(trainer)

    def _gathers(self, dataloader_idx: int) -> bool:
        return self._run.session.gathering and dataloader_idx == 0

    def _gathers_from_training(self, trainer: Trainer) -> bool:
        return self._run.session.gathering and not has_validation(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to look at the same images and go on with the curves."""
        return self._run.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a run; what it needs of the device waits until training starts."""
        self._run.load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """A copy begins anew: what a run has found holds the model, and so does `log`, which the Trainer attaches."""
        return {name: value for name, value in vars(self).items() if name not in ("log", "log_dict", "_run")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the choices over."""
        vars(self).update(state)
        self._begin()


_DEFAULTS = {p.name: p.default for p in signature(GradCAMCallback).parameters.values()}
