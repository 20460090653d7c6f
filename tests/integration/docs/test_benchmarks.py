"""The estimates of the benchmarks are right, and the page matches the results."""

from __future__ import annotations

import doctest
import gc
import weakref
from functools import partial
from itertools import count, product
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from benchmarks.speed import estimates, rounds
from benchmarks.speed.__main__ import read, results_file
from benchmarks.speed.estimates import compared, estimated, ratio, slope
from benchmarks.speed.memory import kept_for_backward, peak
from benchmarks.speed.page import markdown, summary
from benchmarks.speed.rounds import Options, take_turns

PAGE = Path(__file__).parents[3] / "docs" / "benchmarks.md"


def test_estimates_doctests():
    assert doctest.testmod(estimates, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize("count", range(1, 60))
def test_median_interval_is_the_narrowest_with_95_percent(count):
    estimate = estimated([float(i) for i in range(count)])
    outside = round(estimate.low)
    assert estimate.high == count - 1 - outside
    inside = [
        1 - 2 * stats.binom.cdf(cut, count, 0.5) for cut in (outside, outside + 1)
    ]  # at its ends, and one further in
    assert count < 6 or inside[0] >= 0.95 - 1e-12
    assert inside[1] < 0.95
    assert outside == 0 or count >= 9


def test_slope_is_that_of_a_fitted_line():
    rounds = {x: list(np.random.default_rng(round(x)).normal(3 * x, 0.3, 9)) for x in (1.0, 4.0, 16.0, 64.0)}
    medians = [median(values) for values in rounds.values()]
    for logarithmic, scale in ((True, np.log), (False, np.asarray)):
        estimate = slope(rounds, logarithmic=logarithmic)
        assert estimate.value == pytest.approx(np.polyfit(scale(list(rounds)), scale(medians), 1)[0])
        assert estimate.low < estimate.value < estimate.high


def test_ratio_is_within_each_round():
    assert ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]).value == 2.0


def test_take_turns_discards_the_first_round():
    called = []
    runs = {name: partial(called.append, name) for name in ("pace", "a", "b")}
    turns_by_key = take_turns(runs, "pace", Options(rounds=3), budget=0)
    for times in turns_by_key.values():
        assert {name: len(each) for name, each in times.items()} == {"pace": 3, "a": 3, "b": 3}
    turns = [called[i : i + 8] for i in range(0, 32, 8)]
    assert len(called) == 32
    paces = {0, 1, 3, 4, 6, 7}  # every timed run comes after a run of the pace
    assert all({i for i in range(8) if turn[i] == "pace"} == paces for turn in turns)
    assert all({turn[2], turn[5]} == {"a", "b"} for turn in turns)


def test_steady_slowdown_does_not_bias_ratios(monkeypatch):
    costs, clock = {"pace": 10.0, "a": 20.0, "b": 5.0}, count(1)
    monkeypatch.setattr(rounds, "clocked", lambda run, device: run() * next(clock))
    runs = {name: partial(float, cost) for name, cost in costs.items()}
    turns_by_key = take_turns(runs, "pace", Options(rounds=7), budget=0)
    for own, other in product(costs, costs):
        estimate = compared(turns_by_key, own, other)
        assert estimate.low == estimate.value == estimate.high == pytest.approx(costs[own] / costs[other])


def test_saved_bytes_and_peak_memory():
    body, images = nn.Linear(256, 512, bias=False), torch.rand(64, 256)

    def run() -> torch.Tensor:
        return body(images).square().square().sum()  # saves the images, and the input of both squares

    assert kept_for_backward(run, body) == 4 * 64 * (256 + 2 * 512)
    results = []

    def keep() -> None:
        result = body(images).exp()  # which its own step saves
        results.append(weakref.ref(result))

    kept_for_backward(keep, body)
    gc.collect()
    assert results[0]() is None

    def hold() -> None:
        first = torch.empty(2**20)
        second = torch.empty(2**21)
        del first
        third = torch.empty(2**18)
        del second, third

    assert peak(hold) == 4 * (2**20 + 2**21)


@pytest.mark.skipif(not results_file("cpu").exists(), reason="`make bench` has not written results yet")
def test_benchmarks_page_matches_results():
    written = markdown(read(results_file("cpu")), read(results_file("cuda")))
    assert PAGE.read_text("utf-8") == written, "`python -m benchmarks.speed --page` writes it"


@pytest.mark.skipif(not results_file("cpu").exists(), reason="`make bench` has not written results yet")
def test_readme_speed_matches_results():
    readme = " ".join((PAGE.parent.parent / "README.md").read_text("utf-8").split())
    assert summary(read(results_file("cpu"))) in readme, "this text is missing"
