"""Attacks in each snapshot: numbers, chunks and processes, errors, resumed runs."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy

from lightning_gradcam import FGSM, PGD, Probe, attack_probe, explain
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.adversarial import SIMILARITIES
from lightning_gradcam.monitor.display import DisplayConfig
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.monitor.monitor import ProbeMonitor
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.stability.drift import FIRST
from lightning_gradcam.targets import TARGETS
from tests.helpers.attacked_monitor import bars, undecided, watched
from tests.helpers.lit import BODIES, bodies
from tests.helpers.map_replicas import expected
from tests.helpers.memory import LimitedMemory
from tests.helpers.models import TinyResNet, assert_close, perturbed

NUMBERS = {"adv_similarity": "spearman", "adv_topk": "topk", "adv_ssim": "ssim"}


def test_attack_numbers_have_placeholders():
    assert set(NUMBERS) == set(SIMILARITIES)
    assert {*NUMBERS, *(f"{name}_held" for name in NUMBERS), "adv_accuracy", "adv_degenerate"} <= set(FIRST)


@pytest.mark.parametrize("attack", [FGSM(0.01), PGD(0.01, 3), lambda model, images, labels: 1 - images])
@pytest.mark.parametrize("target", ["label", "predicted"])
def test_attack_numbers_equal_single_image_explanations(attack, target):
    watch, model = watched(attack, target=target)
    numbers = watch.take_snapshot(model, "start").numbers
    probe = watch.probe
    clean = explain(model, probe, layers=["features", "features.2"], target=target)
    twins = attack_probe(model, probe, attack)
    assert (twins.images - probe.images).abs().max() > 0.01
    moved = explain(model, twins, layers=["features", "features.2"], target=clean.classes)  # the class stays
    held = clean.logits.argmax(1) == moved.logits.argmax(1)
    assert 0 < held.sum() < len(held)
    assert numbers["adv_accuracy"] == (moved.logits.argmax(1) == probe.labels).float().mean()
    for layer, suffix in (("features", ""), ("features.2", "/features.2")):
        for name, measure in NUMBERS.items():
            values = torch.tensor(
                [
                    expected(measure, a.numpy(), b.numpy())
                    for a, b in zip(clean.maps[layer], moved.maps[layer], strict=True)
                ]
            )
            for found, chosen in (
                (numbers[f"{name}{suffix}"], values),
                (numbers[f"{name}_held{suffix}"], values[held]),
            ):
                mean = float(chosen.nanmean())
                worst = FIRST[name]
                assert float(found) == pytest.approx(worst if math.isnan(mean) else mean, abs=1e-5)
        share = sum(flaw is not None for flaw in moved.degenerate[layer]) / len(probe)
        assert float(numbers[f"adv_degenerate{suffix}"]) == pytest.approx(share)


def test_attack_numbers_distinguish_weak_and_strong_attacks():
    still, _ = watched(FGSM(0.0))
    model = undecided(bars())
    numbers = watched(FGSM(0.0), model=model)[0].take_snapshot(model, "start").numbers
    assert numbers["adv_similarity"] == numbers["adv_similarity_held"] == numbers["adv_topk"] == 1
    assert numbers["adv_accuracy"] == numbers["accuracy"]
    strong = watched(PGD(0.2, 10), model=model)[0].take_snapshot(model, "start").numbers
    assert strong["adv_similarity"] < 0.9
    assert strong["adv_accuracy"] < numbers["accuracy"]
    assert still.attack == FGSM(0.0)


@pytest.mark.parametrize("images", [7, 2, 1])
def test_chunks_and_processes_attack_like_one_batch(images):
    model, probe = perturbed(TinyResNet()).eval(), Probe(torch.rand(7, 3, 16, 16), labels=torch.arange(7) % 5)
    plan, target = prepare(model, probe, layers="layer2", target=TARGETS["label"]), TARGETS["label"]
    whole = ShardedExplainer(plan).explain_attacked(model, probe, target, PGD(0.1, 3))
    assert torch.equal(whole.images, attack_probe(model, probe, PGD(0.1, 3)).images)
    LimitedMemory(model, images)
    parts = ShardedExplainer(plan).explain_attacked(model, probe, target, PGD(0.1, 3))
    assert ((parts.images - whole.images).abs() < 1e-5).float().mean() > 0.99
    assert_close(parts.explanation.evidence["layer2"], whole.explanation.evidence["layer2"], 1e-2)
    assert torch.equal(parts.explanation.classes, probe.labels)

    class Both(SingleDeviceStrategy):
        def all_gather(self, tensor, *_args, **_kwargs):
            return made[id(tensor)]

    rows = [Ranks(Both("cpu"), index, 2).get_shard(7) for index in (0, 1)]
    mine = [ShardedExplainer(plan).explain_attacked(model, probe[r], target, PGD(0.1, 3)) for r in rows]
    made = {}
    first = mine[0].map(lambda tensor: tensor)
    tensors = [first.images, *first.explanation.evidence.values(), first.explanation.logits, first.explanation.classes]
    others = [
        mine[1].images,
        *mine[1].explanation.evidence.values(),
        mine[1].explanation.logits,
        mine[1].explanation.classes,
    ]
    for one, other in zip(tensors, others, strict=True):
        made[id(one)] = torch.stack([one, other])
    for name in ("map_status", "explained", "scores"):
        both = [getattr(part.explanation, name).values() for part in (first, mine[1])]
        made |= {id(one): torch.stack([one, other]) for one, other in zip(*both, strict=True)}
    joined = Ranks(Both("cpu"), 0, 2).gather_shards(first, 7)
    assert ((joined.images - whole.images).abs() < 1e-5).float().mean() > 0.99


def test_attack_without_labels_uses_predictions(tmp_path):
    seen = []

    def attack(model, images, labels):
        seen.append(labels.clone())
        return FGSM(0.1)(model, images, labels)

    watch, model = watched(attack, probe=bars(labels=False), target="predicted")
    look = watch.take_snapshot(model, "start")
    assert torch.equal(seen[0], look.explanation.logits.argmax(1))
    assert "adv_accuracy" not in look.numbers
    assert torch.equal(look.attacked.explanation.classes, look.explanation.classes)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_attack_on_signals_and_volumes_is_measured(dimensions):
    images, labels, _ = bodies(6, dimensions)
    low, high = images.aminmax()
    probe = Probe((images - low) / (high - low), labels=labels)
    model = BODIES[dimensions]()
    plan = prepare(model, probe, target=TARGETS["label"])
    look = ProbeMonitor(
        probe, ShardedExplainer(plan), TARGETS["label"], DisplayConfig(), attack=PGD(0.05, 2)
    ).take_snapshot(model, "start")
    assert look.numbers["adv_similarity"].isfinite()
    assert look.figures
