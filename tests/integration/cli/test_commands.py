"""Recording, comparing and reporting, called in this process and as a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from tests.integration.cli.conftest import NET, RECORD


def test_same_weights_pass_and_others_regress_with_reports(recorded, call):
    code, text, error = call("compare", "b.safetensors", *NET, "--ckpt_path", "one.pt")
    assert (code, error) == (0, "")
    assert text.startswith("✓ pass (same-weights): features.1")
    files = [f"out/r.{kind}" for kind in ("html", "md", "json", "txt")]
    code, text, error = call("compare", "b.safetensors", *NET, "--ckpt_path", "other.pt", "--report", *files)
    assert (code, error) == (1, "")
    assert "mean spearman" in text
    for file in files:
        assert f"wrote {file}" in text
        assert "regressed" in Path(file).read_text("utf-8")
    assert Path("out/r.html").read_text("utf-8").count("data:image/png;base64,") == 5
    assert json.loads(Path("out/r.json").read_text())["status"] == "regressed"


def test_compare_two_baseline_files(recorded, call):
    code, _, _ = call(*RECORD[:4], "other.pt", *RECORD[5:], "--out", "c.safetensors")
    assert code == 0
    assert call("compare", "b.safetensors", "b.safetensors")[0] == 0
    assert call("compare", "b.safetensors", "c.safetensors")[0] == 1


def test_thresholds_and_profiles(recorded, call):
    other = ("compare", "b.safetensors", *NET, "--ckpt_path", "other.pt")
    mean = float(re.search(r"mean spearman +([-\d.]+)", call(*other)[1])[1])
    assert call(*other, "--thresholds.mean", mean - 0.5)[0] == 0
    assert call(*other, "--thresholds", json.dumps({"mean": mean}))[0] == 3
    assert call(*other, "--thresholds.mean", mean - 0.5, "--thresholds.q50", 2)[0] == 1
    assert call(*other, "--profile", "next-checkpoint")[0] == 1
    code, text, _ = call(*other, "--profile", "retrain")
    assert code == 4
    assert "at least 5 training runs" in text
    code, _, error = call(*other, "--thresholds.nix", 1)
    assert (code, error.count("\n")) == (2, 1)
    assert "names of `thresholds` to be among mean" in error
    assert call(*other, "--thresholds.mean", "much")[0] == 2
    code, _, error = call(*other, "--profile", "retrian")
    assert code == 2
    assert "Did you mean 'retrain'" in error


def test_retrain_with_five_baselines(here, call):
    import mine

    call(*RECORD, "--out", "0.safetensors")
    names = []
    for seed in range(1, 6):
        torch.manual_seed(seed)
        torch.save(mine.Net(4).state_dict(), f"{seed}.pt")
        names.append(f"{seed}.safetensors")
        words = ("baseline", *NET, "--ckpt_path", f"{seed}.pt", "--like", "0.safetensors", "--out", names[-1])
        assert call(*words)[0] == 0
    retrain = ("compare", "0.safetensors", names[4], "--profile", "retrain", "--beside", *names[:4])
    code, text, _ = call(*retrain)
    assert code in (0, 1, 3)
    assert "below the other training runs" in text
    assert call(*retrain, "--thresholds.mean", 1.0)[0] == 0


def test_inexplicable_model_is_incompatible(recorded, call):
    for other in ("torch.nn.Identity", "mine.Broken"):
        code, out, error = call("compare", recorded, "--model", other)
        assert code == 4
        assert "! incompatible (same-weights): The candidate cannot be explained like the baseline:" in out
        assert "Traceback" not in out + error


def test_report_shows_baselines_and_comparisons(recorded, call):
    code, text, _ = call("report", recorded)
    assert code == 0
    assert "80 of 3×16×16" in text
    assert "warning" not in text
    assert (
        call(*RECORD[:-1], 20, "--out", "few.safetensors")[1]
        .splitlines()[-1]
        .startswith("warning: Only 20 of 20 maps at")
    )
    assert call("report", recorded, "--out", "b.html", "b.json", "b.md")[0] == 0
    assert Path("b.html").read_text("utf-8").count("data:image/png;base64,") == 16
    assert json.loads(Path("b.json").read_text())["method"] == "gradcam of the label"
    call("compare", recorded, *NET, "--ckpt_path", "other.pt", "--report", "r.json", "r.md", "r.txt", "r.html")
    assert call("report", "r.json", "--out", "s.json", "s.md", "s.txt", "s.html")[0] == 0
    for kind in ("json", "md", "txt"):
        assert Path(f"s.{kind}").read_bytes() == Path(f"r.{kind}").read_bytes()
    assert "<h1>" in Path("s.html").read_text("utf-8")


def run_process(*words, **environment):
    root = Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-m", "lightning_gradcam.cli", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        check=False,
    )


def test_process_exits_with_the_documented_codes(here):
    assert run_process(*RECORD, "--out", "b.safetensors").returncode == 0
    ran = run_process("compare", "b.safetensors", *NET, "--ckpt_path", "other.pt", PYTHONIOENCODING="ascii")
    assert ran.returncode == 1
    assert ran.stdout.startswith(b"? regressed")
    assert ran.stderr == b""
    Path("b.safetensors").write_bytes(b"\x80\x04")
    ran = run_process("compare", "b.safetensors", *NET)
    assert (ran.returncode, ran.stderr.count(b"\n"), ran.stdout) == (4, 1, b"")
