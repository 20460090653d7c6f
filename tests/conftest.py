"""Fixtures of all tests: a fixed seed, known warnings, and a reader of TensorBoard's files."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

pytest_plugins = "pytester"

torch.set_num_threads(1)  # what the tests compute is so small that threads only wait for one another


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _known_warnings() -> Any:
    """Warnings of Lightning about the tests' small runs; everything else is an error."""
    with warnings.catch_warnings():
        for message in (
            r"The '\w+_dataloader' does not have many workers",
            r"GPU available but not used",
            r".*`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning with this PyTorch
            r"Checkpoint directory .* exists and is not empty",
            r"You defined a `validation_step` but have no `val_dataloader`",
            r"Starting from v1.9.0, `tensorboardX` has been removed",
            r".*treespec.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


@pytest.fixture
def read_events() -> Any:
    """Reads a run's events file back with TensorBoard's own EventAccumulator."""

    def read(folder: Any) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
        events.Reload()
        return events

    return read
