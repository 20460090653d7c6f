"""A small detector of bright spots, resized and padded as torchvision does."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class Spots(nn.Module):
    """A detector of bright spots: resized and padded as torchvision does, one map, and a box for each cell over 0."""

    def __init__(self, size: int, divisible: int = 32, stride: int = 8, pooled: bool = False) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(size, 4 * size, [0.0], [1.0], size_divisible=divisible)
        self.body = nn.Sequential(nn.Conv2d(1, 2, stride, stride, bias=False), nn.ReLU())
        self.stride, self.pooled = stride, pooled
        nn.init.constant_(self.body[0].weight, 1 / stride**2)
        self.body[0].weight.data[1] *= -1  # a channel that is off

    def forward(self, images):
        originals = [tuple(image.shape[-2:]) for image in images]
        seen, _ = self.transform(images)
        maps = self.body(seen.tensors)
        found = [self.boxes(scores[0] - scores[1]) for scores in maps]
        return self.transform.postprocess(found, seen.image_sizes, originals)

    def boxes(self, scores):
        at = (scores > 0.5).nonzero()
        corners = at.flip(1).float() * self.stride
        labels = 1 + torch.arange(len(at)) % 2
        return {
            "boxes": torch.cat([corners, corners + self.stride], 1),
            "labels": labels,
            "scores": scores[scores > 0.5],
        }


def spotted(size, at):
    images = torch.zeros(len(at), 1, *size)
    for image, (y, x, h, w) in zip(images, at, strict=True):
        image[:, y : y + h, x : x + w] = 1.0
    return images
