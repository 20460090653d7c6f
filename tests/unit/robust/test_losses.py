"""Every loss of adversarial training against a plain replica: its value, its gradients, and what it leaves behind."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.cli import LightningCLI
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gradcam import FGSM, PGD, Layer, Normalization, NotExplainableError, robust
from lightning_gradcam.robust import AdversarialLoss, ConsistencyLoss, FastFGSMLoss, PGDLoss, TRADESLoss
from lightning_gradcam.robust.consistency import compute_agreement, compute_evidence
from tests.helpers import robust_processes
from tests.helpers.lit import Body, loader
from tests.helpers.models import TinyResNet, TinyVGG, perturbed, plain_cnn

EPS, STEPS, SIZE, BETA, WEIGHT = 0.06, 3, 0.03, 6.0, 2.0
ATTACK = PGD(EPS, STEPS, SIZE)
NORM = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
LOSSES = {
    "PGDLoss": PGDLoss(ATTACK),
    "FastFGSMLoss": FastFGSMLoss(EPS),
    "TRADESLoss": TRADESLoss(ATTACK, BETA),
    "ConsistencyLoss": ConsistencyLoss(ATTACK, WEIGHT),
}
MODELS = {"plain": (plain_cnn, "5"), "tiny residual": (TinyResNet, "layer2"), "tiny vgg": (TinyVGG, "features.4")}
"""With the layer that ``"auto"`` chooses."""
LAYER = [Layer("5")]


def doubled(make=plain_cnn) -> nn.Module:
    """In float64, so that no sign hangs on rounding, and as it is trained; the same one in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return perturbed(make()).double().train()


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 3, 16, 16, generator=generator, dtype=torch.float64), torch.arange(count) % 5


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    return logits.exp().sum().log() - logits[label]


def divergence(p: Tensor, q: Tensor) -> Tensor:
    p, q = p.exp() / p.exp().sum(), q.exp() / q.exp().sum()
    return (p * (p / q).log()).sum()


def climbed(model, image, start, objective, steps, size) -> Tensor:
    """One image's way up its objective, with ordinary backward passes through a copy."""
    model, place = copy.deepcopy(model).eval(), start.clone()
    for _ in range(steps):
        leaf = place.clone().requires_grad_()
        objective(model(leaf[None])[0]).backward()
        place = place + size * leaf.grad.sign()
        place = torch.minimum(torch.maximum(place, image - EPS), image + EPS).clamp(0, 1).detach()
    return place


def uniform_starts(images: Tensor) -> Tensor:
    return (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)


def plain_attacked(model, images, labels, steps=STEPS, size=SIZE) -> Tensor:
    return torch.stack(
        [
            climbed(model, x, s, lambda z, y=int(y): cross_entropy(z, y), steps, size)
            for x, s, y in zip(images, uniform_starts(images), labels, strict=True)
        ]
    )


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return sum(cross_entropy(z, int(y)) for z, y in zip(logits, labels, strict=True)) / len(labels)


def plain_pgd(model, _layer, images, labels, steps=STEPS, size=SIZE) -> Tensor:
    return mean_cross_entropy(model(plain_attacked(model, images, labels, steps, size)), labels)


def plain_fast(model, _layer, images, labels) -> Tensor:
    return plain_pgd(model, _layer, images, labels, 1, 1.25 * EPS)


def plain_trades(model, _layer, images, labels) -> Tensor:
    starts = (images + 1e-3 * torch.randn_like(images)).clamp(0, 1)
    still = copy.deepcopy(model).eval()(images).detach()
    moved = [
        climbed(model, x, s, lambda z, clean=clean: divergence(clean, z), STEPS, SIZE)
        for x, s, clean in zip(images, starts, still, strict=True)
    ]
    clean, logits = model(images), model(torch.stack(moved))
    away = sum(divergence(p, q) for p, q in zip(clean, logits, strict=True)) / len(images)
    return mean_cross_entropy(clean, labels) + BETA * away


