"""The numbers of snapshots, against the same numbers computed one by one in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.map_status import find_status
from lightning_gradcam.stability.drift import DriftTracker
from lightning_gradcam.targets import TARGETS

KEYS = ("a", "drift_head", "a/gradcam++")


def look(seed: int, empty: tuple[int, ...] = ()) -> Explanation:
    """Of five images with three classes; the maps of some of them are empty."""
    chance = torch.Generator().manual_seed(seed)
    evidence = {key: torch.rand(5, 3, 4, generator=chance) for key in KEYS}
    for maps in evidence.values():
        maps[list(empty)] = 0
    found = {key: find_status(maps) for key, maps in evidence.items()}
    return Explanation(evidence, torch.randn(5, 3, generator=chance), None, (6, 8), map_status=found)


def drift(before: Explanation, now: Explanation, key: str) -> tuple[float, float]:
    """Mean and standard error, over the images that have a correlation; that of an empty map and another is 0."""
    pairs = zip(before.evidence[key].double().flatten(1), now.evidence[key].double().flatten(1), strict=True)
    one_by_one = [
        1.0 - (stats.spearmanr(a, b).statistic if a.any() and b.any() else 0.0) for a, b in pairs if a.any() or b.any()
    ]
    error = np.std(one_by_one, ddof=1) / len(one_by_one) ** 0.5 if len(one_by_one) > 1 else np.nan
    return float(np.mean(one_by_one)), float(error)


def gini(values: np.ndarray) -> float:
    """By the mean difference of all pairs."""
    return float(np.abs(values[:, None] - values[None]).mean() / (2 * values.mean()))


def test_numbers_of_several_layers_equal_single_layers():
    track, looks, labels = (
        DriftTracker(TARGETS["label"]),
        [look(0), look(1, (2,)), look(2, (2, 3))],
        torch.arange(5) % 3,
    )
    for i, now in enumerate(looks):
        track.measure([now], labels, {"adv_topk": torch.tensor(0.25)})
        numbers = {name: float(value) for name, value in track.measured.items()}
        expected = {"adv_topk": 0.25, "accuracy": float((now.logits.argmax(1) == labels).double().mean())}
        expected["confidence"] = float(now.logits.double().softmax(1).amax(1).mean())
        for key in KEYS:
            suffix = "" if key == KEYS[0] else f"/{key}"
            maps = [each.flatten().double().numpy() for each in now.evidence[key]]
            expected[f"concentration{suffix}"] = float(np.mean([gini(each) for each in maps if each.any()]))
            expected[f"degenerate{suffix}"] = float(np.mean([not each.any() for each in maps]))
            since, error = drift(looks[i - 1], now, key) if i else (np.nan, np.nan)
            expected |= {f"drift{suffix}": since, f"drift_error{suffix}": error}
            expected[f"drift_from_start{suffix}"] = drift(looks[0], now, key)[0] if i else np.nan
        assert numbers == pytest.approx(expected, abs=1e-6, nan_ok=True)
        assert all(value.dtype == torch.float32 and value.ndim == 0 for value in track.measured.values())


def test_last_number_is_repeated_if_no_image_has_a_value():
    track = DriftTracker(TARGETS["label"])
    first = track.measure([look(0)], None)
    assert not {"drift", "drift_from_start"} & first.keys()  # nothing to compare with
    second = track.measure([look(1)], None)
    track.measure([look(2, tuple(range(5)))], None)  # empty maps, and before that others: 1
    nothing = track.measure([look(3, tuple(range(5)))], None)
    assert float(nothing["drift"]) == 1  # between empty maps there is none, so that is the last one
    assert torch.isnan(track.measured["drift"])
    assert float(second["drift"]) != 1
    assert nothing["degenerate"] == 1
    assert (
        nothing.keys()
        == second.keys()
        == first.keys()
        | {
            f"{name}{suffix}"
            for name in ("drift", "drift_from_start")
            for suffix in ("", "/drift_head", "/a/gradcam++")
        }
    )
