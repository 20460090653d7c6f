"""CAM equations on a layer's activations and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gradcam.methods.base import METHODS

SQUARINGS = 20
"""Squarings of the power iteration: the matrix to the power of a million separates eigenvalues that differ by 1e-5."""


@METHODS.register("gradcam")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute Grad-CAM: channels weighted by their mean gradient.

    .. math:: \sum_k \operatorname{mean}_{hw}(g_k)\, A_k

    Selvaraju et al. 2017, arXiv:1610.02391 (with a final ReLU in the paper).

    >>> gradcam(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 1.0]]]))
    tensor([[2., 4.]])
    """
    return sum_weighted(gradients.flatten(2).mean(2), activations)


@METHODS.register("gradcam++")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute Grad-CAM++: channels weighted by a weighted sum of their positive gradients.

    .. math:: \sum_k \Big(\sum_{hw} \alpha_k \operatorname{relu}(g_k)\Big) A_k, \qquad
        \alpha_k = \frac{g_k^2}{2 g_k^2 + \big(\sum_{hw} A_k\big)\, g_k^3} = \frac{1}{2 + \big(\sum_{hw} A_k\big)\, g_k}

    Chattopadhay et al. 2018, arXiv:1710.11063, equation 19, for layers after a ReLU: a negative sum of activations can
    give a weight a pole. The reduced fraction needs no epsilon, so very small gradients count as well.

    >>> gradcam_plus_plus(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.5, 0.0]]]))
    tensor([[0.1250, 0.3750]])
    """
    denominator = 2 + activations.flatten(2).sum(2, keepdim=True) * gradients.flatten(2)
    alpha = torch.where(denominator == 0, 0, 1 / denominator)
    return sum_weighted((alpha * gradients.flatten(2).relu()).sum(2), activations)


@METHODS.register("xgradcam")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute XGrad-CAM: channels weighted by the activation-weighted mean of their gradients.

    .. math:: \sum_k \frac{\sum_{hw} g_k A_k}{\sum_{hw} A_k}\, A_k

    Fu et al. 2020, arXiv:2008.02312, equation 8. The mean is undefined for a channel whose activations sum
    up to zero; such a channel gets the weight zero.

    >>> xgradcam(torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]), torch.tensor([[[4.0, 0.0], [1.0, 1.0]]]))
    tensor([[1., 3.]])
    """
    flat = activations.flatten(2)
    total, size = flat.sum(2), flat.abs().sum(2)
    weights = (gradients.flatten(2) * flat).sum(2) / total
    return sum_weighted(torch.where(total.abs() <= 1e-6 * size, 0, weights), activations)


@METHODS.register("hirescam")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute HiResCAM: activations weighted by the gradient at each position.

    .. math:: \sum_k g_k A_k

    Draelos and Carin 2020, arXiv:2011.08891. For a linear score, evidence sums up to the layer's contribution to it.

    >>> hirescam(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0]]]))
    tensor([[ 3., -2.]])
    """
    return (gradients * activations).sum(1)


@METHODS.register("layercam")
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute LayerCAM: activations weighted by the positive gradient at each position.

    .. math:: \sum_k \operatorname{relu}(g_k)\, A_k

    Jiang et al. 2021, doi:10.1109/TIP.2021.3089943. It also suits early layers with a fine grid.

    >>> layercam(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0]]]))
    tensor([[3., 0.]])
    """
    return (gradients.relu() * activations).sum(1)


