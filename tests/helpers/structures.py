"""Structures of published models, each as small as it can be, whose last feature map is not the one to explain."""

from __future__ import annotations

import torch
from torch import nn


def conv(before, after, stride=1, kernel=3):
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.ReLU())


class Classifier(nn.Module):
    """A body and a linear head on the mean of its map."""

    def __init__(self, body, width) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 3)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


class Reduction(nn.Module):
    """Branches that halve the grid side by side, as in Inception-ResNet."""

    def __init__(self, width) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(conv(width, width, kernel=1), conv(width, width, 2))
        self.branch1 = nn.Sequential(conv(width, width, kernel=1), conv(width, width), conv(width, width, 2))

    def forward(self, maps):
        return torch.cat([self.branch0(maps), self.branch1(maps)], 1)


def reduction_net():
    return Classifier(nn.Sequential(conv(3, 8, 4), conv(8, 8), Reduction(8)), 16)


class SharedActivationBlock(nn.Module):
    """An inverted residual whose activation belongs to the whole model, as in EfficientNet for PyTorch."""

    def __init__(self, before, after, stride, act) -> None:
        super().__init__()
        self.expand, self.act_mod = nn.Conv2d(before, 4 * before, 1), act
        self.depthwise = nn.Conv2d(4 * before, 4 * before, 3, stride, 1, groups=4 * before)
        self.project, self.is_residual = nn.Conv2d(4 * before, after, 1), before == after and stride == 1

    def forward(self, maps):
        out = self.project(self.act_mod(self.depthwise(self.act_mod(self.expand(maps)))))
        return maps + out if self.is_residual else out


class SharedActivationNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._swish, self.stem = nn.SiLU(), nn.Conv2d(3, 8, 3, 2, 1)
        sizes = [(8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 24, 2)]
        self.blocks = nn.ModuleList([SharedActivationBlock(*size, self._swish) for size in sizes])
        self.head = nn.Linear(24, 3)

    def forward(self, images):
        maps = self._swish(self.stem(images))
        for block in self.blocks:
            maps = block(maps)
        return self.head(maps.mean((2, 3)))


class Patches(nn.Module):
    """Patches of an image as tokens."""

    def __init__(self, width=16) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, 4)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


def encoder(width=16, depth=2):
    layer = [nn.TransformerEncoderLayer(width, 2, 24, batch_first=True, norm_first=True) for _ in range(depth)]
    return nn.Sequential(*layer)


class CrossAttention(nn.Module):
    """Attention of some tokens to others, with a projection for each of its inputs."""

    def __init__(self, width=16) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))

    def forward(self, queries, tokens):
        tokens = self.norm(tokens)
        weights = (self.q_proj(queries) @ self.k_proj(tokens).transpose(1, 2)).softmax(-1)
        return queries + weights @ self.v_proj(tokens)


class EncoderDecoder(nn.Module):
    """Learned queries that read the encoder's tokens in each layer of the decoder, as in DETR."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.encoder = Patches(), encoder()
        self.queries = nn.Parameter(torch.randn(1, 3, 16))
        self.decoder, self.head = nn.ModuleList([CrossAttention(), CrossAttention()]), nn.Linear(16, 3)

    def forward(self, images):
        tokens, queries = self.encoder(self.patches(images)), self.queries.expand(len(images), -1, -1)
        for layer in self.decoder:
            queries = layer(queries, tokens)
        return self.head(queries.mean(1))


class ClassAttention(nn.Module):
    """A class token that joins behind the blocks, and reads the patches twice, as in CaiT."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks = Patches(), encoder()
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks_token_only = nn.ModuleList([CrossAttention(), CrossAttention()])
        self.head = nn.Linear(16, 3)

    def forward(self, images):
        tokens, token = self.blocks(self.patches(images)), self.token.expand(len(images), -1, -1)
        for block in self.blocks_token_only:
            token = block(token, torch.cat([token, tokens], 1))
        return self.head(token[:, 0])


