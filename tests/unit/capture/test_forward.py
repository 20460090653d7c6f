"""The forward pass of a module that does not define one."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn

from lightning_gradcam import NotExplainableError, explain
from lightning_gradcam.capture.forward import ChildForward, find_forward
from tests.helpers.models import assert_close, perturbed, plain_cnn


class Headless(LightningModule):
    def __init__(self, **children) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def test_find_forward_returns_largest_child():
    network, images = perturbed(plain_cnn()), torch.randn(2, 3, 12, 12)
    module = Headless(loss=nn.CrossEntropyLoss(), metric=nn.Linear(2, 2), network=network)
    assert find_forward(module) == ChildForward("network")
    found = explain(module, images, forward=find_forward(module), target=1)
    assert list(found.evidence) == ["network.5"]
    assert_close(found.evidence["network.5"], explain(network, images, target=1).evidence["5"], 1e-6)
    own = type("Own", (Headless,), {"forward": lambda self, images: self.network(images)})
    assert find_forward(own(network=network)) is None
    assert find_forward(network) is None
    with pytest.raises(NotExplainableError, match=r"neither a `forward` nor a child with parameters.*`forward=`"):
        find_forward(Headless(loss=nn.CrossEntropyLoss()))
