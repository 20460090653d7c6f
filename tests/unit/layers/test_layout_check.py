"""Inferred layouts are checked by changing patches: right ones stay, wrong ones are corrected or refused.

The oracle changes one patch after the other, in plain PyTorch, and looks where the explained map changes most.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import explain
from lightning_gradcam.capture.layouts import Frames, Tokens, Turned, channels_first, channels_last
from lightning_gradcam.errors import NotExplainableError
from lightning_gradcam.layers.recommend import recommended_layers
from lightning_gradcam.layers.spatial_grid import GridInference
from tests.helpers.models import assert_close, full_autograd, of_class, perturbed, plain_gradcam

WIDTH = 24


class Attention(nn.Module):
    """Attention by hand: its weights, and their product with the values, come from modules of their own."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.attend, self.mix = heads, nn.Softmax(-1), nn.Identity()
        self.norm, self.to_qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.product = Product()

    def forward(self, tokens):
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(self.norm(tokens)).chunk(3, -1)
        )
        weights = self.attend(q @ k.mT * q.shape[-1] ** -0.5)
        return tokens + self.out(self.product(weights, v).transpose(1, 2).flatten(2))


class Product(nn.Module):
    def forward(self, weights, values):
        return weights @ values


class Reorder(nn.Module):
    """A module that returns the tokens in another order, or fewer of them."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, tokens):
        return self.change(tokens)


def make_extra(count: int) -> Tensor:
    return nn.Parameter(torch.randn(1, count, WIDTH)) if count else nn.Buffer(torch.zeros(1, 0, WIDTH))


class Transformer(nn.Module):
    """Patches of a convolution, tokens before and after them, blocks, and the mean of all tokens."""

    def __init__(self, front=0, behind=0, change=None, turned=False, patch=4, channels=3) -> None:
        super().__init__()
        self.embed, self.turned = nn.Conv2d(channels, WIDTH, patch, patch), turned
        self.front, self.behind = (
            nn.Parameter(torch.randn(1, n, WIDTH)) if n else nn.Buffer(torch.zeros(1, 0, WIDTH))
            for n in (front, behind)
        )
        self.change = Reorder(change) if change else nn.Sequential()
        self.blocks = nn.Sequential(*(Attention() for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, images):
        patches = self.embed(images.transpose(2, 3) if self.turned else images).flatten(2).transpose(1, 2)
        before, after = (extra.expand(len(images), -1, -1) for extra in (self.front, self.behind))
        tokens = self.blocks(self.change(torch.cat([before, patches, after], 1)))
        return self.head(self.norm(tokens).mean(1))


def unroll(tokens: Tensor) -> Tensor:
    """Put the tokens of every 2x2 square of a 6x8 grid next to each other, as hierarchical models do."""
    squares = tokens.reshape(len(tokens), 3, 2, 4, 2, -1).permute(0, 2, 4, 1, 3, 5)
    return squares.flatten(1, 4)


def pick_by_score(tokens: Tensor) -> Tensor:
    """Keep a quarter of the tokens: those of the largest norm, in this order."""
    chosen = tokens.norm(dim=2).argsort(1, descending=True)[:, : tokens.shape[1] // 4]
    return tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[2]))


class Merger(nn.Module):
    """Merges all patches into a few tokens by learned queries."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(count, WIDTH))

    def forward(self, tokens):
        return (self.queries @ tokens.mT).softmax(-1) @ tokens


@torch.no_grad()
def count_own_places(model, images, layer, to_grid, probes=5) -> int:
    """Count the changed patches that change the map at their own place most, among ``probes``."""
    kept = []
    module = dict(model.named_modules())[layer]
    handle = module.register_forward_hook(lambda _m, _a, out: kept.append(to_grid(out).clone()))
    model(images)
    grid = kept[0].shape[2:]
    spread = images.std()
    maps, cells = [], []
    for seed in range(probes):
        generator = torch.Generator().manual_seed(seed)
        cell = tuple(int(torch.randint(side, (1,), generator=generator)) for side in grid)
        changed, where = images.clone(), [slice(None), slice(None)]
        for index, side, size in zip(cell, grid, images.shape[2:], strict=True):
            where.append(slice(index * size // side, (index + 1) * size // side))
        patch = changed[tuple(where)]
        changed[tuple(where)] = patch + 2 * spread * torch.randn(patch.shape, generator=generator)
        kept[1:] = []
        model(changed)
        maps.append((kept[1] - kept[0]).norm(dim=1)[0])
        cells.append(cell)
    handle.remove()
    change = torch.stack(maps)
    change = change / change.mean(0, keepdim=True).clamp_min(1e-12)  # cells that react to everything
    strongest = [divmod(int(c.flatten().argmax()), grid[-1]) for c in change]
    return sum(
        max(abs(a - b) for a, b in zip(s, c[-2:], strict=True)) <= 0 for s, c in zip(strongest, cells, strict=True)
    )


IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))

