"""The configuration of the callback, with and without a baseline."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_gradcam import Baseline, GradCAMCallback, Normalization
from lightning_gradcam.attacks import restore_pixels
from lightning_gradcam.callback.config import CallbackConfig
from tests.helpers.baselines import bars, trained
from tests.helpers.lit import Lit, fit


def test_baseline_images_get_the_normalization_of_the_run(tmp_path):
    callback = GradCAMCallback(
        baseline=Baseline.record(trained(steps=1), bars(6)), pixels=Normalization((0.5,), (0.5,))
    )
    fit(tmp_path, [callback], max_epochs=1)
    assert torch.allclose(callback.monitor.probe.images, (restore_pixels(bars(6)) - 0.5) / 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "hash"}, r"only the hash of its images\. Pass the same images .*or record the baseline"),
        ({"baseline": "missing.safetensors"}, "cannot be read: No such file"),
        (
            {"baseline": "images", "probe": (torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))},
            "`probe` cannot be combined with `baseline`",
        ),
        ({"baseline": "images", "layers": "features.2"}, "`layers` cannot be combined with `baseline`"),
        ({"baseline": "images", "method": "layercam"}, "`method` cannot be combined with `baseline`"),
    ],
)
def test_argument_that_contradicts_baseline_raises_in_setup(tmp_path, arguments, message):
    class Untrained(Lit):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training started")

    if arguments["baseline"] in ("hash", "images"):
        arguments = {**arguments, "baseline": Baseline.record(trained(steps=1), bars(6), store=arguments["baseline"])}
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, [GradCAMCallback(**arguments)], make=Untrained)


def test_missing_baseline_file_names_the_argument(tmp_path):
    config = CallbackConfig(baseline=tmp_path / "none.safetensors")
    with pytest.raises(
        ValueError, match=r"Expected `baseline` to be a file of `Baseline.save`, but .*none\.safetensors"
    ):
        config.with_baseline()


@pytest.mark.parametrize(("output", "expected"), [("auto", "regression"), ("classes", "classes")])
def test_output_of_the_baseline_is_that_of_the_run(output, expected):
    baseline = Baseline.record(trained(steps=1), bars(6).images, target=0, output="regression")
    assert CallbackConfig(baseline=baseline, output=output).with_baseline().output == expected
