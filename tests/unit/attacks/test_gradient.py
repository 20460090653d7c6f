"""Every registered attack against a plain replica: budget, pixel range, and an unchanged model."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torchattacks
from hypothesis import given, strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import Normalization, NotExplainableError, Probe
from lightning_gradcam.attacks import ATTACKS, FGSM, PGD, Ball, PixelSpace, attack_probe
from lightning_gradcam.attacks.ascent import make_loss
from lightning_gradcam.attacks.gradient import DEFAULT_BUDGETS
from tests.helpers.models import Noisy, TinyResNet, TinyVGG, examples, perturbed, plain_cnn

NORM = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
EPS = 8 / 255
NORMS = ("linf", "l2")


def plain_fgsm(model: nn.Module, pixels: Tensor, labels: Tensor, eps: float = EPS) -> Tensor:
    """One image at a time, with an ordinary backward pass."""
    attacked = []
    for image, label in zip(pixels, labels, strict=True):
        leaf = image[None].clone().requires_grad_()
        F.cross_entropy(copy.deepcopy(model).eval()(leaf), label[None]).backward()
        attacked.append((image + eps * leaf.grad[0].sign()).clamp(0, 1).detach())
    return torch.stack(attacked)


def plain_pgd(model: nn.Module, pixels: Tensor, labels: Tensor, eps: float = EPS) -> Tensor:
    """One image at a time, ten steps of a quarter of the budget, with ordinary backward passes."""
    shift = torch.empty(1, *pixels.shape[1:]).uniform_(-eps, eps, generator=torch.Generator().manual_seed(0))[0]
    attacked = []
    for image, label in zip(pixels, labels, strict=True):
        place = (image + shift).clamp(0, 1)
        for _ in range(10):
            leaf = place[None].clone().requires_grad_()
            F.cross_entropy(copy.deepcopy(model).eval()(leaf), label[None]).backward()
            place = place + eps / 4 * leaf.grad[0].sign()
            place = torch.minimum(torch.maximum(place, image - eps), image + eps).clamp(0, 1).detach()
        attacked.append(place)
    return torch.stack(attacked)


REPLICAS = {"fgsm": plain_fgsm, "pgd": plain_pgd}
"""An attack is tested by being entered here."""


class NormalizedModel(nn.Module):
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
def test_attack_equals_replica_also_for_normalized_images(name, context):
    model, outside = perturbed(plain_cnn()), torch.rand(3, 3, 12, 12)
    expected = REPLICAS[name](NormalizedModel(model), outside, torch.tensor([0, 4, 2]))
    with context():
        pixels, labels = outside.clone(), torch.tensor([0, 4, 2])
        normalized = attack_probe(model, Probe(NORM.normalize(pixels), labels=labels, pixels=NORM), name)
        in_pixels = attack_probe(NormalizedModel(model), Probe(pixels, labels=labels), name)
    for attacked in (NORM.restore(normalized.images), in_pixels.images):
        # Where a gradient is zero but for rounding, its sign may differ.
        assert ((attacked - expected).abs() < 1e-5).float().mean() > 0.995
    assert not normalized.images.requires_grad
    assert torch.equal(normalized.labels, labels)
    assert normalized.pixels == NORM
    with torch.no_grad():
        before, after = (F.cross_entropy(NormalizedModel(model)(p), labels) for p in (outside, in_pixels.images))
    assert after > before


MODEL = perturbed(plain_cnn())
attacks = st.one_of(
    st.builds(FGSM, eps=st.floats(0, 1), toward=st.sampled_from([None, 3, "next", "least_likely"])),
    st.builds(
        PGD, eps=st.floats(0, 1), steps=st.integers(1, 4), step_size=st.none() | st.floats(0.01, 2),
        norm=st.sampled_from(NORMS), restarts=st.integers(1, 2), keep=st.sampled_from(["last", "best"]),
        toward=st.sampled_from([None, 3, "next", "least_likely"]), seed=st.integers(0, 9),
    ),
)  # fmt: skip


@examples(60)
@given(attacks, st.integers(0, 1000), st.booleans())
def test_attack_stays_in_budget_and_pixel_range(attack, seed, normalized):
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    labels = torch.tensor([seed % 5, 1])
    attacked = attack(MODEL, pixels, labels)
    change = (attacked - pixels).double()
    l2 = getattr(attack, "norm", "linf") == "l2"
    assert (change.flatten(1).norm(dim=1) if l2 else change.abs()).max() <= attack.eps * (1 + 1e-6) + 1e-7
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    if normalized:
        probe = Probe(NORM.normalize(pixels), labels=labels, pixels=NORM)
        torch.testing.assert_close(
            NORM.restore(attack_probe(MODEL, probe, lambda *_: attacked).images), attacked, atol=1e-6, rtol=0
        )


def test_fgsm_uses_full_budget_within_pixel_range():
    pixels, eps = torch.rand(4, 3, 8, 8), 0.1
    change = FGSM(eps)(MODEL, pixels, torch.tensor([0, 1, 2, 3])) - pixels
    inside = (pixels >= eps) & (pixels <= 1 - eps)
    assert ((change.abs()[inside] - eps).abs() < 1e-6).float().mean() > 0.95


def same_start(monkeypatch, shift):
    """torchattacks draws what ours has drawn."""
    monkeypatch.setattr(Tensor, "uniform_", lambda self, *_, **__: self.copy_(shift.expand_as(self)))


ARCHITECTURES = {"plain": plain_cnn, "tiny residual": TinyResNet, "tiny vgg": TinyVGG}


@pytest.mark.parametrize("toward", [None, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attack_equals_torchattacks(name, toward, monkeypatch):
    model = perturbed(ARCHITECTURES[name]())
    images, labels = torch.rand(5, 3, 16, 16), torch.tensor([0, 1, 2, 4, 1])
    aims = labels if toward is None else torch.full_like(labels, toward)

    def theirs(attack, *args, **options):
        peer = attack(model, *args, **options)
        if toward is not None:
            peer.set_mode_targeted_by_label(quiet=True)
        return peer(images, aims)

    assert torch.equal(FGSM(EPS, toward)(model, images, labels), theirs(torchattacks.FGSM, eps=EPS))
    ours = {
        norm: PGD(eps, 7, eps / 3, norm=norm, random_start=start, toward=toward)
        for (norm, eps), start in zip((("linf", EPS), ("l2", 0.5)), (True, False), strict=True)
    }
    found = {norm: attack(model, images, labels) for norm, attack in ours.items()}
    straight = PGD(EPS, 7, EPS / 3, random_start=False, toward=toward)(model, images, labels)
    assert torch.equal(straight, theirs(torchattacks.PGD, eps=EPS, alpha=EPS / 3, steps=7, random_start=False))
    expected = theirs(torchattacks.PGDL2, eps=0.5, alpha=0.5 / 3, steps=7, random_start=False)
    assert (found["l2"] - expected).abs().max() < 1e-6
    assert not torch.equal(found["l2"], images)

    shift = Ball(EPS).sample_shifts(images[:1], torch.Generator().manual_seed(0))
    with monkeypatch.context() as patch:
        same_start(patch, shift)
        assert torch.equal(found["linf"], theirs(torchattacks.PGD, eps=EPS, alpha=EPS / 3, steps=7))

    begun = PGD(0.5, 7, 0.5 / 3, norm="l2", toward=toward)(model, images, labels)
    shift = Ball(0.5, "l2").sample_shifts(images[:1], torch.Generator().manual_seed(0))
    with monkeypatch.context() as patch:  # theirs is a direction times a length over its own
        patch.setattr(Tensor, "normal_", lambda self, *_, **__: self.copy_(shift.expand_as(self)))
        patch.setattr(Tensor, "uniform_", lambda self, *_, **__: self.fill_(float(shift.norm()) / 0.5))
        expected = theirs(torchattacks.PGDL2, eps=0.5, alpha=0.5 / 3, steps=7)
    assert (begun - expected).abs().max() < 1e-6
    assert (begun - found["l2"]).abs().max() > 1e-3  # the start counts


def test_attack_through_normalization_equals_attack_on_pixels():
    model, pixels, labels = perturbed(plain_cnn()), torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 4])
    for attack in (FGSM(EPS), PGD(EPS, 5), PGD(0.5, 5, norm="l2"), PGD(EPS, 5, restarts=2, keep="best")):
        expected = attack(NormalizedModel(model), pixels, labels)
        probe = Probe(NORM.normalize(pixels), labels=labels, pixels=NORM)
        found = NORM.restore(attack_probe(model, probe, attack).images)
        assert (found - expected).abs().max() < 1e-6
        assert torch.equal(attack(PixelSpace(model, NORM), pixels, labels), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("toward", [None, "least_likely", "next", 2])
def test_more_steps_or_restarts_are_never_worse(norm, toward):
    model, images, labels = perturbed(TinyResNet()), torch.rand(6, 3, 16, 16), torch.arange(6) % 5
    loss = make_loss(model, images, labels, toward)

    def reached(**options):
        attack = PGD(eps=0.3, step_size=0.2, norm=norm, toward=toward, **options)
        with torch.no_grad():
            return loss(attack(model, images, labels)).detach()

    steps = [reached(steps=steps, keep="best") for steps in (1, 2, 5, 9)]
    for keep in ("best", "last"):
        steps_kept = [reached(steps=5, restarts=restarts, keep=keep) for restarts in (1, 2, 4)]
        for fewer, more in itertools.pairwise(steps_kept):
            assert (more >= fewer - 1e-6).all()
        assert (steps_kept[-1] > steps_kept[0] + 1e-6).any() or norm == "l2"
    for fewer, more in itertools.pairwise(steps):
        assert (more >= fewer - 1e-6).all()
    last = reached(steps=9)
    assert (steps[-1] >= last - 1e-6).all()
    assert (steps[-1] > last + 1e-6).any() or norm == "l2"  # else the choice would never matter


def test_targeted_attack_raises_probability_of_target():
    model, images = perturbed(plain_cnn()), torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        clean = model(images).softmax(1)
    labels = clean.argmax(1)
    aims = {3: torch.full((4,), 3), "next": (labels + 1) % 5, "least_likely": clean.argmin(1)}
    for attack, (toward, aim) in itertools.product((FGSM, PGD), aims.items()):
        with torch.no_grad():
            after = model(attack(0.1, toward=toward)(model, images, labels)).softmax(1)
        assert (after.gather(1, aim[:, None]) > clean.gather(1, aim[:, None])).all()


@pytest.mark.parametrize("norm", NORMS)
def test_attack_is_independent_of_batch_and_random_state(norm):
    model, images, labels = perturbed(plain_cnn()), torch.rand(5, 3, 16, 16), torch.tensor([0, 1, 2, 4, 1])
    attack = PGD(0.2, 4, norm=norm, restarts=2)
    whole = attack(model, images, labels)
    torch.rand(3)
    assert torch.equal(attack(model, images, labels), whole)
    for i in range(5):
        single = attack(model, images[i : i + 1], labels[i : i + 1])
        assert ((single - whole[i : i + 1]).abs() < 1e-5).float().mean() > 0.99
    other = PGD(0.2, 4, norm=norm, restarts=2, seed=1)(model, images, labels)
    assert not torch.equal(other, whole)


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_ball(norm):
    ball = Ball(0.25, norm)
    shifts = ball.sample_shifts(torch.empty(400, 1, 3, 3))
    length = shifts.flatten(1).norm(dim=1) if norm == "l2" else shifts.abs()
    assert length.max() <= 0.25 + 1e-6
    assert (length / 0.25).mean().sub(0.5).abs() < 0.05
    assert shifts.mean().abs() < 0.01


def test_defaults_depend_on_image_size():
    cases = [((1, 28, 28), 0), ((3, 28, 28), 1), ((1, 64, 64), 1), ((3, 32, 32), 1), ((3, 224, 224), 2)]
    for shape, kind in cases:
        images = torch.rand(2, *shape)
        for norm in NORMS:
            eps = DEFAULT_BUDGETS[kind][1][norm]
            assert PGD(norm=norm, steps=5).with_defaults(images) == PGD(eps, 5, 2.5 * eps / 5, norm=norm)
        assert FGSM().with_defaults(images) == FGSM(DEFAULT_BUDGETS[kind][1]["linf"])
        assert FGSM(0.5).with_defaults(images) == FGSM(0.5)
    pixels, labels = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    model = perturbed(plain_cnn())
    assert torch.equal(FGSM()(model, pixels, labels), FGSM(8 / 255)(model, pixels, labels))
    assert torch.equal(PGD()(model, pixels, labels), PGD(8 / 255, 10, 2 / 255)(model, pixels, labels))


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, 3), PGD(0.1, 3, norm="l2", keep="best", restarts=2)])
def test_direct_call_restores_module_in_every_grad_mode(attack):
    model = perturbed(plain_cnn()).train()
    model[2].eval()
    model[0].weight.requires_grad_(False)
    kept, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    wants = [p.requires_grad for p in model.parameters()]
    images, labels, random = torch.rand(3, 3, 16, 16), torch.tensor([0, 4, 2]), torch.get_rng_state()
    expected = attack(copy.deepcopy(model).eval(), images, labels)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            found = attack(model, images.clone(), labels.clone())
        assert torch.equal(found, expected)
        assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == wants
    assert all(p.grad is None for p in model.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(attack(model, images, labels), expected)
    with torch.autocast("cpu", torch.bfloat16):
        halved = attack(model, images, labels)
    assert halved.dtype == torch.float32
    assert 0 < (halved - images).abs().max() <= 0.1 + 1e-6
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(attack(compiled, images, labels), expected)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda: FGSM(-1), "`eps` of at least 0, but got -1"),
        (lambda: FGSM(toward="cat"), "'least_likely' or 'next', but got 'cat'"),
        (lambda: PGD(steps=0), "`steps` of at least 1, but got 0"),
        (lambda: PGD(restarts=0), "`restarts` of at least 1, but got 0"),
        (lambda: PGD(step_size=-1), "`step_size` of at least 0, but got -1"),
        (lambda: PGD(norm="l1"), "'linf' or 'l2', but got 'l1'"),
        (lambda: PGD(keep="first"), "'last' or 'best', but got 'first'"),
        (lambda: PGD(restarts=2, random_start=False), "`random_start=True` for 2 restarts"),
        (lambda: PGD()(MODEL, torch.rand(2, 3, 8, 8) * 3, torch.tensor([0, 1])), r"in \[0, 1\], but got .* to 3\."),
        (lambda: FGSM()(MODEL, torch.full((2, 3, 8, 8), torch.nan), torch.tensor([0, 1])), "but got nan to nan"),
    ],
)
def test_wrong_argument_is_named_in_error(attack, message):
    with pytest.raises(ValueError, match=message):
        attack()


def test_attack_of_torchattacks_works_as_callable():
    model, probe = perturbed(plain_cnn()), Probe(torch.rand(3, 3, 16, 16), labels=torch.tensor([0, 4, 2]))

    def theirs(model, images, labels):
        return torchattacks.PGD(model, eps=EPS, random_start=False)(images, labels)

    found = attack_probe(model, probe, theirs)
    expected = attack_probe(model, probe, PGD(EPS, 10, 2 / 255, random_start=False))
    assert torch.equal(found.images, expected.images)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_probe_restores_model_and_attacks_in_eval_mode(name):
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


def test_custom_attack_receives_pixels_and_extras():
    model, seen = perturbed(plain_cnn()), {}

    def forward(model, probe):
        return {"logits": model(probe.images) * probe.extras["weight"][:, None]}

    def darken(pixel_model, images, labels):
        seen.update(model=pixel_model, images=images, logits=pixel_model(images), labels=labels)
        return images / 2

    pixels, weight = torch.rand(2, 3, 12, 12), torch.tensor([1.0, 3.0])
    probe = Probe(NORM.normalize(pixels), labels=torch.tensor([0, 1]), pixels=NORM, extras={"weight": weight})
    attacked = attack_probe(model, probe, darken, forward=forward)
    torch.testing.assert_close(seen["images"], pixels)
    torch.testing.assert_close(seen["logits"], model(probe.images).detach() * weight[:, None])
    torch.testing.assert_close(attacked.images, NORM.normalize(pixels / 2))
    assert isinstance(seen["model"], PixelSpace)


def test_wrong_probe_or_attack_raises_error():
    model, pixels, labels = plain_cnn(), torch.rand(2, 3, 12, 12), torch.tensor([0, 1])
    for error, message, probe, attack in [
        (ValueError, r"labels of shape \(N,\)", Probe(pixels), "fgsm"),
        (ValueError, r"labels of shape \(N,\)", Probe(pixels, labels=torch.zeros(2, 12, 12).long()), "fgsm"),
        (
            ValueError,
            r"in \[0, 1\], but got .*pixels=Normalization\(mean, std\)",
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
