"""The alarm for sudden drift, which needs two unusual snapshots."""

from __future__ import annotations

import statistics

import torch
from hypothesis import given, strategies as st

from lightning_gradcam.stability.alarm import DEVIATIONS, LEAST, LEAST_DEVIATION, WINDOW, DriftAlarm
from tests.helpers.models import examples


def plain(series):
    """Which looks are noticed, by the definition."""
    found, start = [], 0
    for t in range(len(series)):
        usual = series[max(start, t - 1 - WINDOW) : max(t - 1, start)]
        if len(usual) < LEAST:
            continue
        middle = statistics.median(usual)
        spread = max(statistics.median([abs(u - middle) for u in usual]), LEAST_DEVIATION)
        if max(series[t], series[t - 1]) < middle - DEVIATIONS * spread:
            found.append(t)
            start = t + 1  # from here on, something else may be usual
    return found


@examples(200)
@given(st.lists(st.sampled_from([0.1, 0.5, 0.8, 0.85, 0.9, 0.95, 1.0]), max_size=25))
def test_alarm_equals_its_definition(series):
    alarm = DriftAlarm()
    noticed = [t for t, value in enumerate(series) if alarm.update("maps", torch.tensor([value], dtype=torch.float64))]
    assert noticed == plain(series)


def test_alarm_needs_two_unusual_snapshots_and_lists_images():
    alarm = DriftAlarm()
    for mean in (0.9, 0.92, 0.91, 0.9, 0.93, 0.2, 0.91, 0.9, 0.2):
        assert not alarm.update("maps", torch.full((4,), mean))
    said = alarm.update("maps", torch.tensor([0.5, 0.1, torch.nan, 0.3]))
    assert "mean similarity 0.30, after 0.20; the usual value is 0.91; least similar images: 1, 3, 0" in said
    resumed = DriftAlarm()
    resumed.load_state_dict(alarm.state_dict())
    assert resumed == alarm
    assert not alarm.update("maps", torch.full((4,), torch.nan))
