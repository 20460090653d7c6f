"""When looks are due, and that what they cost is told truly."""

from __future__ import annotations

import time

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_gradcam import GradCAMCallback
from lightning_gradcam.callback import schedule as schedule_module
from lightning_gradcam.callback.schedule import SnapshotSchedule
from lightning_gradcam.methods import METHODS
from tests.helpers.lit import fit


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(schedule_module, "perf_counter", lambda: self.now)


def run(pace, clock, epochs, look, train):
    """Which epochs are looked at, and the shares that are told."""
    looked, shares = [], []
    for epoch in range(epochs):
        clock.now += train
        if pace.is_due(epoch, is_last=epoch == epochs - 1):
            with pace.measure_time(torch.device("cpu")):
                clock.now += look
            looked.append(epoch)
            shares.append(pace.overhead)
    return looked, shares


def test_the_share_is_of_the_time_since_the_look_before(monkeypatch):
    looked, shares = run(SnapshotSchedule(3), Clock(monkeypatch), 7, look=1.0, train=3.0)
    assert looked == [0, 3, 6]
    assert shares == [None, pytest.approx(1 / 10), pytest.approx(1 / 10)]


@pytest.mark.parametrize(("allowed", "every"), [(0.5, 1), (0.26, 1), (0.2, 2), (0.05, 7)])
def test_looks_are_made_as_often_as_their_share_allows(monkeypatch, allowed, every):
    pace = SnapshotSchedule(1, allowed)
    looked, shares = run(pace, Clock(monkeypatch), 60, look=1.0, train=3.0)
    assert looked[:-1] == list(range(0, 59, every))
    assert all(share <= allowed + 1e-9 for share in shares[1:-1])
    assert bool(pace.warning) == (every > 1)


def test_several_validations_in_an_epoch_are_looked_at_where_there_is_time(monkeypatch):
    clock, pace, looks = Clock(monkeypatch), SnapshotSchedule(1, 0.3), 0
    for epoch in (0, 0, 0, 1, 1, 1):
        clock.now += 3
        assert pace.is_due(epoch, is_last=False)
        with pace.measure_time(torch.device("cpu")):
            clock.now += 1
        looks += 1
    assert (looks, pace.warning) == (6, "")


def test_steps_that_wait_for_the_device_are_no_part_of_a_look(monkeypatch):
    clock, pace, queued = Clock(monkeypatch), SnapshotSchedule(), [0.0]

    class Mark:
        """Reached once what was asked for before is done."""

        def __init__(self):
            self.at = clock.now + queued[0]

        def synchronize(self):
            assert clock.now >= self.at

        def elapsed_time(self, other):
            return 1000 * (other.at - self.at)

    monkeypatch.setattr(schedule_module, "_record_event", lambda device: Mark())
    for _ in range(2):
        clock.now, queued[0] = clock.now + 3, 5.0
        with pace.measure_time(torch.device("cuda")):
            clock.now, queued[0] = clock.now + 5 + 2, 0.0
    assert pace.overhead == pytest.approx(2 / 10)


def test_without_a_limit_and_with_an_even_beat_nothing_waits(monkeypatch):
    assert run(SnapshotSchedule(), Clock(monkeypatch), 5, look=100.0, train=1.0)[0] == [0, 1, 2, 3, 4]
    assert SnapshotSchedule().warning == ""


def test_a_slow_look_is_logged_and_made_less_often(tmp_path, read_events):
    def slow(activations, gradients):
        time.sleep(0.5)
        return METHODS["gradcam"](activations, gradients)

    logger = TensorBoardLogger(tmp_path)
    with pytest.warns(UserWarning, match="take more than the 20% of the time that `max_overhead` allows"):
        fit(tmp_path, [GradCAMCallback(method=slow, max_overhead=0.2)], max_epochs=6, logger=logger)
    shares = read_events(logger.log_dir).Scalars("gradcam/overhead")
    assert shares
    assert all(0 < event.value < 1 for event in shares)
    assert len(read_events(logger.log_dir).Scalars("gradcam/drift")) < 6


@pytest.mark.parametrize("chunk", [1, 5, 16, 99])
def test_a_look_in_chunks_finds_the_same_and_says_nothing(tmp_path, chunk):
    whole, parts = GradCAMCallback(), GradCAMCallback(chunk=chunk)
    for callback in (whole, parts):
        fit(tmp_path, [callback], max_epochs=1)
    assert parts.monitor.sharded_explainer.memory_warning == ""
    for name, value in whole.monitor.tracker.last.items():
        assert float(parts.monitor.tracker.last[name]) == pytest.approx(float(value), abs=1e-4)
