"""The Lightning callback: when to look, what is said once, what is logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_gradcam.choices import Choices, check_kind, coerce_probe
from lightning_gradcam.explanation import ForwardError, NotExplainableError
from lightning_gradcam.host import (
    batches_done,
    before_first_step,
    data_of,
    is_last_epoch,
    log_step,
    monitored,
    on_every_rank,
    shards,
    takes_iterator,
    validates,
)
from lightning_gradcam.layers import check_layers
from lightning_gradcam.loggers import safe_tag, show, write_text
from lightning_gradcam.probe import Pixels, Probe
from lightning_gradcam.session import Session
from lightning_gradcam.targets import coerce_target
from lightning_gradcam.trace import Layer
from lightning_gradcam.track import to_log
from lightning_gradcam.watch import Display, Watch


class GradCAMCallback(Callback):
    """Shows in the logger, epoch after epoch, where a model finds its evidence in a fixed set of images.

    Training is bit for bit what it would be without it. A look costs about one forward pass over the probe. Looks are
    made before the first step where the probe is complete by then, after validations (or at the end of training epochs
    without one), and at the end of training.

    Args:
        layers: ``"auto"`` (the last feature map with at least 16 cells), ``"stages"`` (the last one of every
            resolution), a layer's name, a list of names, or a rule over the traced shapes.
        method: A method's name, a list of names, or a callable of (activations, gradients).
        target: ``"auto"`` (the label where batches have labels, else the predicted class), ``"label"``,
            ``"predicted"``, a class, one class per image, or a callable of (output, probe).
        probe: How many images to gather from the batches that Lightning hands over, or the images themselves, as the
            model takes them: a `Probe`, or ``(images, labels)``.
        every_n_epochs: Looks are made in every n-th epoch from the first one on, and in the last.
        pixels: The mean and standard deviation that images were normalised with; by default found in the
            ``Normalize`` of the dataset or datamodule.
        forward: How the model is called, a callable of (module, probe); by default ``module(probe.images)``.
        class_names: What the classes are called; by default found in the dataset's ``classes``.
        scale: ``"image"`` stretches every map to its own range, ``"shared"`` shows all on the scale of the largest
            evidence of any look so far, a number is the evidence that has the last colour everywhere.
        colormap: A matplotlib colormap.
        film: How many looks the picture of the whole run shows, drawn when training ends; 0 for no such picture.
        tag: What all names in the logger begin with; two callbacks need two.
        on_error: ``"warn"`` gives up with one warning where the model cannot be explained; ``"raise"`` raises.

    Raises:
        MisconfigurationException: An argument is wrong; here, or before training starts where the model has to tell.

    Example::

        trainer = Trainer(callbacks=[GradCAMCallback()])
    """

    def __init__(
        self,
        *,
        layers: str | Layer | list[str | Layer] | Callable[..., Any] = "auto",
        method: str | list[str] | Callable[..., Any] = "gradcam",
        target: str | int | list[int] | Callable[..., Any] = "auto",
        probe: int | Probe | tuple[Tensor, Tensor] = 16,
        every_n_epochs: int = 1,
        pixels: Pixels | None = None,
        forward: Callable[..., Any] | None = None,
        class_names: list[str] | None = None,
        scale: Literal["image", "shared"] | float = "image",
        colormap: str = "inferno",
        film: int = 8,
        tag: str = "gradcam",
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__()
        try:
            self.choices = Choices(
                layers,
                method,
                None if isinstance(target, str) and target == "auto" else coerce_target(target),
                coerce_probe(probe),
                forward,
                Display(pixels, class_names, colormap, scale, film),
            )
            check_kind("every_n_epochs", every_n_epochs, (int,))
            check_kind("tag", tag, (str,))
            if every_n_epochs < 1:
                raise ValueError(f"Expected `every_n_epochs` of at least 1, but got {every_n_epochs}.")
            if not tag.strip("/"):
                raise ValueError(f"Expected a `tag` of at least one character, but got {tag!r}.")
            if on_error not in ("warn", "raise"):
                raise ValueError(f"Expected `on_error` to be 'warn' or 'raise', but got {on_error!r}.")
        except (TypeError, ValueError) as error:
            raise MisconfigurationException(f"GradCAMCallback: {error}") from error
        self.every_n_epochs, self.tag, self.on_error = every_n_epochs, tag.strip("/"), on_error
        self._begin()

    def _begin(self) -> None:
        """What is known at the start of a run: nothing."""
        self._session = Session(self.choices)
        self._restored: Mapping[str, Any] | None = None
        self._values: dict[str, Tensor | float] = {}
        self._first_epoch: int | None = None
        self._looked_at: int | None = None
        self._logged_at: int | None = None
        self._step = 0
        self._gave_up = False
        self._said: set[str] = set()

    @property
    def state_key(self) -> str:
        """Tells the checkpoint state of several callbacks apart."""
        return self._generate_state_key(tag=self.tag)

    @property
    def watch(self) -> Watch | None:
        """The probe with its looks so far; None before it is complete."""
        return self._session.watch

    def draw_film(self) -> Tensor | None:
        """The run so far as one picture, looks across and images down, ``(3, height, width)`` uint8."""
        return self.watch.draw_film() if self.watch else None

    # When

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """A new run begins; the checkpoint that it may go on from is loaded after this."""
        if stage == "fit":
            self._begin()
            if shards(trainer):
                self._gave_up = True
                self._warn(
                    f"{type(trainer.strategy).__name__} splits the model over processes, which looks do not serve yet: "
                    "there are no explanations in this run. DDP is served."
                )
        self._restored = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise what the user can mend before anything has run."""
        with self._guarded(before_training=True):
            check_layers(self.choices.layers, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Gather, before the step can change the batch; the sanity check's batches count."""
        if dataloader_idx == 0 and not takes_iterator(pl_module.validation_step):
            self._offer(trainer, batch, "validation")

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
        if dataloader_idx == 0 and takes_iterator(pl_module.validation_step):
            self._offer(trainer, batch, "validation")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the untrained model, where the images are given or the sanity check has shown all classes."""
        if self._restored is not None and self._may_look(trainer):
            self._complete(trainer, pl_module, before_training=False)
        elif self._session.has_images:
            self._start(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The sanity check's batches come again in the first validation."""
        if not trainer.sanity_checking:
            self._session.start_over()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look after a validation."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._look_if_due(trainer, pl_module, log_step(trainer))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Gather from training batches where no others come; the first one may be enough."""
        if self._session.gathering and not validates(trainer) and not takes_iterator(pl_module.training_step):
            self._offer(trainer, batch, "training")
            if self._session.has_images and before_first_step(trainer):
                self._start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Gather where the step fetched the batch itself."""
        if self._session.gathering and not validates(trainer) and takes_iterator(pl_module.training_step):
            self._offer(trainer, batch, "training")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look where no validation ended with this batch."""
        if self._logged_at != batches_done(trainer):
            wait = self._session.gathering and validates(trainer)
            self._look_if_due(trainer, pl_module, log_step(trainer) - 1, wait=wait)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what training ended with, and show the run."""
        if not self.watch and self._may_look(trainer):
            self._complete(trainer, pl_module, before_training=False)
        if self.watch and not self._gave_up and self._looked_at != batches_done(trainer):
            step = max(log_step(trainer) - 1, 0)
            if self._look(trainer, pl_module, f"end · step {step}", step):
                self._log_directly(trainer, self._values)
        self._show_film(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Show the run up to where it was interrupted."""
        if isinstance(exception, KeyboardInterrupt):
            self._show_film(trainer)

    # What

    def _offer(self, trainer: Trainer, batch: Any, source: str) -> None:
        if self._session.gathering and self._may_look(trainer) and trainer.state.fn == "fit":
            with self._guarded():
                self._session.offer(batch, source)

    def _may_look(self, trainer: Trainer) -> bool:
        """Of several processes one looks, at the unwrapped module: the weights are the same in all."""
        return trainer.is_global_zero and not self._gave_up

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide where to look before the first step, and look where the probe is complete."""
        if self.watch or not self._may_look(trainer):
            return
        with self._guarded(before_training=True):
            self._session.prepare(pl_module, trainer.precision_plugin)
        if self._session.settled and not self._gave_up:
            self._complete(trainer, pl_module, before_training=True)
        if self.watch and before_first_step(trainer):
            step = log_step(trainer)
            if self._look(trainer, pl_module, "start · before the first step", step):
                self._log_directly(trainer, {k: v for k, v in self._values.items() if "drift" not in k})

    def _look_if_due(self, trainer: Trainer, pl_module: LightningModule, step: int, wait: bool = False) -> None:
        if not self.watch and not wait and self._may_look(trainer):
            self._complete(trainer, pl_module, before_training=False)
        epoch, looked = trainer.current_epoch, False
        if self.watch and not self._gave_up:
            self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
            if (epoch - self._first_epoch) % self.every_n_epochs == 0 or is_last_epoch(trainer):
                looked = self._look(trainer, pl_module, f"epoch {epoch} · step {step}", step)
        self._log(trainer, pl_module, looked)

    def _complete(self, trainer: Trainer, pl_module: LightningModule, *, before_training: bool) -> None:
        with self._guarded(before_training):
            warnings = self._session.complete(pl_module, trainer.precision_plugin, data_of(trainer), self._restored)
            self._restored = None
            self._warn(*warnings)
            facts = self._session.describe()
            rank_zero_info("GradCAMCallback watches\n" + "\n".join(f"  {what}: {why}" for what, why in facts.items()))
            write_text(trainer.loggers, f"{self.tag}/choices", facts, log_step(trainer))

    def _look(self, trainer: Trainer, pl_module: LightningModule, moment: str, step: int) -> bool:
        assert self.watch is not None
        self._looked_at = batches_done(trainer)
        with self._guarded():
            look = self.watch.look(pl_module, moment)
            self._values, self._step = dict(look.numbers), step
            for key, picture in look.pictures.items():
                self._show(trainer, key, picture)
            self._warn(self.watch.complaint(look))
        return not self._gave_up

    def _show(self, trainer: Trainer, key: str, picture: Tensor) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            self._warn(*show(trainer.loggers, trainer.default_root_dir, f"{self.tag}/{key}", picture, self._step))

    def _show_film(self, trainer: Trainer) -> None:
        with self._guarded():
            film = self.draw_film()
            if film is not None:
                self._show(trainer, "film", film)

    def _log(self, trainer: Trainer, pl_module: LightningModule, looked: bool) -> None:
        """Through `log`, so that callbacks can monitor; what they wait for is there, whatever happens to looks."""
        self._logged_at = batches_done(trainer)
        awaited = {name.removeprefix(f"{self.tag}/") for name in monitored(trainer) if name.startswith(f"{self.tag}/")}
        values = on_every_rank(trainer, to_log(self._values, awaited, looked, self._gave_up))
        if values:
            named = {f"{self.tag}/{safe_tag(name)}": value for name, value in values.items()}
            with self._guarded():
                pl_module.log_dict(named, on_step=False, on_epoch=True, batch_size=1)

    def _log_directly(self, trainer: Trainer, values: Mapping[str, Tensor | float]) -> None:
        """Where Lightning allows no `log`."""
        with self._guarded():
            for logger in trainer.loggers:
                named = {f"{self.tag}/{safe_tag(name)}": float(value) for name, value in values.items()}
                logger.log_metrics(named, self._step)

    # Faults

    @contextmanager
    def _guarded(self, before_training: bool = False) -> Iterator[None]:
        """A fault of the arguments is raised before training; any other is named once, and looks end."""
        try:
            yield
        except Exception as error:
            if self.on_error == "raise":
                raise
            given = isinstance(self.choices.probe, Probe) or self.choices.forward is not None
            wrong = isinstance(error, (TypeError, ValueError)) or (given and isinstance(error, ForwardError))
            if before_training and wrong:
                raise MisconfigurationException(f"GradCAMCallback: {error}") from error
            self._gave_up = True
            what = str(error) if isinstance(error, NotExplainableError) else f"{type(error).__name__}: {error}"
            self._warn(
                f"No explanations from here on: {what.rstrip('.')}. Training goes on without them; `on_error='raise'` "
                "shows where it happened."
            )

    def _warn(self, *sentences: str) -> None:
        for sentence in sentences:
            if sentence and sentence not in self._said:
                self._said.add(sentence)
                rank_zero_warn(f"GradCAMCallback: {sentence}")

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to look at the same images and go on with the curves."""
        state = self._session.state_dict()
        if not state:
            return {}
        values = {name: float(value) for name, value in self._values.items()}
        return {**state, "first_epoch": self._first_epoch, "looked_at": self._looked_at, "values": values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a run; what it needs of the device waits until training starts."""
        if state_dict:
            self._restored = state_dict
            self._first_epoch, self._looked_at = state_dict["first_epoch"], state_dict["looked_at"]
            self._values = dict(state_dict["values"])

    def __getstate__(self) -> dict[str, Any]:
        """Without `log`, which the Trainer attaches and which holds the whole model."""
        return {name: value for name, value in vars(self).items() if name not in ("log", "log_dict")}
