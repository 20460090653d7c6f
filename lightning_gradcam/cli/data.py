"""Images of ``--data``: a folder, a LightningDataModule, a DataLoader or a Dataset, in a reproducible order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, SequentialSampler

from lightning_gradcam.cli.errors import UsageError
from lightning_gradcam.cli.image_folder import read_folder
from lightning_gradcam.cli.import_spec import ImportSpec
from lightning_gradcam.cli.instantiate import instantiate
from lightning_gradcam.cli.parser import ParsedArgs
from lightning_gradcam.cli.progress import Progress
from lightning_gradcam.probe.batch import read_batch
from lightning_gradcam.probe.collector import ProbeCollector
from lightning_gradcam.probe.dataset_info import find_class_names, find_datasets, find_normalization
from lightning_gradcam.probe.normalization import Normalization
from lightning_gradcam.probe.probe import Probe

SCAN_FACTOR = 16
"""Scan at most 16 times the requested number of images to find rare classes."""

_LOADER_STAGES = {"val_dataloader": ("validate", "fit"), "test_dataloader": ("test",), "train_dataloader": ("fit",)}
"""Methods of a datamodule in the order in which they are tried, and the stages to set up for them."""


def parse_normalization(args: ParsedArgs) -> Normalization | None:
    """Return the normalization of ``--mean`` and ``--std``; None without them.

    Raises:
        UsageError: One of the two is missing, or they are invalid.
    """
    mean, std = args.options.mean, args.options.std
    if (mean is None) != (std is None):
        raise UsageError("--mean and --std must be passed together.")
    try:
        return None if mean is None else Normalization(tuple(mean), tuple(std))
    except ValueError as error:
        raise UsageError(str(error)) from error


def load_images(args: ParsedArgs, count: int) -> Probe:
    """Load at most ``count`` images of ``--data``, preprocessed for the model.

    Raises:
        UsageError: There are no images, or the data cannot be created.
    """
    assert args.data is not None
    if count < 1:
        raise UsageError(f"Expected --images to be at least 1, but got {count}.")
    normalization = parse_normalization(args)
    folder = Path(args.data.path)
    if folder.is_dir():
        return read_folder(folder, count, _parse_size(args), args.options.channels, normalization)
    if "/" in args.data.path or "." not in args.data.path.replace(":", "."):
        raise UsageError(
            f"Expected --data to be an existing folder, or a path such as package.module.Name, but got "
            f"{args.data.path!r}."
        )
    return _load_from_loaders(args.data, count, normalization)


def _parse_size(args: ParsedArgs) -> tuple[int, int] | None:
    """Return height and width."""
    size = args.options.size
    if size is None:
        return None
    if len(size) not in (1, 2) or min(size) < 1:
        raise UsageError(f"Expected --size N or --size H W, but got {' '.join(map(str, size))}.")
    return size[0], size[-1]


def _load_from_loaders(spec: ImportSpec, count: int, normalization: Normalization | None) -> Probe:
    data = instantiate(spec, "data")
    loaders = _create_loaders(data, spec.path)
    sources = [*find_datasets(loaders), data]
    class_names, _ = find_class_names(sources)
    class_count = None if class_names is None else len(class_names)
    collector, batch_count = ProbeCollector(count), 0
    torch.manual_seed(0)  # random augmentation is the same in every run
    with Progress("reading images", count * SCAN_FACTOR) as progress:
        for batch in _iterate_batches(data, loaders):
            collector.add(batch)
            batch_count += 1
            progress.add(len(read_batch(batch) or [None]))
            if collector.is_complete(class_count) or progress.done >= count * SCAN_FACTOR:
                break
    if not len(collector):
        raise UsageError(
            f"Expected --data {spec.path} to yield images (floating-point tensors of shape (N, C, H, W)), but got "
            f"{batch_count} batches without any."
        )
    dataset_normalization, _ = find_normalization(sources)
    return replace(collector.probe(), pixels=normalization or dataset_normalization)


def _iterate_batches(data: Any, loaders: list[Any]) -> Iterator[Any]:
    """Yield batches as a LightningModule receives them: after the datamodule's hooks for batch transfer."""
    base = _find_datamodule_class(data)
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


def _create_loaders(data: Any, path: str) -> list[Any]:
    if any(hasattr(data, name) for name in _LOADER_STAGES):
        return [_without_shuffling(loader) for loader in _create_datamodule_loaders(data, path)]
    if isinstance(data, DataLoader):
        return [_without_shuffling(data)]
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return [DataLoader(data, batch_size=32)]
    raise UsageError(
        f"Expected --data {path} to create a LightningDataModule, a DataLoader or a Dataset, but got "
        f"{type(data).__name__}."
    )


def _create_datamodule_loaders(data: Any, path: str) -> list[Any]:
    """Return the first loaders that a datamodule defines: for validation, test or training."""
    base = _find_datamodule_class(data)
    if hasattr(data, "prepare_data"):
        data.prepare_data()
    for name, stages in _LOADER_STAGES.items():
        if getattr(type(data), name, None) is getattr(base, name, None):
            continue
        for stage in stages:
            if hasattr(data, "setup"):
                data.setup(stage)
            try:
                loaders = _flatten_loaders(getattr(data, name)())
            except AttributeError:
                if stage == stages[-1]:
                    raise
                continue  # many datamodules create their validation data in the stage "fit" only
            if loaders:
                return loaders
    raise UsageError(f"Expected --data {path} to define a validation, test or training loader, but got none.")


def _find_datamodule_class(data: Any) -> type | None:
    """Return Lightning's own class, found by name, since the package works with both Lightning packages."""
    return next((c for c in type(data).__mro__ if c.__name__ == "LightningDataModule"), None)


def _flatten_loaders(loaders: Any) -> list[Any]:
    if hasattr(loaders, "flattened"):
        loaders = loaders.flattened
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return [flat_loader for loader in loaders for flat_loader in _flatten_loaders(loader)]
    return [] if loaders is None else [loaders]


def _without_shuffling(loader: Any) -> Any:
    """Return an equivalent loader that does not shuffle, if one can be created."""
    dataset = getattr(loader, "dataset", None)
    shuffles = isinstance(loader, DataLoader) and not isinstance(loader.sampler, SequentialSampler)
    if not shuffles or not hasattr(dataset, "__getitem__") or loader.batch_size is None:
        return loader
    return DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn, num_workers=loader.num_workers)
