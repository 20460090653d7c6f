"""Vision Transformers written by hand, for images of 16x24."""

from __future__ import annotations

import torch
from torch import nn


class TokenViT(nn.Module):
    """A Vision Transformer of three blocks for images of 16x24, with its tokens in front, read as told.

    Its modules are named and nested as those of timm; queries, keys and values are modules of their own.
    """

    def __init__(self, extra: int = 1, patches: str = "conv", pool: str = "token", rows: int = 0) -> None:
        super().__init__()
        width = 8
        self.conv = nn.Conv2d(3, width, 4, 4) if patches == "conv" else nn.Unfold(4, stride=4)
        self.embed = nn.Identity() if patches == "conv" else nn.Linear(48, width)
        self.front = nn.Parameter(torch.randn(1, extra, width)) if extra else torch.zeros(1, 0, width)
        self.place = nn.Parameter(torch.randn(1, extra + 24, width))
        self.blocks = nn.Sequential(*(Block(width, rows) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)
        self.extra, self.pool, self.rows = extra, pool, rows

    def forward(self, images):
        patches = self.embed(self.conv(images).flatten(2).transpose(1, 2))
        tokens = torch.cat([self.front.expand(len(images), -1, -1), patches], 1) + self.place
        tokens = self.norm(self.blocks(tokens.movedim(0, self.rows)).movedim(self.rows, 0))
        return self.head(tokens[:, 0] if self.pool == "token" else tokens[:, self.extra :].mean(1))


class Block(nn.Module):
    def __init__(self, width, rows) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), Attention(width, rows), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens):
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Attention(nn.Module):
    """Two heads, with normalised queries and keys and a module that mixes heads: outputs of four dimensions."""

    def __init__(self, width, rows) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.mix, self.rows = nn.LayerNorm(width // 2), nn.Linear(2, 2), rows

    def forward(self, tokens):
        tokens = tokens.movedim(self.rows, 0)
        query, key, value = (
            of(tokens).unflatten(2, (2, -1)).transpose(1, 2) for of in (self.query, self.key, self.value)
        )
        weights = self.norm(query) @ self.norm(key).transpose(2, 3)
        weights = self.mix(weights.movedim(1, 3)).movedim(3, 1).softmax(3)
        return self.out((weights @ value).transpose(1, 2).flatten(2)).movedim(0, self.rows)


class AttentionPool(nn.Module):
    """One vector of all tokens: what it makes of them is a branch that ends here."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(8, 1), nn.Linear(8, 6)

    def forward(self, tokens):
        return (self.key(tokens).softmax(1) * self.value(tokens)).sum(1)


class Shared(nn.Module):
    """One activation for a map and for the tokens that it becomes; pools these by attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.mix = nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Linear(8, 8)
        self.pool, self.head = AttentionPool(), nn.Linear(6, 5)

    def forward(self, images):
        tokens = self.act(self.conv(images)).flatten(2).transpose(1, 2)
        return self.head(self.pool(self.act(self.mix(tokens))))
