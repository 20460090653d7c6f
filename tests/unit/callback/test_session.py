"""The steps from a configuration to a monitored probe."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.plugins.precision import Precision
from torchvision.transforms import v2

from lightning_gradcam import Normalization, Probe
from lightning_gradcam.callback.config import CallbackConfig
from lightning_gradcam.callback.session import ProbeSession
from lightning_gradcam.callback.warn_once import WarnOnce
from lightning_gradcam.monitor.distributed import Ranks
from tests.helpers.lit import CLASSES, Bars, Lit, loader

FOUND = Normalization((0.4,) * 3, (0.25,) * 3)
PASSED = Normalization((0.5,), (0.5,))


def start_session(data_sources=(), checkpoint=None, **config):
    session = ProbeSession(CallbackConfig(**config), Ranks(), WarnOnce())
    if session.is_collecting:
        session.add_batch(next(iter(loader())), "validation")
    session.start_monitoring(Lit(), Precision(), list(data_sources), checkpoint)
    return session


def given_probe(pixels=None):
    data = Bars(6)
    return Probe(torch.stack([data[i][0] for i in range(6)]), labels=data.labels, pixels=pixels)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"normalization": PASSED, "probe": given_probe(FOUND)}, PASSED),
        ({"normalization": PASSED}, PASSED),
        ({"probe": given_probe(PASSED)}, PASSED),
        ({"probe": given_probe()}, FOUND),
        ({}, FOUND),
    ],
)
def test_normalization_is_the_users_the_probes_or_the_datas(config, expected):
    session = start_session([Bars(1)], **config)
    torch.testing.assert_close(torch.tensor(session.monitor.probe.pixels.mean), torch.tensor(expected.mean))
    assert ("normalization" in session.summarize()) == (expected is FOUND)


def test_class_names_are_the_users_or_the_datas_if_they_fit():
    assert start_session([Bars(1)]).monitor.class_names == list(CLASSES)
    assert start_session([Bars(1)], class_names=["a", "b", "c"]).monitor.class_names == ["a", "b", "c"]
    assert start_session().monitor.class_names == ["0", "1", "2"]


def test_normalization_from_data_with_other_channels_raises():
    data = SimpleNamespace(transform=v2.Normalize([0.1, 0.2], [1.0, 1.0]))
    with pytest.raises(ValueError, match="each of 3 channels, or one for all, but got 2"):
        start_session([data])


def test_checkpoint_has_no_normalization_of_collected_images():
    session = start_session([Bars(1)], probe=4)
    state = session.state_dict()
    assert state["probe"]["pixels"] is None
    resumed = start_session([Bars(1)], {**state}, probe=4)
    assert resumed.monitor.probe.pixels == session.monitor.probe.pixels
    assert torch.equal(resumed.monitor.probe.images, session.monitor.probe.images)
    assert start_session(probe=given_probe(PASSED)).state_dict()["probe"]["pixels"] is not None


def test_resumed_checkpoint_keeps_normalization_of_the_probe():
    state = start_session(probe=given_probe(PASSED)).state_dict()
    resumed = start_session([Bars(1)], state, probe=4)
    assert resumed.monitor.probe.pixels == PASSED
    assert resumed.state_dict()["probe"]["pixels"] == state["probe"]["pixels"]


def test_session_stops_collecting_once_it_monitors():
    session = start_session(probe=4)
    assert not session.is_collecting
    session.add_batch(next(iter(loader(seed=3))), "validation")
    assert len(session.monitor.probe) == 4
