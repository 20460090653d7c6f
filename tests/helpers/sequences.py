"""Models of signals ``(N, C, L)`` that work on sequences ``(n, L, C)`` and ``(L, n, C)`` inside."""

from __future__ import annotations

import torch
from torch import nn


class Turn(nn.Module):
    """Exchanges two dimensions."""

    def __init__(self, copy: bool = False) -> None:
        super().__init__()
        self.copy = copy

    def forward(self, x):
        x = x.transpose(1, 2)
        return x.contiguous() if self.copy else x


class Transformer(nn.Module):
    """A convolution, an encoder of PyTorch, with a class token or a mean over the sequence."""

    def __init__(self, width=8, token=True, batch_first=True, norm_first=False, length=20) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, width, 5, 5)
        block = nn.TransformerEncoderLayer(
            width, 3 if width % 2 else 2, 12, batch_first=batch_first, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.token = nn.Parameter(torch.randn(1, 1, width)) if token else None
        self.place = nn.Parameter(torch.randn(1, length + token, width))
        self.norm, self.head, self.batch_first = nn.LayerNorm(width), nn.Linear(width, 4), batch_first

    def forward(self, signals):
        x = self.stem(signals).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.place
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        x = self.norm(x if self.batch_first else x.transpose(0, 1))
        return self.head(x.mean(1) if self.token is None else x[:, 0])


class Recurrent(nn.Module):
    """A recurrent network on the signal as it is, or on what a convolution makes of it."""

    def __init__(self, stem=True, width=8, batch_first=True, kind=nn.LSTM, pool="mean") -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(2, width, 5, 5), nn.ReLU()) if stem else nn.Identity()
        self.rnn = kind(width if stem else 2, width, batch_first=batch_first)
        self.head, self.batch_first, self.pool = nn.Linear(width, 4), batch_first, pool

    def forward(self, signals):
        x = self.stem(signals)
        x, _ = self.rnn(x.transpose(1, 2) if self.batch_first else x.permute(2, 0, 1))
        x = x if self.batch_first else x.transpose(0, 1)
        return self.head(x.mean(1) if self.pool == "mean" else x[:, -1])


class MixerBlock(nn.Module):
    """Mixes places, then channels."""

    def __init__(self, width, length, copy=False) -> None:
        super().__init__()
        self.norm1, self.norm2, self.copy = nn.LayerNorm(width), nn.LayerNorm(width), copy
        self.places = nn.Sequential(nn.Linear(length, 13), nn.GELU(), nn.Linear(13, length))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        turned = self.norm1(x).transpose(1, 2)
        x = x + self.places(turned.contiguous() if self.copy else turned).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self, width=8, length=20, copy=False) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, width, 5, 5)
        self.blocks = nn.Sequential(*(MixerBlock(width, length, copy) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, signals):
        return self.head(self.norm(self.blocks(self.stem(signals).transpose(1, 2))).mean(1))


class Residual(nn.Module):
    def __init__(self, width) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv1d(width, width, 3, 1, 1), nn.BatchNorm1d(width), nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.norm(self.conv(x)))


class ResNet(nn.Module):
    """Channels first throughout; with as many places as channels, too."""

    def __init__(self, width=20) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv1d(2, width, 5, 5), nn.Sequential(Residual(width), Residual(width))
        self.head = nn.Linear(width, 4)

    def forward(self, signals):
        return self.head(self.blocks(nn.functional.gelu(self.stem(signals))).mean(2))


class ConvNextBlock(nn.Module):
    def __init__(self, width) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(width, width, 3, 1, 1, groups=width), nn.LayerNorm(width)
        self.wide, self.act, self.narrow = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)

    def forward(self, x):
        inner = self.norm(self.conv(x).transpose(1, 2))
        return x + self.narrow(self.act(self.wide(inner))).transpose(1, 2)


class ConvNext(nn.Module):
    def __init__(self, width=20) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, width, 5, 5)
        self.blocks, self.head = nn.Sequential(ConvNextBlock(width), ConvNextBlock(width)), nn.Linear(width, 4)

    def forward(self, signals):
        return self.head(self.blocks(self.stem(signals)).mean(2))


class Patches(nn.Module):
    """Pieces of the signal to tokens by a linear layer."""

    def __init__(self, width=8, patch=10) -> None:
        super().__init__()
        self.embed, self.patch = nn.Linear(2 * patch, width), patch
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 12, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, 4)

    def forward(self, signals):
        x = self.embed(signals.unfold(2, self.patch, self.patch).transpose(1, 2).flatten(2))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(self.block(x)[:, 0])


class Inverted(nn.Module):
    """Channels are the tokens: nothing behind the first layer has places."""

    def __init__(self, width=8) -> None:
        super().__init__()
        self.stem, self.embed = nn.Conv1d(2, 6, 3, padding=1), nn.Linear(100, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 12, batch_first=True)
        self.head = nn.Linear(width, 4)

    def forward(self, signals):
        return self.head(self.block(self.embed(self.stem(signals))).mean(1))


class Pooled(nn.Module):
    """Pools tokens in channels first, and goes on in channels first."""

    def __init__(self, copy=False) -> None:
        super().__init__()
        self.stem, self.to_tokens, self.to_map = nn.Conv1d(2, 8, 5, 5), Turn(copy), Turn(copy)
        self.norm, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.pool, self.conv, self.head = nn.MaxPool1d(2), nn.Conv1d(8, 10, 3), nn.Linear(10, 4)

    def forward(self, signals):
        x = self.mlp(self.norm(self.to_tokens(self.stem(signals))))
        return self.head(self.conv(self.pool(self.to_map(x))).tanh().mean(2))
