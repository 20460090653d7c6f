"""Images to explain: from a folder, a LightningDataModule, a DataLoader or a Dataset, the same ones every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, SequentialSampler

from lightning_gradcam.cli.errors import WrongCallError
from lightning_gradcam.cli.image_folder import read_folder
from lightning_gradcam.cli.instantiate import instantiate
from lightning_gradcam.cli.parser import ImportSpec, ParsedArgs
from lightning_gradcam.cli.progress import Progress
from lightning_gradcam.probe.batch import read_batch
from lightning_gradcam.probe.collector import ProbeCollector
from lightning_gradcam.probe.dataset_info import find_class_names, find_datasets, find_normalization
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe

LOOKED_AT = 16
"""So many times the images that are wanted are looked at, for classes that are not among the first."""

_LOADERS = ("val_dataloader", "test_dataloader", "train_dataloader")


def parse_normalization(asked: ParsedArgs) -> Normalization | None:
    """The normalisation that the user gave.

    Raises:
        WrongCallError: One of mean and std is missing, or they do not fit.
    """
    mean, std = asked.options.mean, asked.options.std
    if (mean is None) != (std is None):
        raise WrongCallError("--mean and --std go together")
    try:
        return None if mean is None else Normalization(tuple(mean), tuple(std))
    except ValueError as error:
        raise WrongCallError(str(error)) from error


def load_images(asked: ParsedArgs, count: int) -> Probe:
    """The images of ``--data``, at most ``count``, as the model takes them.

    Raises:
        WrongCallError: There are none, or the data cannot be made.
    """
    assert asked.data is not None
    if count < 1:
        raise WrongCallError(f"expected --images of at least 1, but got {count}")
    pixels = parse_normalization(asked)
    folder = Path(asked.data.path)
    if folder.is_dir():
        return read_folder(folder, count, _size(asked), asked.options.channels, pixels)
    if "/" in asked.data.path or "." not in asked.data.path.replace(":", "."):
        raise WrongCallError(f"--data {asked.data.path} is neither a folder nor a path such as package.module.Name")
    return _from_loaders(asked.data, count, pixels)


def _size(asked: ParsedArgs) -> tuple[int, int] | None:
    size = asked.options.size
    if size is None:
        return None
    if len(size) not in (1, 2) or min(size) < 1:
        raise WrongCallError(f"expected --size N or --size H W, but got {' '.join(map(str, size))}")
    return size[0], size[-1]


def _from_loaders(named: ImportSpec, count: int, pixels: Normalization | None) -> Probe:
    data = instantiate(named, "data")
    loaders = _loaders_of(data, named.path)
    holders = [*find_datasets(loaders), data]
    names, _ = find_class_names(holders)
    gatherer, seen = ProbeCollector(count), 0
    torch.manual_seed(0)  # whatever is random in the data, it is the same every time
    with Progress("reading images", count * LOOKED_AT) as progress:
        for batch in _batches(data, loaders):
            gatherer.add(batch)
            seen += 1
            progress.add(len(read_batch(batch) or [None]))
            enough = gatherer.is_complete(None if names is None else len(names))
            if enough or progress.done >= count * LOOKED_AT:
                break
    if not len(gatherer):
        raise WrongCallError(
            f"--data {named.path} gave {seen} batches, none with images (floating-point tensors of shape (N, C, H, W))"
        )
    found, _ = find_normalization(holders)
    return replace(gatherer.probe(), pixels=pixels or found)


def _batches(data: Any, loaders: list[Any]) -> Iterator[Any]:
    """Batches in a fixed order, as a LightningModule's validation gets them."""
    base = _lightnings(data)
    hooks = [
        getattr(data, name)
        for name in ("on_before_batch_transfer", "on_after_batch_transfer")
        if base is not None and getattr(type(data), name, None) is not getattr(base, name, None)
    ]
    for loader in loaders:
        for batch in loader:
            for hook in hooks:
                batch = hook(batch, 0)
            yield batch


def _loaders_of(data: Any, path: str) -> list[Any]:
    if any(hasattr(data, name) for name in _LOADERS):
        return [_in_order(loader) for loader in _of_module(data, path)]
    if isinstance(data, DataLoader):
        return [_in_order(data)]
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return [DataLoader(data, batch_size=32)]
    raise WrongCallError(
        f"expected --data {path} to make a LightningDataModule, a DataLoader or a Dataset, but it made "
        f"{type(data).__name__}"
    )


def _of_module(data: Any, path: str) -> list[Any]:
    """The first loaders that a datamodule has: for validation, test, training."""
    base = _lightnings(data)
    if hasattr(data, "prepare_data"):
        data.prepare_data()
    for name, stages in zip(_LOADERS, (("validate", "fit"), ("test",), ("fit",)), strict=True):
        if getattr(type(data), name, None) is getattr(base, name, None):
            continue
        for stage in stages:
            if hasattr(data, "setup"):
                data.setup(stage)
            try:
                loaders = _flat(getattr(data, name)())
            except AttributeError:
                if stage == stages[-1]:
                    raise
                continue  # many set up their validation data for "fit" only
            if loaders:
                return loaders
    raise WrongCallError(f"--data {path} has no validation, test or training loader")


def _lightnings(data: Any) -> type | None:
    return next((c for c in type(data).__mro__ if c.__name__ == "LightningDataModule"), None)


def _flat(loaders: Any) -> list[Any]:
    if hasattr(loaders, "flattened"):
        loaders = loaders.flattened
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return [found for loader in loaders for found in _flat(loader)]
    return [] if loaders is None else [loaders]


def _in_order(loader: Any) -> Any:
    """The same loader without shuffling, where that can be had."""
    dataset = getattr(loader, "dataset", None)
    shuffles = isinstance(loader, DataLoader) and not isinstance(loader.sampler, SequentialSampler)
    if not shuffles or not hasattr(dataset, "__getitem__") or loader.batch_size is None:
        return loader
    return DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn, num_workers=loader.num_workers)
