"""Writes down all that a training run could notice, moment after moment, and says where two runs part."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import checkpoint

Page: TypeAlias = dict[str, Any]
"""What was found at one moment: plain values by path, so that two are compared with ``==``."""

MOMENTS = (
    "on_fit_start",
    "on_train_start",
    "on_train_batch_start",
    "on_before_optimizer_step",
    "on_validation_batch_start",
    "on_validation_epoch_end",
    "on_train_epoch_end",
)


class Recorder(Callback):
    """Stands behind all other callbacks of a run and opens a new page at each of `MOMENTS`.

    Args:
        tags: What the names in the logger begin with that are not the user's.
    """

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.tags = tags
        self.pages: list[tuple[str, Page]] = []

    def note(self, moment: str, trainer: Trainer, facts: Any) -> None:
        when = f"{moment} before training batch {trainer.fit_loop.total_batch_idx + 1}"
        self.pages.append((when, flat(facts)))

    def without_ours(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        ours = tuple(f"{tag}/" for tag in self.tags)
        return {name: value for name, value in metrics.items() if not name.startswith(ours)}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        facts = {"metrics": self.without_ours(trainer.callback_metrics), **state_of(pl_module)}
        self.note("on_validation_end", trainer, facts)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        others = [callback for callback in trainer.callbacks if type(callback).__name__ != "GradCAMCallback"]
        facts = {
            "progress": (trainer.current_epoch, trainer.global_step, trainer.fit_loop.total_batch_idx),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "callbacks": {type(callback).__name__: callback.state_dict() for callback in others},
            "metrics": self.without_ours(trainer.callback_metrics),
            "logged": self.without_ours(trainer.logged_metrics),
            **state_of(pl_module),
        }
        self.note("on_train_end", trainer, facts)


def _at(moment: str) -> Any:
    def hook(self: Recorder, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.note(moment, trainer, state_of(pl_module))

    return hook


for _moment in MOMENTS:
    setattr(Recorder, _moment, _at(_moment))


class Notebook(Logger):
    """Keeps the user's curves; pictures come through a writer of its own."""

    name, version = "notebook", 0

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.curves: list[tuple[int | None, dict[str, float]]] = []
        self.pictures: list[str] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        users = self.recorder.without_ours(metrics)
        if users.keys() - {"epoch"}:  # which Lightning adds to everything
            self.curves.append((step, users))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """None are of interest."""

    def keep_picture(self, tag: str, picture: Tensor, step: int) -> None:
        self.pictures.append(tag)


def state_of(model: nn.Module) -> dict[str, Any]:
    """A model and the process around it."""
    numpy: Any = np.random.get_state()
    parameters = {name: p for name, p in model.named_parameters() if not is_lazy(p)}
    return {
        "parameter": {name: _counted(p) for name, p in parameters.items()},
        "gradient": {name: p.grad for name, p in parameters.items()},
        "buffer": {name: _counted(b) for name, b in model.named_buffers()},
        "module": {name: _attributes(module) for name, module in model.named_modules()},
        "random state": {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else (),
            "numpy": (numpy[1].tobytes(), *numpy[2:]),
            "python": hash(random.getstate()),
        },
        "switch": {
            "grad mode": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "anomaly detection": torch.is_anomaly_enabled(),
            "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "autocast cache": torch.is_autocast_cache_enabled(),
            "attention fast path": torch.backends.mha.get_fastpath_enabled(),
            "default dtype": str(torch.get_default_dtype()),
            "checkpointing": checkpoint.CheckpointFunction.__name__,
        },
    }


def _counted(tensor: Tensor) -> tuple[Any, ...]:
    """With its version: how often it was written to."""
    return (tensor, None if tensor.is_inference() else tensor._version)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds besides its parameters and buffers: train flag, counts, the state of metrics, and hooks."""
    plain = {name: value for name, value in vars(module).items() if name[0] != "_" and not callable(value)}
    hooks = {name: len(value) for name, value in vars(module).items() if name.endswith("_hooks")}
    return {**plain, **hooks, "training": module.training}


def flat(item: Any) -> Page:
    """Nested containers as plain values by path."""
    return dict(_leaves(item))


def _leaves(item: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(item, Tensor):
        raw = item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield path, (item.dtype, item.shape, item.stride(), item.device, item.requires_grad, raw)
    elif isinstance(item, Mapping):
        for name, value in item.items():
            yield from _leaves(value, f"{path} {name}".strip())
    elif isinstance(item, (tuple, list)):
        yield f"{path} length", len(item)
        for i, value in enumerate(item):
            yield from _leaves(value, f"{path} {i}".strip())
    else:  # NaN is not equal to itself, and objects are equal to themselves only
        yield path, repr(item) if isinstance(item, (bool, int, float, str, bytes, type(None))) else type(item).__name__


def difference(one: Recorder, other: Recorder) -> str:
    """What differs first between two runs, and when; empty where nothing does."""
    for (when, page), (also, twin) in zip_longest(one.pages, other.pages, fillvalue=("the end", {})):
        if when != also:
            return f"one run goes on with {when}, the other one with {also}"
        for path in [*page, *(twin.keys() - page.keys())]:
            if path not in page or path not in twin or page[path] != twin[path]:
                return f"{path} differs {when.replace('on_', 'at on_', 1)}"
    return ""