class AuxiliaryHead(ClassAttention):
    """A second head that scores each patch, and counts in the score, as in VOLO."""

    def __init__(self) -> None:
        super().__init__()
        self.aux_head = nn.Linear(16, 3)

    def forward(self, images):
        return super().forward(images) + self.aux_head(self.blocks(self.patches(images))).amax(1) / 2


class FlatAttention(nn.Module):
    """Attention that normalizes its input and leaves the residual to its caller."""

    def __init__(self, width=16) -> None:
        super().__init__()
        self.norm, self.to_qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)

    def forward(self, tokens):
        queries, keys, values = self.to_qkv(self.norm(tokens)).chunk(3, 2)
        return (queries @ keys.transpose(1, 2)).softmax(-1) @ values


class FlatResiduals(nn.Module):
    """Residuals that the encoder adds itself, and a class token in front, as in vit-pytorch."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            mlps = [nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16)) for _ in range(2)]
            self.layers = nn.ModuleList(nn.ModuleList([FlatAttention(), mlp]) for mlp in mlps)
            self.norm = nn.LayerNorm(16)

        def forward(self, tokens):
            for attention, mlp in self.layers:
                tokens = tokens + attention(tokens)
                tokens = tokens + mlp(tokens)
            return self.norm(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.transformer = Patches(), self.Encoder()
        self.token, self.head = nn.Parameter(torch.randn(1, 1, 16)), nn.Linear(16, 3)

    def forward(self, images):
        tokens = torch.cat([self.token.expand(len(images), -1, -1), self.patches(images)], 1)
        return self.head(self.transformer(tokens)[:, 0])


class FlatConvolutions(nn.Module):
    """Branches of convolutions without a norm, whose residuals the model adds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 8, 4), nn.Linear(8, 3)
        self.branches = nn.ModuleList(nn.Sequential(conv(8, 8), nn.Conv2d(8, 8, 3, 1, 1)) for _ in range(2))

    def forward(self, images):
        maps = self.stem(images)
        for branch in self.branches:
            maps = maps + branch(maps)
        return self.head(maps.mean((2, 3)))


class SequencePooling(nn.Module):
    """Weights of tokens by a linear layer with one output, as in CCT."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks, self.norm = Patches(), encoder(), nn.LayerNorm(16)
        self.attention_pool, self.head = nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, images):
        tokens = self.norm(self.blocks(self.patches(images)))
        return self.head((self.attention_pool(tokens).softmax(1).transpose(1, 2) @ tokens)[:, 0])


class AnomalyMap(nn.Module):
    """Distances of positions to a reference, as a module without parameters; the score is the largest."""

    class Distances(nn.Module):
        def forward(self, maps):
            return maps.square().mean(1, keepdim=True)

    def __init__(self) -> None:
        super().__init__()
        self.features, self.anomaly_map = nn.Sequential(conv(3, 8, 2), conv(8, 8)), self.Distances()

    def forward(self, images):
        highest = self.anomaly_map(self.features(images)).flatten(1).amax(1)
        return torch.stack([highest, -highest], 1)


class Padded(nn.Module):
    """Padding as a module in front of a convolution that halves the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.pad = conv(3, 8, 4), nn.ZeroPad2d((0, 1, 0, 1))
        self.last, self.head = nn.Conv2d(8, 12, 3, 2), nn.Linear(12, 3)

    def forward(self, images):
        return self.head(self.last(self.pad(self.features(images))).mean((2, 3)))


class Pyramid(nn.Module):
    """A detector's head on all levels of a feature pyramid, and its scores in one row, as in RetinaNet."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.cls_logits = conv(8, 8), nn.Conv2d(8, 3, 1)

        def forward(self, levels):
            return torch.cat([self.cls_logits(self.conv(level)).flatten(2).transpose(1, 2) for level in levels], 1)

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.lateral = conv(3, 8, 2), conv(8, 8, 2), conv(8, 8)
        self.smooth, self.head = conv(8, 8), self.Head()

    def forward(self, images):
        fine = self.layer1(images)
        coarse = self.layer2(fine)
        merged = self.lateral(fine) + nn.functional.interpolate(coarse, scale_factor=2)
        return self.head([self.smooth(merged), coarse]).amax(1)