def plain_maps(model, layer, images, labels) -> tuple[list[Tensor], Tensor]:
    """ReLUed Grad-CAM with the graph of all, of a model without in-place operations."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output))
    logits = model(images)
    handle.remove()
    score = sum(z[y] for z, y in zip(logits, labels, strict=True))
    (gradients,) = torch.autograd.grad(score, kept[-1], create_graph=True)
    maps = []
    for activation, gradient in zip(kept[-1], gradients, strict=True):
        maps.append(sum(g.mean() * a for g, a in zip(gradient, activation, strict=True)).relu())
    return maps, logits


def plain_consistency(model, layer, images, labels) -> Tensor:
    moved = plain_attacked(model, images, labels)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    clean_maps, _ = plain_maps(model, layer, images, labels)
    maps, logits = plain_maps(model, layer, moved, labels)
    unlike = []
    for a, b in zip(clean_maps, maps, strict=True):
        if all(m.max() > 0 and m.max() - m.min() >= 1e-3 * m.max() for m in (a, b)):
            unlike.append(1 - (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt())
    assert unlike
    return mean_cross_entropy(logits, labels) + WEIGHT * sum(unlike) / len(unlike)


REPLICAS = {
    "PGDLoss": plain_pgd,
    "FastFGSMLoss": plain_fast,
    "TRADESLoss": plain_trades,
    "ConsistencyLoss": plain_consistency,
}
"""A loss is tested by being entered here."""

every_loss = pytest.mark.parametrize("name", LOSSES)


def test_every_loss_has_a_replica():
    assert (
        set(REPLICAS) == set(LOSSES) == {name for name in robust.__all__ if name.endswith("Loss")} - {"AdversarialLoss"}
    )


@pytest.mark.parametrize("kind", MODELS)
@every_loss
def test_value_gradients_and_buffers_are_those_of_its_replica(name, kind):
    make, layer = MODELS[kind]
    model, (images, labels) = doubled(make), batch()
    theirs = copy.deepcopy(model)
    torch.manual_seed(3)
    loss = LOSSES[name](model, images, labels)
    torch.manual_seed(3)
    expected = REPLICAS[name](theirs, layer, images, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    loss.backward()
    expected.backward()
    for (which, ours), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        assert other.grad is not None, which
        torch.testing.assert_close(ours.grad, other.grad, rtol=1e-6, atol=1e-9, msg=lambda m, w=which: f"{w}: {m}")
    assert any(parameter.grad.abs().max() > 1e-3 for parameter in model.parameters())
    for (which, ours), other in zip(model.named_buffers(), theirs.buffers(), strict=True):
        # BatchNorm has seen the passes that are trained on, and none of the attack's.
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=0, msg=lambda m, w=which: f"{w}: {m}")


class Smooth(nn.Module):
    """A head of its own behind the explained layer, so that the map's gradient depends on all weights."""

    def __init__(self, attention: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Tanh())
        self.attention = attention
        self.head = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5))

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        if self.attention:
            tokens = features.flatten(2).mT[:, None].contiguous()  # else not the fused kind
            mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
            features = features + mixed[:, 0].mT.reshape(features.shape)
        return self.head(features)


def test_the_penaltys_gradient_is_the_slope_of_the_loss():
    torch.manual_seed(0)
    model, (images, labels) = Smooth().double(), batch()
    loss = ConsistencyLoss(ATTACK, weight=50.0, layers="body.1")

    def value() -> Tensor:
        torch.manual_seed(1)
        return loss(model, images, labels)

    value().backward()
    torch.manual_seed(1)
    plain = torch.autograd.grad(PGDLoss(ATTACK)(model, images, labels), list(model.parameters()))
    for parameter, without in zip(model.parameters(), plain, strict=True):
        flat, slope, places = parameter.data.view(-1), parameter.grad.view(-1), torch.randperm(parameter.numel())[:5]
        for place in places.tolist():
            step, before = 1e-6, flat[place].item()
            ends = []
            for side in (step, -step):
                flat[place] = before + side
                ends.append(value().item())
            flat[place] = before
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope[place].item(), rel=1e-4, abs=1e-6)
        # The penalty's part is not nothing, but for the one bias that no map depends on.
        assert torch.allclose(without, parameter.grad, rtol=1e-2) is (parameter is model.head[-1].bias)