@METHODS.register("gradcam_elementwise")
def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute the positive terms of HiResCAM: the ReLU precedes the sum over channels, so evidence is non-negative.

    .. math:: \sum_k \operatorname{relu}(g_k A_k)

    From pytorch-grad-cam (``GradCAMElementWise``); there is no paper.

    >>> gradcam_elementwise(torch.tensor([[[1.0, 2.0], [1.0, 1.0]]]), torch.tensor([[[3.0, -1.0], [-1.0, 1.0]]]))
    tensor([[3., 1.]])
    """
    return (gradients * activations).relu().sum(1)


@METHODS.register("eigencam")
def eigencam(activations: Tensor, gradients: Tensor) -> Tensor:  # noqa: ARG001  # independent of the class
    r"""Compute Eigen-CAM: the first principal component of the activations, the same for every class.

    .. math:: (A - \operatorname{mean}_{hw} A)^\top v_1

    Muhammad and Yeasin 2020, arXiv:2008.00299; centered as in pytorch-grad-cam. See `project_principal` for its sign.

    >>> eigencam(torch.tensor([[[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]]]), torch.zeros(1, 2, 3))
    tensor([[-2., -1.,  3.]])
    """
    return project_principal(activations)


@METHODS.register("eigengradcam")
def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute Eigen-Grad-CAM: the first principal component of gradient times activation.

    .. math:: (g A - \operatorname{mean}_{hw} g A)^\top v_1

    From pytorch-grad-cam (``EigenGradCAM``); there is no paper. See `project_principal` for its sign.

    >>> eigengradcam(torch.tensor([[[1.0, 2.0, 6.0]]]), torch.full((1, 1, 3), -1.0))
    tensor([[ 2.,  1., -3.]])
    """
    return project_principal(gradients * activations)


@METHODS.register("cam")
def cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute CAM: channels weighted by the classifier's weights.

    .. math:: \sum_k w_k A_k, \qquad w_k = \sum_{hw} g_k

    Zhou et al. 2016, arXiv:1512.04150. After global average pooling, the summed gradients are the classifier's weights,
    so CAM is Grad-CAM times the number of positions. Other heads raise an error before the first snapshot.

    >>> cam(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.25, 0.25]]]))
    tensor([[0.5000, 1.5000]])
    """
    return sum_weighted(gradients.flatten(2).sum(2), activations)


def project_principal(channels: Tensor) -> Tensor:
    """Project each position on the first principal component of the channels.

    The sign of a component is arbitrary: here, it correlates positively with the sum over the channels. For equal
    eigenvalues, the component is any direction of their eigenspace, and always the same one for the same input.

    Args:
        channels: ``(n, C, *s)``.

    Returns:
        ``(n, *s)``, with mean zero in each image.
    """
    flat = channels.flatten(2)
    centered = flat - flat.mean(2, keepdim=True)
    largest = centered.abs().amax((1, 2), keepdim=True)
    unit = torch.where(largest == 0, 1, largest)
    scaled = centered / unit  # so that squares do not underflow
    if scaled.shape[1] <= scaled.shape[2]:
        projection = _compute_leading_eigenvector(scaled @ scaled.mT).mT @ scaled
    else:
        positions = _compute_leading_eigenvector(scaled.mT @ scaled)
        projection = (positions * torch.linalg.vector_norm(scaled @ positions, dim=1, keepdim=True)).mT
    is_inverted = (projection * scaled.sum(1, keepdim=True)).sum(2, keepdim=True) < 0
    return (torch.where(is_inverted, -projection, projection) * unit).reshape(len(flat), *channels.shape[2:])


def _compute_leading_eigenvector(gram: Tensor) -> Tensor:
    """Compute the eigenvector ``(n, m, 1)`` of the largest eigenvalue, without waiting for the device.

    `torch.linalg.eigh` would wait.
    """
    for _ in range(SQUARINGS):
        largest = gram.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
        gram = gram / torch.where(largest == 0, 1, largest)
        gram = gram @ gram
    # The matrix is now a multiple of v v': its columns are multiples of v, and the largest one is the most precise.
    column = gram.diagonal(dim1=1, dim2=2).argmax(1)[:, None, None].expand(-1, gram.shape[1], 1)
    vector = gram.gather(2, column)
    length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return vector / torch.where(length == 0, 1, length)


def sum_weighted(weights: Tensor, activations: Tensor) -> Tensor:
    """Sum channels ``(n, C, *s)`` with weights ``(n, C)``."""
    return torch.einsum("nc,nc...->n...", weights, activations)