SQUARE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # 64 patches; a quarter are 4x4

RIGHT = {
    "class token": (lambda: Transformer(front=1), Tokens((6, 8), 1)),
    "no class token": (Transformer, Tokens((6, 8))),
    "registers in front": (lambda: Transformer(front=5), Tokens((6, 8), 5)),
    "registers behind": (lambda: Transformer(behind=4), Tokens((6, 8), 4, suffix=4)),
    "class token and registers behind": (lambda: Transformer(1, 4), Tokens((6, 8), 5, suffix=4)),
    "class token behind": (lambda: Transformer(behind=1), Tokens((6, 8), 1, suffix=1)),
    "turned axes": (lambda: Transformer(front=2, turned=True), Tokens((6, 8), 2, order=(1, 0))),
    "turned order of tokens": (
        lambda: Transformer(change=lambda t: t.unflatten(1, (6, 8)).transpose(1, 2).flatten(1, 2)),
        Tokens((6, 8), order=(1, 0)),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_tokens_are_read_where_patches_change_them(name):
    make, layout = RIGHT[name]
    torch.manual_seed(1)
    model = make().eval()
    explanation = explain(model, IMAGES, target=1)
    [(key, layer)] = explanation.layers.items()
    assert layer.to_grid == layout
    assert count_own_places(model, IMAGES, layer.name, layer.to_grid) == 5
    tensors = full_autograd(model, layer.name, IMAGES, of_class(1))
    assert_close(explanation.evidence[key], plain_gradcam(*map(layout, tensors)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weights", ["initial", "large"])
def test_square_images_with_turned_axes_are_corrected(seed, weights):
    torch.manual_seed(seed)
    model = Transformer(turned=True).eval()
    model = perturbed(model) if weights == "large" else model
    images = torch.rand(2, 3, 32, 32)  # the shapes do not show that the axes are exchanged
    [layer] = explain(model, images, target=1).layers.values()
    assert layer.to_grid == Tokens((8, 8), order=(1, 0))
    assert count_own_places(model, images, layer.name, layer.to_grid) == 5


class Shrinking(nn.Module):
    """Every second token of each row and column queries all tokens, whose changes reach all queries alike."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.queries = nn.Conv2d(3, WIDTH, 4, 4), nn.Linear(WIDTH, WIDTH)
        self.values, self.norm, self.head = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)
        self.phases = nn.Parameter(10 * torch.randn(1, 48, WIDTH))

    def forward(self, images):
        grid = self.embed(images)
        queries = self.queries(grid[:, :, ::2, ::2].flatten(2).transpose(1, 2))
        values = self.values(grid.flatten(2).transpose(1, 2)).mean(1, keepdim=True)
        return self.head(self.norm(torch.sin(400 * values + self.phases + 0.02 * queries)).mean(1))


def test_tokens_on_a_grid_that_was_shown_need_no_proof():
    torch.manual_seed(0)
    [layer] = explain(Shrinking().eval(), IMAGES.repeat(1, 1, 2, 2), target=1).layers.values()
    assert (layer.name, layer.to_grid) == ("norm", Tokens((6, 8)))


WRONG = {
    "hierarchical order": unroll,
    "picked by score": pick_by_score,
    "merged by queries": None,
    "shuffled": lambda t: t[:, torch.randperm(48, generator=torch.Generator().manual_seed(3))],
}


def build_wrong(name: str) -> tuple[Transformer, Tensor]:
    torch.manual_seed(1)
    model = Transformer(change=WRONG[name] or unroll).eval()
    if WRONG[name] is None:
        model.change = Merger(16)
    return model, SQUARE if WRONG[name] in (None, pick_by_score) else IMAGES


@pytest.mark.parametrize("name", WRONG)
def test_tokens_out_of_place_are_not_chosen(name):
    model, images = build_wrong(name)
    for layers in ("auto", "stages"):
        explanation = explain(model, images, target=1, layers=layers)
        for layer in explanation.layers.values():
            assert count_own_places(model, images, layer.name, layer.to_grid) == 5
    names = {candidate.layer.name for candidate in recommended_layers(model, images, target=1)}
    assert names
    assert not any(name.startswith(("blocks", "norm")) for name in names)


@pytest.mark.parametrize("name", ["hierarchical order", "shuffled", "merged by queries"])
def test_named_layer_out_of_place_is_explained_with_warning(name):
    model, images = build_wrong(name)
    with pytest.warns(UserWarning, match="The map of layer 'norm' may not lie where it is drawn"):
        assert explain(model, images, layers="norm", target=1).evidence["norm"].ndim == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(model, images, layers="embed", target=1)


def test_model_whose_maps_are_all_out_of_place_is_refused_with_reason():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = Reorder(lambda x: WRONG["shuffled"](F.unfold(x, 4, stride=4).transpose(1, 2)))
            self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 3)

        def forward(self, images):
            return self.head(self.norm(self.patches(images)).mean(1))

    with pytest.raises(NotExplainableError, match=r"do not change the outputs at their own places.*to_grid"):
        explain(Shuffled(), IMAGES, target=1)


def test_attention_weights_and_products_are_not_maps():
    torch.manual_seed(0)
    model = Transformer(front=1, change=lambda t: t[:, :50]).eval()  # 50 tokens have no grid of their own
    model.change = Reorder(lambda t: t[:, torch.arange(37)])
    names = {c.layer.name for c in recommended_layers(model, IMAGES, target=1)}
    assert not any("attend" in name or "product" in name for name in names)


class SkipNet(nn.Module):
    """A U-Net with attention in the middle: as many tokens as its finest map has rows."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, WIDTH, 3, 1, 1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 8, 8))
        self.middle = Attention()
        self.up = nn.Sequential(nn.Upsample(scale_factor=8), nn.Conv2d(WIDTH, 16, 3, 1, 1), nn.ReLU())
        self.scores = nn.Conv2d(16, 3, 1)

    def forward(self, images):
        deep = self.down(images)
        tokens = self.middle(deep.flatten(2).transpose(1, 2))
        return self.scores(self.up(tokens.transpose(1, 2).unflatten(2, deep.shape[2:]))).mean((2, 3))


def test_side_as_long_as_a_token_sequence_is_no_attention():
    model = SkipNet().eval()
    images = torch.rand(2, 3, 64, 64)  # 8x8 patches are 64 tokens
    [layer] = explain(model, images, target=1).layers.values()
    assert layer.name == "scores"  # whose mean is the score
    assert "return sequences" not in layer.reason


class FrameNet(nn.Module):
    """Frames of a clip as rows of a batch, and a mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 8, 3, 2, 1), nn.Tanh())
        self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, clips):
        features = self.cnn(clips.flatten(0, 1)).mean((2, 3)).unflatten(0, clips.shape[:2])
        return self.head(self.lstm(features)[0].mean(1))


def test_clips_with_frames_first_get_a_map_per_frame():
    torch.manual_seed(0)
    model, clips = FrameNet().eval(), torch.rand(2, 5, 3, 16, 24)
    explanation = explain(model, clips, target=2)
    [(key, layer)] = explanation.layers.items()
    assert (layer.name, layer.to_grid, explanation.size) == ("cnn", Frames(5), (5, 16, 24))
    tensors = full_autograd(model, "cnn", clips, of_class(2))
    assert_close(explanation.evidence[key], plain_gradcam(*(t.unflatten(0, (2, 5)).transpose(1, 2) for t in tensors)))


class TokenVideo(nn.Module):
    """Tokens of space and time: in the order of time, then space, or the other way round."""

    def __init__(self, space_first: bool, extra: int = 0) -> None:
        super().__init__()
        self.embed, self.space_first = nn.Linear(3 * 4 * 4, WIDTH), space_first
        self.extra = make_extra(extra)
        self.block, self.norm, self.head = Attention(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, clips):
        n, t, c, h, w = clips.shape
        patches = clips.reshape(n, t, c, h // 4, 4, w // 4, 4).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
        tokens = self.embed(patches.flatten(1, 3))
        if self.space_first:
            tokens = tokens.unflatten(1, (t, -1)).transpose(1, 2).flatten(1, 2)
        tokens = torch.cat([self.extra.expand(n, -1, -1), tokens], 1)
        return self.head(self.norm(self.block(tokens)).mean(1))


@pytest.mark.parametrize(("space_first", "extra"), [(False, 0), (False, 1), (True, 0), (True, 1)])
def test_tokens_of_space_and_time_are_a_grid_of_three(space_first, extra):
    torch.manual_seed(0)
    model, clips = TokenVideo(space_first, extra).eval(), torch.rand(2, 6, 3, 16, 24)
    explanation = explain(model, clips, target=1)
    [(key, layer)] = explanation.layers.items()
    assert layer.to_grid == Tokens((6, 4, 6), extra, order=(1, 2, 0) if space_first else ())
    activations, gradients = (t[:, extra:] for t in full_autograd(model, layer.name, clips, of_class(1)))
    order = (4, 6, 6) if space_first else (6, 4, 6)
    maps = [t.transpose(1, 2).unflatten(2, order) for t in (activations, gradients)]
    maps = [m.movedim(4, 2) for m in maps] if space_first else maps
    assert_close(explanation.evidence[key], plain_gradcam(*maps))


class Spectrograms(nn.Module):
    """Takes spectrograms (N, T, F) without channels, and has frequency before time inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Transformer(front=2, channels=1)

    def forward(self, spectrograms):
        return self.inner(spectrograms[:, None].transpose(2, 3))


def test_spectrograms_without_channels_get_maps_of_two_dimensions():
    torch.manual_seed(0)
    model, spectrograms = Spectrograms().eval(), torch.rand(2, 48, 16)
    explanation = explain(model, spectrograms, target=1)
    [(key, layer)] = explanation.layers.items()
    assert layer.to_grid == Tokens((12, 4), 2, order=(1, 0))
    tensors = full_autograd(model, layer.name, spectrograms, of_class(1))
    maps = [t[:, 2:].transpose(1, 2).unflatten(2, (4, 12)).transpose(2, 3) for t in tensors]
    assert_close(explanation.evidence[key], plain_gradcam(*maps))


def test_turned_map_of_convolution_in_front_of_tokens_is_corrected():
    torch.manual_seed(0)
    model = Transformer(turned=True).eval()
    explanation = explain(model, IMAGES, layers="embed", target=1)
    assert explanation.layers["embed"].to_grid == Turned(channels_first, (1, 0))
    tensors = full_autograd(model, "embed", IMAGES, of_class(1))
    assert_close(explanation.evidence["embed"], plain_gradcam(*tensors).transpose(1, 2))


def test_plain_convolutional_model_runs_once():
    calls = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    model(IMAGES)
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    recommended_layers(model, IMAGES, target=1)
    assert len(calls) == 1


def test_check_leaves_random_state_and_results_alone():
    torch.manual_seed(0)
    model = Transformer(front=1).eval()
    state = torch.get_rng_state()
    first = explain(model, IMAGES, target=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    second = explain(model, IMAGES, target=1)
    assert first.layers == second.layers
    assert all(torch.equal(first.evidence[key], second.evidence[key]) for key in first.evidence)


def test_model_for_one_image_is_checked():
    torch.manual_seed(0)

    class Single(Transformer):
        def forward(self, images):
            if len(images) != 1:
                raise ValueError("one image only")
            return super().forward(images)

    [layer] = explain(Single(turned=True).eval(), IMAGES[:1], target=1).layers.values()
    assert layer.to_grid == Tokens((6, 8), order=(1, 0))


def test_channels_last_modules_are_read_with_channels_last():
    inference = GridInference((8, 32, 32), 2)
    assert inference.read((2, 4, 4, 4, 48), nn.LayerNorm(48)) == ((4, 4, 4), channels_last)
    assert inference.read((2, 64, 48), nn.Linear(8, 48)) == ((4, 4, 4), Tokens((4, 4, 4)))
