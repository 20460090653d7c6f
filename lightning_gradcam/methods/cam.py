"""Equations on a layer's activations and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gradcam.methods.base import METHODS

SQUARINGS = 20
"""A matrix squared as often is its power of a million: of eigenvalues 1e-5 apart, one is left."""


@METHODS.register("gradcam")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM: channels weighted by the mean of their gradients.

    .. math:: \sum_k \operatorname{mean}_{hw}(g_k)\, A_k

    Selvaraju et al. 2017, arXiv:1610.02391 (there with a final ReLU).

    >>> gradcam(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 1.0]]]))
    tensor([[2., 4.]])
    """
    return sum_weighted(gradients.flatten(2).mean(2), activations)


@METHODS.register("gradcam++")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM++: channels weighted by their positive gradients, each place by how much of the score it explains.

    .. math:: \sum_k \Big(\sum_{hw} \alpha_k \operatorname{relu}(g_k)\Big) A_k, \qquad
        \alpha_k = \frac{g_k^2}{2 g_k^2 + \big(\sum_{hw} A_k\big)\, g_k^3} = \frac{1}{2 + \big(\sum_{hw} A_k\big)\, g_k}

    Chattopadhay et al. 2018, arXiv:1710.11063, equation 19, for layers behind a ReLU: where activations sum up to less
    than zero, a weight can have a pole. The shortened fraction needs no epsilon, so faint gradients count, too.

    >>> gradcam_plus_plus(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.5, 0.0]]]))
    tensor([[0.1250, 0.3750]])
    """
    below = 2 + activations.flatten(2).sum(2, keepdim=True) * gradients.flatten(2)
    alpha = torch.where(below == 0, 0, 1 / below)
    return sum_weighted((alpha * gradients.flatten(2).relu()).sum(2), activations)


@METHODS.register("xgradcam")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""XGrad-CAM: channels weighted by the mean of their gradients where they are active.

    .. math:: \sum_k \frac{\sum_{hw} g_k A_k}{\sum_{hw} A_k}\, A_k

    Fu et al. 2020, arXiv:2008.02312, equation 8. A channel whose activations cancel, or are zero, has no such mean and
    no weight.

    >>> xgradcam(torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]), torch.tensor([[[4.0, 0.0], [1.0, 1.0]]]))
    tensor([[1., 3.]])
    """
    flat = activations.flatten(2)
    total, size = flat.sum(2), flat.abs().sum(2)
    weights = (gradients.flatten(2) * flat).sum(2) / total
    return sum_weighted(torch.where(total.abs() <= 1e-6 * size, 0, weights), activations)


@METHODS.register("hirescam")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""HiResCAM: every place with its own gradient; the sum over all places is what the layer adds to a linear score.

    .. math:: \sum_k g_k A_k

    Draelos and Carin 2020, arXiv:2011.08891.

    >>> hirescam(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0]]]))
    tensor([[ 3., -2.]])
    """
    return (gradients * activations).sum(1)


@METHODS.register("layercam")
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""LayerCAM: every place with its own gradient where that is positive; for early, fine layers, too.

    .. math:: \sum_k \operatorname{relu}(g_k)\, A_k

    Jiang et al. 2021, doi:10.1109/TIP.2021.3089943.

    >>> layercam(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0]]]))
    tensor([[3., 0.]])
    """
    return (gradients.relu() * activations).sum(1)


