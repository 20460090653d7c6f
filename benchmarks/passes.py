"""The cost of Score-CAM and Ablation-CAM, compared with pytorch-grad-cam.

Run as ``python -m benchmarks.passes``. All contestants take turns within one run; ratios are within one round.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from benchmarks.environment import environment
from benchmarks.speed.cases import photos, settle
from benchmarks.tables import table
from lightning_gradcam.explainer.pipeline import explain
from lightning_gradcam.methods import AblationCAM, ScoreCAM

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
BEGIN, END = "<!-- benchmarks.passes -->", "<!-- end -->"
MODEL, LAYERS, SIZE, CHUNK = "resnet18", ("layer3", "layer4"), 64, 32
_ABOUT = f"""One image of {SIZE}x{SIZE} pixels, {MODEL} with random weights, chunks of {CHUNK}; the median of {{rounds}}
rounds in which all take turns (`python -m benchmarks.passes` writes this table). {{about}}."""
PEERS = {"scorecam": "ScoreCAM", "ablationcam": "AblationCAM"}

Contestant = Callable[[nn.Module, Tensor, str], object]


def ours(method: ScoreCAM | AblationCAM) -> Contestant:
    """Return our contestant, with tracing and isolation of the model."""
    return lambda model, images, layer: explain(model, images, layers=layer, method=method, target=0)


def peer(name: str) -> Contestant:
    """Return the contestant of pytorch-grad-cam, with chunks of the same size."""

    def run(model: nn.Module, images: Tensor, layer: str) -> object:
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with getattr(import_module("pytorch_grad_cam"), name)(model, [model.get_submodule(layer)]) as cam:
            cam.batch_size = CHUNK
            return cam(images, [ClassifierOutputTarget(0)] * len(images))

    return run


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each round, by layer and contestant."""
    torch.manual_seed(0)
    many = photos(8)[..., :SIZE, :SIZE].contiguous()
    model, images = get_model(MODEL, weights=None), many[:1]
    settle(model, many)
    contestants = {"ours: scorecam": ours(ScoreCAM(CHUNK)), "ours: ablationcam": ours(AblationCAM(CHUNK))}
    contestants |= {f"pytorch-grad-cam: {name}": peer(peers) for name, peers in PEERS.items()}
    found: dict[str, dict[str, list[float]]] = {layer: {name: [] for name in contestants} for layer in LAYERS}
    for _ in range(rounds):
        for layer, seconds in found.items():
            for name in random.sample(list(contestants), len(contestants)):
                start = perf_counter()
                contestants[name](model, images, layer)
                seconds[name].append(perf_counter() - start)
    return found


def written(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the table for the page."""
    rows = []
    for layer, seconds in found.items():
        for method in PEERS:
            mine, theirs = seconds[f"ours: {method}"], seconds[f"pytorch-grad-cam: {method}"]
            ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
            share = f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
            rows.append((method, layer, f"{median(mine):.2f} s", f"{median(theirs):.2f} s", share))
    rounds = len(next(iter(next(iter(found.values())).values())))
    text = table(("method", "layer", "ours", "pytorch-grad-cam", "ratio"), rows)
    about = ", ".join(f"{what} {which}" for what, which in environment().items())
    return f"{BEGIN}\n{text}\n\n{_ABOUT.format(rounds=rounds, about=about)}\n{END}"


def main() -> None:
    """Measure, print, and write the table into ``docs/methods.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    text = written(measure(parser.parse_args().rounds))
    print(text)
    page = PAGE.read_text("utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(before + text + after, "utf-8")


if __name__ == "__main__":
    main()
