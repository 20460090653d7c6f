"""Files that an earlier layout of the package wrote are read, and runs go on from them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from lightning_gradcam import FGSM, Baseline, GradCAMCallback
from lightning_gradcam.baseline.report_json import read_report
from tests.helpers.lit import Lit, loader

FILES = Path(__file__).parent / "earlier_files"


def test_earlier_baseline_compares_as_it_did():
    model = Lit()
    model.load_state_dict(torch.load(FILES / "candidate.pt", weights_only=True))
    report = Baseline.load(FILES / "baseline.safetensors").compare(model.eval(), profile="next-checkpoint")
    earlier = read_report(FILES / "report.json")
    assert report.status == earlier.status == "regressed"
    assert [finding.key for finding in report.findings] == [finding.key for finding in earlier.findings]
    assert len(report.findings) == 4
    for now, before in zip(report.findings, earlier.findings, strict=True):
        assert now.mean == pytest.approx(before.mean, abs=1e-4)
        assert dict(now.quantiles) == pytest.approx(dict(before.quantiles), abs=1e-3)


def test_earlier_baseline_is_written_with_the_same_names(tmp_path):
    def metadata(path):
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return {name: value["shape"] for name, value in header.items() if name != "__metadata__"}

    Baseline.load(FILES / "baseline.safetensors").save(tmp_path / "again.safetensors")
    assert metadata(tmp_path / "again.safetensors") == metadata(FILES / "baseline.safetensors")


@pytest.mark.parametrize("save_probe", ["images", "hash"])
def test_earlier_checkpoint_is_resumed(save_probe, tmp_path):
    callback = GradCAMCallback(probe=4, layers=["features.2", "features"], attack=FGSM(0.05), save_probe=save_probe)
    path = FILES / ("checkpoint.ckpt" if save_probe == "images" else "checkpoint_hash.ckpt")
    saved = next(iter(torch.load(path, weights_only=True)["callbacks"].values()))["watch"]
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[callback],
        default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weights_only.*")
        warnings.filterwarnings("ignore", message="The loaded checkpoint was produced with Lightning")  # a later one
        trainer.fit(Lit(), loader(24), loader(12, seed=9), ckpt_path=path)  # a warning of ours would be an error
    now = callback.state_dict()["watch"]
    assert now["signature"] == saved["signature"]
    assert now["track"]["looks"] == saved["track"]["looks"] + 1
    assert now["alarm"]["seen"].keys() == saved["alarm"]["seen"].keys()
    starts = [state["track"]["memories"]["start"]["maps"] for state in (now, saved)]
    assert starts[0].keys() == starts[1].keys() == {"features.2", "features"}
    for key, start in starts[0].items():
        assert torch.equal(start, starts[1][key]), "drift from the start counts from the earlier run's start"
