"""Every registered attack against a plain replica, its budget and its box, in pixels; the model is left as found."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import Noisy, examples, perturbed, plain_cnn
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import NotExplainableError, Pixels, Probe
from lightning_gradcam.attacks import ATTACKS, FGSM, PixelSpace, attack_probe

NORM = Pixels((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
EPS = 8 / 255


def plain_fgsm(model: nn.Module, pixels: Tensor, labels: Tensor, eps: float = EPS) -> Tensor:
    """One image at a time, with an ordinary backward pass."""
    attacked = []
    for image, label in zip(pixels, labels, strict=True):
        leaf = image[None].clone().requires_grad_()
        F.cross_entropy(copy.deepcopy(model).eval()(leaf), label[None]).backward()
        attacked.append((image + eps * leaf.grad[0].sign()).clamp(0, 1).detach())
    return torch.stack(attacked)


REPLICAS = {"fgsm": plain_fgsm}
"""An attack is tested by being entered here."""


class Normalising(nn.Module):
    """The same model for pixels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels):
        mean, std = (torch.tensor(v)[None, :, None, None] for v in (NORM.mean, NORM.std))
        return self.model((pixels - mean) / std)


def test_every_attack_has_a_replica():
    assert set(REPLICAS) == set(ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_equals_its_replica_in_pixels_also_where_images_are_normalised(name, context):
    model, outside = perturbed(plain_cnn()), torch.rand(3, 3, 12, 12)
    expected = REPLICAS[name](Normalising(model), outside, torch.tensor([0, 4, 2]))
    with context():
        pixels, labels = outside.clone(), torch.tensor([0, 4, 2])
        normalised = attack_probe(model, Probe(NORM.normalise(pixels), labels=labels, pixels=NORM), name)
        in_pixels = attack_probe(Normalising(model), Probe(pixels, labels=labels), name)
    for attacked in (NORM.restore(normalised.images), in_pixels.images):
        # Where a gradient is zero but for rounding, its sign may differ.
        assert ((attacked - expected).abs() < 1e-5).float().mean() > 0.999
    assert not normalised.images.requires_grad
    assert torch.equal(normalised.labels, labels)
    assert normalised.pixels == NORM
    with torch.no_grad():
        before, after = (F.cross_entropy(Normalising(model)(p), labels) for p in (outside, in_pixels.images))
    assert after > before


MODEL = perturbed(plain_cnn())


@examples(40)
@given(st.floats(0, 1), st.integers(0, 1000), st.booleans())
def test_budget_and_box(eps, seed, normalised):
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    probe = Probe(NORM.normalise(pixels) if normalised else pixels, labels=torch.tensor([seed % 5, 1]),
                  pixels=NORM if normalised else None)  # fmt: skip
    attacked = attack_probe(MODEL, probe, FGSM(eps)).images
    attacked = NORM.restore(attacked) if normalised else attacked
    assert (attacked - pixels).abs().max() <= eps + 1e-5
    assert attacked.min() >= -1e-5
    assert attacked.max() <= 1 + 1e-5
    inside = (pixels >= eps) & (pixels <= 1 - eps)
    assert ((attacked - pixels).abs()[inside] >= eps - 1e-5).float().mean() > 0.9 or not inside.any()


@pytest.mark.parametrize("name", ATTACKS)
def test_the_model_is_left_as_found_and_attacked_in_evaluation(name):
    model = perturbed(plain_cnn()).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    kept, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    probe = Probe(torch.rand(3, 3, 12, 12), labels=torch.tensor([0, 4, 2]))
    images = probe.images.clone()
    random = torch.get_rng_state()
    attacked = attack_probe(model, probe, name)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(probe.images, images)
    assert torch.equal(attacked.images, attack_probe(copy.deepcopy(model).eval(), probe, name).images)
    with pytest.raises(ValueError, match="not today"):
        attack_probe(Noisy(fails=True), probe, name)


def test_an_attack_of_the_users_own_sees_pixels_and_the_rows_that_forward_needs():
    model, seen = perturbed(plain_cnn()), {}

    def forward(model, probe):
        return {"logits": model(probe.images) * probe.extras["weight"][:, None]}

    def darken(pixel_model, images, labels):
        seen.update(model=pixel_model, images=images, logits=pixel_model(images), labels=labels)
        return images / 2

    pixels, weight = torch.rand(2, 3, 12, 12), torch.tensor([1.0, 3.0])
    probe = Probe(NORM.normalise(pixels), labels=torch.tensor([0, 1]), pixels=NORM, extras={"weight": weight})
    attacked = attack_probe(model, probe, darken, forward=forward)
    torch.testing.assert_close(seen["images"], pixels)
    torch.testing.assert_close(seen["logits"], model(probe.images).detach() * weight[:, None])
    torch.testing.assert_close(attacked.images, NORM.normalise(pixels / 2))
    assert isinstance(seen["model"], PixelSpace)


def test_what_is_wrong_is_said():
    model, pixels, labels = plain_cnn(), torch.rand(2, 3, 12, 12), torch.tensor([0, 1])
    for error, message, probe, attack in [
        (ValueError, r"labels of shape \(N,\)", Probe(pixels), "fgsm"),
        (ValueError, r"labels of shape \(N,\)", Probe(pixels, labels=torch.zeros(2, 12, 12).long()), "fgsm"),
        (
            ValueError,
            r"in \[0, 1\], but got .*pixels=Pixels\(mean, std\)",
            Probe(pixels * 4 - 2, labels=labels),
            "fgsm",
        ),
        (ValueError, r"in \[0, 1\]", Probe(pixels * 9, labels=labels, pixels=NORM), "fgsm"),
        (ValueError, r"'fgms'\. Did you mean 'fgsm'", Probe(pixels, labels=labels), "fgms"),
    ]:
        with pytest.raises(error, match=message):
            attack_probe(model, probe, attack)
    with pytest.raises(NotExplainableError, match="Expected logits"):
        attack_probe(model[:6], Probe(pixels, labels=labels), "fgsm")
