"""A model whose memory runs out."""

from __future__ import annotations

import torch


class LimitedMemory:
    """Memory for a number of images: a larger batch raises as CUDA does."""

    def __init__(self, model, images):
        self.model, self.images, self.passes = model, images, []
        self.hook = model.register_forward_pre_hook(self.check)

    def check(self, _module, args):
        self.passes.append(len(args[0]))
        if len(args[0]) > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
