"""Attacks in the snapshots of a run: curves, training unchanged, errors, resumed runs."""

from __future__ import annotations

import html

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_gradcam import FGSM, GradCAMCallback
from tests.helpers.attacked_monitor import watched
from tests.helpers.lit import Lit, fit, loader, weights

NUMBERS = {"adv_similarity": "spearman", "adv_topk": "topk", "adv_ssim": "ssim"}


def test_callback_logs_attack_and_leaves_training_unchanged(tmp_path, read_events, caplog):
    plain = fit(tmp_path / "plain")
    logger = TensorBoardLogger(tmp_path / "attacked")
    callback = GradCAMCallback(attack="pgd", layers=["features", "features.2"], curves="all")
    best = ModelCheckpoint(tmp_path / "best", monitor="gradcam/adv_similarity", mode="max")
    with caplog.at_level("INFO"):
        watched = fit(tmp_path, [callback, best], logger=logger, enable_checkpointing=True)
    assert weights(watched) == weights(plain)
    events = read_events(logger.log_dir)
    for name in (*NUMBERS, *(f"{n}_held" for n in NUMBERS), "adv_degenerate", "adv_accuracy"):
        steps = [event.step for event in events.Scalars(f"gradcam/{name}")]
        assert steps[-2:] == [event.step for event in events.Scalars("val_loss")]
    assert {"gradcam/features", "gradcam/features.2", "gradcam/film"} <= set(events.Tags()["images"])
    assert best.best_model_score is not None
    choices = "".join(
        t.text_summary.text if hasattr(t, "text_summary") else str(t)
        for t in events.Tensors("gradcam/choices/text_summary")
    )
    shown = html.unescape(choices)  # Markdown shows entities as what they stand for
    assert "PGD(eps=0.03137" in shown
    assert "steps=10" in shown


def test_resumed_run_continues_attack_curves(tmp_path):
    callback = GradCAMCallback(attack=FGSM(0.1))
    first = fit(tmp_path, [callback], max_epochs=2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = GradCAMCallback(attack=FGSM(0.1))
    fit(tmp_path, [resumed], max_epochs=3, ckpt_path=str(tmp_path / "half.ckpt"))
    assert resumed.monitor.tracker.snapshots == callback.monitor.tracker.snapshots + 1
    assert {"adv_similarity", "adv_accuracy"} <= resumed.monitor.tracker.last.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attack": "pdg"}, "'pdg'. Did you mean 'pgd'"),
        ({"attack": 3}, "Expected `attack` to be a name, or a callable"),
        ({"attack": "pgd", "probe": (torch.randn(4, 3, 16, 16), torch.arange(4) % 3)}, r"images in \[0, 1\], but got"),
        ({"attack": "fgsm", "target": lambda out, probe: out["score"], "forward": "score"}, "returns logits"),
    ],
)
def test_wrong_attack_raises_before_training(tmp_path, arguments, message):
    class Untrained(Lit):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training started")

    if arguments.get("forward") == "score":
        arguments = {**arguments, "forward": lambda m, p: {"score": m(p.images).sum(1)[:, None, None]}}
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, [GradCAMCallback(**arguments)], make=Untrained, val=loader(36, 12, seed=1))


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda model, images, labels: images[:1], r"images of shape \(9, 3, 16, 16\) from the attack, but got shape"),
        (lambda model, images, labels: None, "from the attack, but got NoneType"),
        (lambda model, images, labels: images * 3, r"images in \[0, 1\], but got"),
    ],
)
def test_invalid_attack_output_disables_explanations_only(tmp_path, attack, message):
    watch, model = watched(attack)
    with pytest.raises(ValueError, match=message):
        watch.take_snapshot(model, "start")
    with pytest.warns(
        UserWarning, match="Explanations are disabled for the rest of the run: .* from the attack|in .0, 1."
    ):
        trainer = fit(tmp_path, [GradCAMCallback(attack=attack, probe=9)])
    assert trainer.global_step == 8
