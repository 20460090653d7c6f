"""The verdict on a layer's maps."""

from __future__ import annotations

import math

import pytest

from lightning_gradcam.baseline.profiles import PROFILES
from lightning_gradcam.baseline.verdict import MeanEstimate, judge


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (0.99, 1.0, "pass"),
        (0.9899, 1.0, "inconclusive"),
        (0.985, 0.9899, "regressed"),
        (0.98, 0.99, "inconclusive"),
        (0.2, 0.3, "regressed"),
    ],
)
def test_judge_compares_bounds_with_the_threshold(low, high, status):
    found, reason = judge(PROFILES["same-weights"], MeanEstimate(low, low, high, 128), 0.99, {})
    assert found == status
    assert f"{low:.3f}" in reason
    assert judge(PROFILES["same-weights"], MeanEstimate(low, low, high, 1), 0.99, {})[0] == "inconclusive"
    limited = PROFILES["same-weights"].with_thresholds({"q05": 0.5, "center_shift": 0.1})
    assert judge(limited, MeanEstimate(1, 1, 1, 128), 0.99, {"q05": 0.49, "center_shift": 0})[0] == "regressed"
    assert judge(limited, MeanEstimate(1, 1, 1, 128), 0.99, {"q05": 0.5, "center_shift": 0.11})[0] == "regressed"
    assert judge(limited, MeanEstimate(1, 1, 1, 128), 0.99, {"q05": 0.5, "center_shift": 0.1})[0] == "pass"
    assert judge(limited, MeanEstimate(1, 1, 1, 128), 0.99, {"q05": math.nan, "center_shift": 0})[0] == "regressed"


@pytest.mark.parametrize("name", ["q05", "q50", "ssim", "center_shift"])
def test_limit_without_comparable_maps_is_inconclusive(name):
    limited = PROFILES["same-weights"].with_thresholds({name: 0.5})
    nothing = MeanEstimate(math.nan, math.nan, math.nan, 0)
    for measurements in ({}, {name: math.nan}):
        assert judge(limited, nothing, 0.99, measurements)[0] == "inconclusive"
    lost = PROFILES["same-weights"].with_thresholds({name: 0.5, "degenerate": 0.1})
    assert judge(lost, nothing, 0.99, {"degenerate": 1.0})[0] == "regressed"


def test_reason_has_one_number_if_bounds_are_equal():
    _, reason = judge(PROFILES["same-weights"], MeanEstimate(1, 1, 1, 9), 0.99, {})
    assert reason == "the mean similarity is 1.000; at least 0.990 is required"
    _, reason = judge(PROFILES["same-weights"], MeanEstimate(0.9999, 0.99985, 0.99995, 9), 0.99, {})
    assert "between 0.999850 and 0.999950" in reason
