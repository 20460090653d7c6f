"""What many tests share: small models with nothing left at its initial value, and oracles of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import settings
from torch import Tensor, nn
from torch.nn import functional as F


def examples(count: int) -> settings:
    """Hypothesis with that many examples, the same ones in every run."""
    return settings(max_examples=count, deadline=None, derandomize=True)


def plain_cnn(channels: int = 3, classes: int = 5) -> nn.Sequential:
    """Two convolutions with BatchNorm; the last feature map is module "5"."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes),
    )  # fmt: skip


class TinyVGG(nn.Module):
    """In-place ReLUs, pooling behind the last of them, dropout in the head; for images of 16x16."""

    def __init__(self, inplace: bool = True, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(8 * 16, 16), nn.ReLU(inplace), nn.Dropout(), nn.Linear(16, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


class Block(nn.Module):
    """Residual, with one ReLU module used twice, in place."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(inner + self.shortcut(x))


class TinyResNet(nn.Module):
    """Registered from the head to the stem, so that order of registration is not order of execution."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.fc = nn.Linear(12, classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.layer2, self.layer1 = Block(8, 12, 2), Block(3, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.layer2(self.layer1(images))).flatten(1))


class Noisy(nn.Module):
    """Draws from all three random states in its forward pass and counts its calls in a buffer; may raise."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.body, self.fails = plain_cnn(), fails
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        import random

        import numpy as np

        self.calls += 1
        draw = random.random() + float(np.random.rand())
        out = self.body(images + draw * torch.rand_like(images))
        if self.fails:
            raise ValueError("not today")
        return F.dropout(out, 0.5, training=True)


class TinyViT(nn.Module):
    """Patches of 4, so many extra tokens in front, blocks of attention; the head reads the class token, or the mean."""

    def __init__(self, extra: int = 1, blocks: int = 3, side: int = 16, weights: bool = False) -> None:
        super().__init__()
        self.grid = (side // 4, side // 4)
        self.patches, self.head = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 5)
        self.extra = nn.Parameter(torch.randn(extra, 12)) if extra else nn.Buffer(torch.zeros(0, 12))
        self.positions = nn.Parameter(torch.randn(extra + (side // 4) ** 2, 12))
        self.blocks = nn.Sequential(*[AttentionBlock(weights) for _ in range(blocks)])

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.extra.expand(len(images), -1, -1), tokens], 1)
        tokens = self.blocks(tokens + self.positions)
        return self.head(tokens[:, 0] if len(self.extra) else tokens.mean(1))


class AttentionBlock(nn.Module):
    """A block of `TinyViT`; with ``weights``, attention is not fused."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(12), nn.MultiheadAttention(12, 3, batch_first=True)
        self.mlp, self.weights = nn.Sequential(nn.Linear(12, 12), nn.GELU()), weights

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=self.weights)[0]
        return tokens + self.mlp(self.norm(tokens))


def perturbed(model: nn.Module, seed: int = 0, images: Tensor | None = None) -> nn.Module:
    """The model in evaluation mode with every weight and BatchNorm statistic away from its initial value.

    In deep models, ``images`` keep signals alive: statistics are taken from them before they are changed.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for parameter in model.parameters():
            spread = parameter.std() if parameter.ndim > 1 else parameter.new_tensor(0.2)
            parameter += 0.5 * spread.clamp_min(0.02) * noise(parameter)
        if images is not None:
            for norm in norms:
                norm.momentum = 1.0
            model.train()(images)
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * noise(norm.running_mean)
            norm.running_var *= 0.7 + 0.6 * torch.rand(norm.running_var.shape, generator=generator)
    return model.eval()


def full_autograd(
    model: nn.Module, layer: str, images: Tensor, score: Callable[[Any], Tensor], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Activations and gradients at a layer from one ordinary backward pass through a copy without in-place ReLUs."""
    model = copy.deepcopy(model).to(dtype).eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    kept: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.inference_mode(False), torch.enable_grad():
        scores = score(model(images.detach().clone().to(dtype).requires_grad_()))
        kept[-1].retain_grad()
        scores.sum().backward()
    return kept[-1].detach(), kept[-1].grad


def plain_gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM, written out channel by channel."""
    evidence = torch.zeros(activations.shape[:1] + activations.shape[2:], dtype=activations.dtype)
    for n in range(activations.shape[0]):
        for k in range(activations.shape[1]):
            evidence[n] += gradients[n, k].mean() * activations[n, k]
    return evidence


def of_class(classes: Any) -> Callable[[Any], Tensor]:
    """The scores of one class, or of one per image."""
    return lambda out: out[torch.arange(len(out)), torch.as_tensor(classes).expand(len(out))]


def assert_close(found: Tensor, expected: Tensor, of_max: float = 1e-5) -> None:
    """Equal within a part of the largest expected magnitude, which must not be zero."""
    scale = expected.double().abs().max()
    assert scale > 0
    assert found.shape == expected.shape
    assert (found.double() - expected.double()).abs().max() <= of_max * scale


def find(picture: Tensor, patch: Tensor) -> list[tuple[int, int]]:
    """Where in a picture ``(3, h, w)`` a patch lies, pixel for pixel."""
    height, width = patch.shape[1:]
    down, across = picture.shape[1] - height + 1, picture.shape[2] - width + 1
    fits = torch.ones(down, across, dtype=torch.bool)
    for y in {0, height // 2, height - 1}:  # a few pixels first
        for x in {0, width // 2, width - 1}:
            fits &= picture[0, y : y + down, x : x + across] == patch[0, y, x]
    places = fits.nonzero().tolist()
    return [(y, x) for y, x in places if torch.equal(picture[:, y : y + height, x : x + width], patch)]


def read(font: Any, strip: Tensor, ink: Any, paper: Any) -> str:
    """The characters of one line ``(3, font.height, w)`` of a picture; every one must be a glyph of the font."""
    cells = strip[:, :, : strip.shape[2] // font.width * font.width].unfold(2, font.width, font.width)
    front, back = (torch.tensor(color).float()[:, None, None, None] for color in (ink, paper))
    coverage = ((cells - back) / (front - back)).permute(2, 0, 1, 3)  # (characters, 3, height, width)
    distance = (coverage[:, None] - font.glyphs[None, :, None]).abs().amax((2, 3, 4))
    nearest = distance.min(1)
    assert nearest.values.max() < 0.02, "something else than text"
    return "".join(font.characters[code] for code in nearest.indices.tolist())


def read_paragraph(font: Any, figure: Tensor, top: int, ink: Any = (33, 33, 38), paper: Any = (250, 250, 250)) -> str:
    """The lines of text from a row of pixels on, joined by spaces, up to something else than text."""
    lines, left = [], 4
    while top + font.height <= figure.shape[1]:
        try:
            lines.append(read(font, figure[:, top : top + font.height, left:], ink, paper).strip())
        except AssertionError:
            break
        top += font.height
    return " ".join(lines)


def read_footer(font: Any, figure: Tensor) -> str:
    """The text of a figure's footer, without its scale bar."""
    lines, bottom = [], figure.shape[1] - 4
    faint = (115, 115, 122)
    for line in range(1, 6):
        strip = figure[:, bottom - line * font.height : bottom - (line - 1) * font.height]
        for left in ["", "no evidence", "evidence 0"]:
            start = 4 + (len(left) * font.width + 120 + 2 * font.width if left else 0)
            try:
                text = read(font, strip[:, :, start:], faint, (250, 250, 250)).strip()
            except AssertionError:
                continue
            if left and read(font, strip[:, :, 4 : 4 + len(left) * font.width], faint, (250, 250, 250)) != left:
                continue
            lines.insert(0, text)
            if left:
                return " ".join([left, *lines])
            break
    raise AssertionError("no footer")
