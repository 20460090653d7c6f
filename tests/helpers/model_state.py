"""The state of a model and the process that a forward pass could change."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

HOOKS = [name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))]


def everything(model):
    """Return the state of a model and the process that a training run depends on, as nested plain values."""
    return {
        "hooks": [[len(getattr(module, name)) for name in HOOKS] for module in model.modules()],
        "training": [module.training for module in model.modules()],
        "parameters": [(id(p), id(p.grad), p.requires_grad, p._version, p.tolist()) for p in model.parameters()],
        "gradients": [p.grad if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "buffers": [(id(b), b._version, b.numpy().tobytes()) for b in model.buffers()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "python": random.getstate(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "switches": (torch.backends.mha.get_fastpath_enabled(), torch.is_autocast_cache_enabled()),
    }
