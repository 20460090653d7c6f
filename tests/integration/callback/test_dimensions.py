"""Runs on signals and volumes: numbers against slow replicas, and figures from TensorBoard."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradcam import GradCAMCallback, Probe, explain
from lightning_gradcam.capture.isolation import isolated
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.render.arrangement import GAP, WIDTH
from lightning_gradcam.render.colors import INK, PAPER
from lightning_gradcam.targets import TARGETS
from tests.helpers.lit import BODIES, LitBodies, bodies, fit
from tests.helpers.models import read


def loaders(dimensions: int) -> dict[str, DataLoader]:
    train, val = bodies(48, dimensions), bodies(36, dimensions, seed=1)
    return {"train": DataLoader(TensorDataset(*train[:2]), 12), "val": DataLoader(TensorDataset(*val[:2]), 12)}


@pytest.mark.parametrize("dimensions", [1, 3])
def test_run_logs_figures_film_and_curves_and_finds_bodies(tmp_path, read_events, dimensions):
    callback = GradCAMCallback(curves="all")
    trainer = fit(tmp_path, [callback], make=BODIES[dimensions], max_epochs=12, **loaders(dimensions))
    events = read_events(trainer.log_dir)
    key = callback.monitor.explainer.layers[0].key
    pictures, films = events.Images(f"gradcam/{key}"), events.Images("gradcam/film")
    assert (len(pictures), len(films)) == (13, 1)
    for event in (pictures[-1], films[0]):
        image = Image.open(io.BytesIO(event.encoded_image_string))
        assert image.size[0] == WIDTH
        pixels = np.asarray(image).astype(int)
        assert pixels.std() > 20
        assert (pixels[..., 0] - pixels[..., 2] > 50).mean() > 0.002  # the warm end of the colours
    for name in ("drift", "drift_from_start", "degenerate", "concentration", "accuracy", "confidence"):
        assert all(math.isfinite(e.value) for e in events.Scalars(f"gradcam/{name}")), name
    assert trainer.callback_metrics["gradcam/accuracy"] > 0.9
    images, labels, masks = bodies(12, dimensions, seed=5)
    model = trainer.lightning_module
    heatmaps = explain(model, images, target=labels).heatmaps()[key]
    assert heatmaps.shape == masks.shape
    inside = (heatmaps * masks).sum() / masks.sum()
    outside = (heatmaps * ~masks).sum() / (~masks).sum()
    assert inside > 2 * outside
    [said] = [e.tensor_proto.string_val[0].decode() for e in events.Tensors("gradcam/choices/text_summary")]
    assert {1: "signals as lines", 3: "3 of the 12 slices"}[dimensions] in said


def slow_spearman(a: np.ndarray, b: np.ndarray) -> float:
    if not a.any() or not b.any():
        return math.nan if not a.any() and not b.any() else 0.0
    return float(spearmanr(a.ravel(), b.ravel()).statistic)


def slow_gini(a: np.ndarray) -> float:
    flat = a.ravel()
    return float(np.abs(flat[:, None] - flat).sum() / (2 * len(flat) * flat.sum()))


@pytest.mark.parametrize("dimensions", [1, 3])
def test_curves_equal_slow_replicas(dimensions):
    images, labels, _ = bodies(6, dimensions)
    model, target = BODIES[dimensions](), TARGETS["label"]
    probe = Probe(images, labels=labels)
    plan = prepare(model, probe, target=target, layers="features.1")
    watch = ProbeMonitor(probe, ShardedExplainer(plan), target, DisplayConfig())
    kept, grid = [], {1: "96 cells", 3: "12×16×16"}[dimensions]
    for look in range(3):
        found = watch.take_snapshot(model, f"epoch {look}")
        bold = watch.figures.sheet.bold
        title = found.figures["features.1"][:, GAP : GAP + bold.height, GAP:]
        assert read(bold, title, INK, PAPER).startswith(f"features.1 · {grid} · gradcam of the label")
        with isolated(model), torch.enable_grad():
            features = model.features[:2](model_input(model, images)).detach().requires_grad_()
            logits = model.head(model.features[2:](features).flatten(2).mean(2))
            [gradients] = torch.autograd.grad(logits[torch.arange(6), labels].sum(), features)
        weights = gradients.double().flatten(2).mean(2)
        maps = torch.einsum("nk,nk...->n...", weights, features.detach().double()).relu().numpy()
        kept.append(maps)
        for name, other in (("drift", kept[look - 1]), ("drift_from_start", kept[0])):
            expected = 1 - np.nanmean([slow_spearman(a, b) for a, b in zip(maps, other, strict=True)])
            assert (name in found.numbers) == (look > 0)
            assert look == 0 or float(found.numbers[name]) == pytest.approx(expected, abs=2e-4)
        small = [m for m in maps if m.any()]
        assert float(found.numbers["concentration"]) == pytest.approx(np.mean([slow_gini(m) for m in small]), abs=1e-4)
        assert float(found.numbers["degenerate"]) == pytest.approx(1 - len(small) / len(maps))
        shares = logits.detach().softmax(1)
        assert float(found.numbers["accuracy"]) == pytest.approx(float((shares.argmax(1) == labels).float().mean()))
        assert float(found.numbers["confidence"]) == pytest.approx(float(shares.amax(1).mean()), abs=1e-5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)


def model_input(model: LitBodies, images: Tensor) -> Tensor:
    seen = []
    handle = model.features.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]
