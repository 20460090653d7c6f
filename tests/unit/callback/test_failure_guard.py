"""Errors of the explanations: raised before training, else one warning."""

from __future__ import annotations

import warnings

import pytest
import torch

from lightning_gradcam import Probe
from lightning_gradcam.callback.config import CallbackConfig
from lightning_gradcam.callback.failure_guard import FailureGuard, describe_error
from lightning_gradcam.callback.warn_once import WarnOnce
from lightning_gradcam.errors import ForwardError, NotExplainableError
from lightning_gradcam.monitor.distributed import Ranks

PROBE = Probe(torch.rand(2, 3, 4, 4))
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


class FSDPStrategy:
    """A strategy that shards, by its name."""


def build_guard(ranks=None, **config):
    return FailureGuard(CallbackConfig(**config), ranks or Ranks(), WarnOnce())


@pytest.mark.parametrize("error", [RuntimeError("broken"), NotExplainableError("no layer."), ForwardError("no mask")])
@pytest.mark.parametrize("before_training", [True, False])
def test_error_disables_explanations_with_one_warning(error, before_training):
    guard = build_guard()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            with guard.catch(before_training):
                raise error
    assert guard.gave_up
    [warning] = caught
    assert "disabled for the rest of the run: " in str(warning.message)
    assert f"{error.args[0].strip('.')}. Training continues" in str(warning.message)


@pytest.mark.parametrize(
    ("config", "error"),
    [({}, ValueError("wrong")), ({}, TypeError("wrong")), ({"probe": PROBE}, ForwardError("wrong")),
     ({"forward": len}, ForwardError("wrong"))],
)  # fmt: skip
def test_user_error_raises_before_training_only(config, error):
    guard = build_guard(**config)
    with pytest.raises(ValueError, match="wrong"), guard.catch(before_training=True):
        raise error
    assert not guard.gave_up
    with pytest.warns(UserWarning, match="wrong"), guard.catch():
        raise error
    assert guard.gave_up


@pytest.mark.parametrize(
    ("config", "ranks", "error"),
    [({"on_error": "raise"}, Ranks(), RuntimeError("broken")), ({}, Ranks(FSDPStrategy(), 0, 2), OUT_OF_MEMORY)],
)
def test_some_errors_are_always_raised(config, ranks, error):
    guard = build_guard(ranks, **config)
    with pytest.raises(type(error)), guard.catch():
        raise error
    assert not guard.gave_up


def test_warn_once_ignores_repetitions_and_empty_messages():
    warn_once = WarnOnce()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_once("one (a.png)", "", "two")
        warn_once("one (b.png)")
        warn_once.warn_on_this_rank("two", "three")
    assert [str(w.message) for w in caught] == [f"GradCAMCallback: {m}" for m in ("one (a.png)", "two", "three")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_once("three")


def test_error_of_memory_has_advice():
    assert "smaller `probe`" in describe_error(OUT_OF_MEMORY)
    assert describe_error(NotExplainableError("no layer")) == "no layer"