@METHODS.register("gradcam_elementwise")
def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""HiResCAM without what speaks against: the ReLU comes before the sum, so evidence is never negative.

    .. math:: \sum_k \operatorname{relu}(g_k A_k)

    From pytorch-grad-cam (``GradCAMElementWise``); there is no paper.

    >>> gradcam_elementwise(torch.tensor([[[1.0, 2.0], [1.0, 1.0]]]), torch.tensor([[[3.0, -1.0], [-1.0, 1.0]]]))
    tensor([[3., 1.]])
    """
    return (gradients * activations).relu().sum(1)


@METHODS.register("eigencam")
def eigencam(activations: Tensor, gradients: Tensor) -> Tensor:  # noqa: ARG001  # blind to the class
    r"""Eigen-CAM: what the activations vary most along, whatever the class.

    .. math:: (A - \operatorname{mean}_{hw} A)^\top v_1

    Muhammad and Yeasin 2020, arXiv:2008.00299; centred as in pytorch-grad-cam. See `project_principal` for its sign.

    >>> eigencam(torch.tensor([[[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]]]), torch.zeros(1, 2, 3))
    tensor([[-2., -1.,  3.]])
    """
    return project_principal(activations)


@METHODS.register("eigengradcam")
def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Eigen-CAM of gradient times activation: what the evidence for this class varies most along.

    .. math:: (g A - \operatorname{mean}_{hw} g A)^\top v_1

    From pytorch-grad-cam (``EigenGradCAM``); there is no paper. See `project_principal` for its sign.

    >>> eigengradcam(torch.tensor([[[1.0, 2.0, 6.0]]]), torch.full((1, 1, 3), -1.0))
    tensor([[ 2.,  1., -3.]])
    """
    return project_principal(gradients * activations)


@METHODS.register("cam")
def cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""CAM: channels weighted by the classifier's weights, which behind a mean over the map are the summed gradients.

    .. math:: \sum_k w_k A_k, \qquad w_k = \sum_{hw} g_k

    Zhou et al. 2016, arXiv:1512.04150. Only for heads that pool the whole map; others are refused, once, before the
    first look. It is Grad-CAM times the number of places.

    >>> cam(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.25, 0.25]]]))
    tensor([[0.5000, 1.5000]])
    """
    return sum_weighted(gradients.flatten(2).sum(2), activations)


def project_principal(channels: Tensor) -> Tensor:
    """Where each place lies along the first principal component of the channels.

    A component has no sign of its own: it is turned so that it rises with the sum over the channels. Of equal
    eigenvalues, any component of their space may be found, always the same one for the same numbers.

    Args:
        channels: ``(n, C, *s)``.

    Returns:
        ``(n, *s)``, with mean zero.
    """
    flat = channels.flatten(2)
    centred = flat - flat.mean(2, keepdim=True)
    largest = centred.abs().amax((1, 2), keepdim=True)
    unit = torch.where(largest == 0, 1, largest)
    scaled = centred / unit  # squares of 1e-25 would be zero
    if scaled.shape[1] <= scaled.shape[2]:
        along = _leading(scaled @ scaled.mT).mT @ scaled
    else:
        places = _leading(scaled.mT @ scaled)
        along = (places * torch.linalg.vector_norm(scaled @ places, dim=1, keepdim=True)).mT
    against = (along * scaled.sum(1, keepdim=True)).sum(2, keepdim=True) < 0
    return (torch.where(against, -along, along) * unit).reshape(len(flat), *channels.shape[2:])


def _leading(gram: Tensor) -> Tensor:
    """The eigenvector ``(n, m, 1)`` of the largest eigenvalue; `torch.linalg.eigh` would wait for the device."""
    for _ in range(SQUARINGS):
        largest = gram.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
        gram = gram / torch.where(largest == 0, 1, largest)
        gram = gram @ gram
    # What is left is a multiple of v v': its columns are multiples of v, and this one has the most digits.
    column = gram.diagonal(dim1=1, dim2=2).argmax(1)[:, None, None].expand(-1, gram.shape[1], 1)
    vector = gram.gather(2, column)
    length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return vector / torch.where(length == 0, 1, length)


def sum_weighted(weights: Tensor, activations: Tensor) -> Tensor:
    """The sum of channels ``(n, C, *s)``, each with its weight in ``(n, C)``."""
    return torch.einsum("nc,nc...->n...", weights, activations)