def test_attention_has_a_second_derivative():
    model, (images, labels) = Smooth(attention=True), batch()
    ConsistencyLoss(ATTACK, 50.0, layers="body.1")(model, images.float(), labels).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_degenerate_maps_are_left_out():
    clean = torch.tensor([[1.0, 0.0], [-1.0, -1.0], [2.0, 2.0], [1.0, 2.0]], requires_grad=True)
    moved = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [torch.nan, 0.0]])
    similarity = compute_agreement({"a": clean}, {"a": moved})
    assert similarity.item() == pytest.approx(0.6)
    similarity.backward()
    assert clean.grad[1:].eq(0).all()
    assert clean.grad[0].isfinite().all()
    assert compute_agreement({"a": clean[1:]}, {"a": moved[1:]}) == 1
    several = compute_agreement({"a": clean[:1], "b": clean[:1]}, {"a": moved[:1], "b": clean[:1]})
    assert several.item() == pytest.approx(0.8)


@every_loss
@pytest.mark.parametrize("train", [True, False])
def test_the_attack_leaves_the_model_and_the_random_state_as_found(name, train):
    model, (images, labels) = perturbed(plain_cnn()).train(train), batch()
    model[1].eval()  # a frozen BatchNorm
    images = images.float()
    model(images).sum().backward()
    flags, grads = [m.training for m in model.modules()], [p.grad for p in model.parameters()]
    values, wants = [p.grad.clone() for p in model.parameters()], [p.requires_grad for p in model.parameters()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(2)
    LOSSES[name](model, images, labels)
    after = torch.rand(3)
    torch.manual_seed(2)
    torch.empty_like(images).uniform_() if name != "TRADESLoss" else torch.randn_like(images)
    assert torch.equal(after, torch.rand(3))
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    assert all(torch.equal(p.grad, v) for p, v in zip(model.parameters(), values, strict=True))
    assert [p.requires_grad for p in model.parameters()] == wants
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@every_loss
def test_starts_are_fresh_in_every_step_and_differ_between_images(name):
    model, (images, labels) = doubled().eval(), batch()  # else BatchNorm changes from step to step
    images, labels = images[:1].repeat(4, 1, 1, 1), labels[:1].repeat(4)
    torch.manual_seed(0)
    first, second = (LOSSES[name].step(model, images, labels).images for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(LOSSES[name].step(doubled().eval(), images, labels).images, first)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


@every_loss
def test_a_step_shows_what_it_did(name):
    model, (images, labels) = doubled(), batch()
    step = LOSSES[name].step(model, images, labels)
    assert 0 < (step.images - images).abs().max() <= EPS + 1e-12
    assert step.images.min() >= 0
    assert step.images.max() <= 1
    assert step.logits.shape == (4, 5)
    assert (step.clean_logits is None) == (name in ("PGDLoss", "FastFGSMLoss"))
    assert (step.similarity is None) == (name != "ConsistencyLoss")
    assert not step.images.requires_grad


class Normalising(nn.Module):
    """The same model for pixels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(NORM.normalize(pixels))


@every_loss
def test_eps_means_pixels_where_images_are_normalised(name):
    model, (pixels, labels) = doubled(), batch()
    loss = LOSSES[name]
    torch.manual_seed(0)
    expected = loss(Normalising(copy.deepcopy(model)), pixels, labels)
    torch.manual_seed(0)
    normalised = type(loss)(**{**fields_of(loss), "pixels": NORM})
    torch.testing.assert_close(normalised(model, NORM.normalize(pixels), labels), expected, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"images in \[0, 1\].*pixels=Normalization"):
        loss(model, NORM.normalize(pixels), labels)


def fields_of(loss) -> dict:
    return {name: value for name, value in vars(loss).items() if not name.startswith("_")}


@every_loss
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_its_value_can_be_watched_in_validation(name, mode):
    model, (images, labels) = doubled().eval(), batch()
    torch.manual_seed(0)
    expected = LOSSES[name](model, images, labels)
    torch.manual_seed(0)
    with mode():
        found = LOSSES[name](model, images.clone(), labels.clone())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_a_divergence_has_a_gradient_where_probabilities_round_to_zero():
    clean, logits = torch.tensor([[0.0, 300.0]]).requires_grad_(), torch.tensor([[300.0, 0.0]]).requires_grad_()
    robust.losses.kl_divergence(clean, logits).sum().backward()
    assert clean.grad.isfinite().all()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() > 0


@every_loss
def test_models_in_half_precision_have_losses_in_single(name):
    model, (images, labels) = perturbed(plain_cnn()).bfloat16(), batch()
    loss = LOSSES[name](model, images.bfloat16(), labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters())
    evidence = compute_evidence(model, images.bfloat16(), labels, LAYER)[0]["5"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = compute_evidence(model.float(), images.float(), labels, LAYER)[0]["5"]
    assert evidence.dtype == mixed.dtype == torch.float32


@every_loss
def test_under_autocast(name):
    torch.manual_seed(0)
    model, (images, labels) = perturbed(plain_cnn()).train(), batch()
    torch.manual_seed(1)
    expected = LOSSES[name](copy.deepcopy(model), images.float(), labels)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](model, images.float(), labels)
        step = LOSSES[name].step(model, images.float(), labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert step.logits.dtype == torch.bfloat16  # else autocast was not at work
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in model.parameters())
    assert loss.item() == pytest.approx(expected.item(), rel=0.1)


@every_loss
@pytest.mark.parametrize("backbone", ["frozen", "without grad"])
def test_a_frozen_body(name, backbone):
    class Tuned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain_cnn()
            self.net[:7].requires_grad_(False)

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images) if backbone == "frozen" else self.head(images)

        def head(self, images: Tensor) -> Tensor:
            with torch.set_grad_enabled(images.requires_grad):  # an attack needs to see through it
                features = self.net[:7](images)
            return self.net[7:](features)

    model, (images, labels) = Tuned(), batch()
    LOSSES[name](model, images.float(), labels).backward()
    grads = {key: p.grad for key, p in model.named_parameters()}
    assert [key for key, grad in grads.items() if grad is not None] == ["net.8.weight", "net.8.bias"]
    assert grads["net.8.weight"].isfinite().all()
    assert not model.net[0].weight.requires_grad


@every_loss
def test_compiled_models_give_the_same(name):
    model, (images, labels) = doubled(), batch()
    torch.manual_seed(0)
    expected = LOSSES[name](copy.deepcopy(model), images, labels)
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    for _ in range(2):
        compiled.load_state_dict({f"_orig_mod.{key}": value for key, value in model.state_dict().items()})
        torch.manual_seed(0)
        loss = LOSSES[name](compiled, images, labels)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
        loss.backward()


def test_layers_are_decided_once_for_each_model(monkeypatch):
    from lightning_gradcam.robust import consistency

    asked = []
    prepare = consistency.prepare
    monkeypatch.setattr(consistency, "prepare", lambda *a, **k: (asked.append(len(a[1])), prepare(*a, **k))[1])
    loss, (images, labels) = ConsistencyLoss(ATTACK), batch()
    one, other = doubled(), doubled(TinyVGG)
    for model in (one, other, one):
        loss(model, images, labels)
    assert asked == [2, 2]
    assert [layer.name for layer in loss.locations(one, images, labels)] == ["5"]
    both = ConsistencyLoss(ATTACK, layers=["2", "5"])
    assert 0 < both.step(one, images, labels).similarity < 1
    with pytest.raises(ValueError, match="Did you mean"):
        ConsistencyLoss(ATTACK, layers="featurs.3")(other, images, labels)
    with pytest.raises(NotExplainableError, match=r"layer|spatial"):
        ConsistencyLoss(ATTACK)(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).double(), images, labels)


@every_loss
def test_copies_and_pickles(name):
    loss, (images, labels) = LOSSES[name], batch()
    loss(doubled(), images, labels)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin == loss
        assert repr(twin) == repr(loss)
        twin(doubled(), images, labels)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: PGDLoss(FGSM(EPS)), TypeError, r"`attack` to be a PGD.*FGSM is `PGD\("),
        (lambda: TRADESLoss("pgd"), TypeError, "`attack` to be a PGD"),
        (lambda: ConsistencyLoss(None), TypeError, "`attack` to be a PGD"),
        (lambda: TRADESLoss(PGD(random_start=False)), ValueError, "random_start=True"),
        (lambda: TRADESLoss(PGD(toward=1)), ValueError, "untargeted"),
        (lambda: TRADESLoss(beta=-1), ValueError, "`beta` of at least 0, but got -1"),
        (lambda: ConsistencyLoss(weight=float("nan")), ValueError, "`weight` of at least 0, but got nan"),
        (lambda: FastFGSMLoss(-0.1), ValueError, "`eps` of at least 0"),
        (lambda: FastFGSMLoss(0.1, -1), ValueError, "`step_size` of at least 0"),
    ],
)
def test_wrong_arguments_are_named(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_what_is_left_open_is_what_is_usual():
    model, (images, labels) = perturbed(plain_cnn()), batch()
    for loss in (PGDLoss(), FastFGSMLoss(), TRADESLoss(), ConsistencyLoss()):
        assert (loss.step(model, images.float(), labels).images - images).abs().max() == pytest.approx(
            8 / 255, rel=1e-3
        )


@pytest.mark.parametrize("keep", ["last", "best"])
def test_restarts_and_targets_are_the_attacks(keep):
    model, (images, labels) = doubled().eval(), batch()

    def ends(**options) -> Tensor:
        torch.manual_seed(0)
        moved = PGDLoss(PGD(0.3, 2, 0.2, keep=keep, **options)).explain_attacked(model, images, labels)
        with torch.no_grad():
            return F.cross_entropy(model(moved), labels, reduction="none")

    assert (ends(restarts=4) >= ends() - 1e-12).all()
    assert (ends(restarts=4) > ends() + 1e-9).any()
    towards = PGDLoss(PGD(0.3, 5, toward=3)).explain_attacked(model, images, labels)
    with torch.no_grad():
        assert (model(towards)[:, 3] > model(images)[:, 3]).all()


class Robust(Body, LightningModule):
    """`Lit` with a loss of adversarial training: the one line to copy."""

    def __init__(self, adversarial) -> None:
        super().__init__()
        self.adversarial = adversarial

    def training_step(self, batch, batch_idx):
        return self.adversarial(self, *batch)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@every_loss
def test_in_a_run(name, precision, tmp_path):
    lit_norm = Normalization((0.4,) * 3, (0.25,) * 3)
    ends = []
    for _ in range(2):
        seed_everything(0)
        module = Robust(type(LOSSES[name])(**{**fields_of(LOSSES[name]), "pixels": lit_norm}))
        trainer = Trainer(
            default_root_dir=tmp_path, max_epochs=2, accelerator="cpu", precision=precision, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
        )  # fmt: skip
        before = copy.deepcopy(module.state_dict())
        trainer.fit(module, loader(24), loader(12, seed=1))
        assert torch.isfinite(trainer.callback_metrics["val_loss"])
        ends.append(module.state_dict())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    assert all(not torch.equal(value, before[key]) for key, value in ends[0].items())


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = Path(robust_processes.__file__)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"TORCHELASTIC_RUN_ID": "tests", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    started = []
    for rank in "01":
        environment = {**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}
        with (tmp_path / f"{rank}.log").open("w") as log:
            started.append(
                subprocess.Popen([sys.executable, script, tmp_path], env=environment, stdout=log, stderr=log)
            )
    try:
        codes = [process.wait(180) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0, 0], (tmp_path / "0.log").read_text()[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in "01")
    for name, loss in robust_processes.LOSSES.items():
        alone = robust_processes.weights_after(loss, None)
        before = robust_processes.weights_after(lambda model, images, _: 0 * model(images).sum(), None)
        for key, value in alone.items():
            assert torch.equal(first[name][key], second[name][key])
            assert not torch.equal(value, before[key])
            if name != "TRADESLoss":  # whose starts are random, and other ones in other processes
                torch.testing.assert_close(first[name][key], value, rtol=1e-3, atol=1e-5)


class Configured(Robust):
    """As LightningCLI builds it."""

    def __init__(self, adversarial: AdversarialLoss) -> None:
        super().__init__(adversarial)


@every_loss
def test_from_the_command_line(name, monkeypatch, tmp_path):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's affair
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.chdir(tmp_path)
    pixels = {"mean": [0.4, 0.4, 0.4], "std": [0.25, 0.25, 0.25]}
    attack = {} if name == "FastFGSMLoss" else {"attack": {"eps": EPS, "steps": STEPS, "step_size": SIZE}}
    extra = {"FastFGSMLoss": {"eps": EPS}, "TRADESLoss": {"beta": BETA}, "ConsistencyLoss": {"weight": WEIGHT}}
    chosen = {"pixels": pixels, **attack, **extra.get(name, {})}
    written = {"class_path": f"lightning_gradcam.robust.{name}", "init_args": chosen}
    Path("c.yaml").write_text(yaml.safe_dump({"model": {"adversarial": written}}))
    cli = LightningCLI(Configured, run=False, args=["--config=c.yaml", "--trainer.logger=false"])
    expected = type(LOSSES[name])(**{**fields_of(LOSSES[name]), "pixels": Normalization(**pixels)})
    assert cli.model.adversarial == expected
