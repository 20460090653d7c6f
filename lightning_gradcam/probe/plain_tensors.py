"""Tensor subclasses that carry metadata, such as MONAI's `MetaTensor` and the image types of torchvision."""

from __future__ import annotations

from torch import Tensor, nn


def as_plain_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor subclass as a `torch.Tensor` that shares its memory and its graph; other tensors as they are.

    Operations of such subclasses check or copy metadata, and some reject what PyTorch accepts. Subclasses that compute
    by themselves (``__torch_dispatch__``), such as sharded tensors, and parameters are returned unchanged.

    >>> from torchvision.tv_tensors import Image
    >>> type(as_plain_tensor(Image([[[[0.5]]]])))
    <class 'torch.Tensor'>
    """
    if type(tensor) is Tensor or isinstance(tensor, nn.Parameter):
        return tensor
    computes_itself = type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
    return tensor if computes_itself else tensor.as_subclass(Tensor)
