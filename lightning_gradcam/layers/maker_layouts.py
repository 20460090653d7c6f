"""Modules of PyTorch whose outputs have their channels in a fixed dimension, whatever they receive."""

from __future__ import annotations

from torch import nn

CHANNELS_FIRST_MODULES = (
    nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.padding._ConstantPadNd, nn.modules.padding._ReflectionPadNd, nn.modules.padding._ReplicationPadNd,
    nn.Upsample, nn.PixelShuffle,
)  # fmt: skip
"""Modules that return ``(n, C, *spatial)``."""

CHANNELS_LAST_MODULES = (nn.Linear, nn.LayerNorm, nn.RMSNorm)
"""Modules that return ``(n, *spatial, C)``."""

SEQUENCE_MODULES = (*CHANNELS_LAST_MODULES, nn.Softmax, nn.MultiheadAttention, nn.RNNBase)
"""Modules that tell of sequences, and so of matrices of attention, which look like maps."""
