"""Portions of a probe give what the whole gives, however memory and processes cut it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given as for_all, strategies as st
from pytorch_lightning.strategies import SingleDeviceStrategy

from lightning_gradcam import GradCAMCallback, NotExplainableError, Probe
from lightning_gradcam.explainer.chunking import Chunks
from lightning_gradcam.explainer.explanation import Explanation
from lightning_gradcam.explainer.pipeline import prepare
from lightning_gradcam.monitor.distributed import Ranks
from lightning_gradcam.monitor.sharding import ShardedExplainer
from lightning_gradcam.targets import TARGETS, class_target, freeze_classes
from tests.helpers.lit import Lit, fit, weights
from tests.helpers.models import TinyResNet, assert_close, perturbed
from tests.helpers.recorder import flat

CLASSES = torch.tensor([2, 0, 1, 1, 0, 2, 1])


class Full:
    """Memory for so many images and no more."""

    def __init__(self, model, images):
        self.model, self.images, self.passes = model, images, []
        self.hook = model.register_forward_pre_hook(self.check)

    def check(self, _module, args):
        self.passes.append(len(args[0]))
        if len(args[0]) > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def case(targets):
    model = perturbed(TinyResNet()).eval()
    probe = Probe(torch.randn(7, 3, 16, 16), labels=CLASSES)
    return model, probe, prepare(model, probe, layers="layer2", target=targets[0])


TARGET_SETS = {
    "label": [TARGETS["label"]],
    "predicted, with held classes": [TARGETS["predicted"], freeze_classes(CLASSES), freeze_classes(CLASSES.flip(0))],
    "given": [class_target(CLASSES)],
    "one class": [class_target(1)],
    "callable": [lambda output, probe: output[:, 0] * (probe.labels + 1)],
}


@pytest.mark.parametrize("name", TARGET_SETS)
def test_where_memory_runs_out_half_as_many_are_explained_at_once(name):
    targets = TARGET_SETS[name]
    model, probe, plan = case(targets)
    whole = plan(model, probe, targets)
    memory = Full(model, 2)
    portions = ShardedExplainer(plan)
    for _ in range(2):
        for part, one in zip(portions(model, probe, targets), whole, strict=True):
            assert_close(part.evidence["layer2"], one.evidence["layer2"], 1e-5)
            assert_close(part.logits, one.logits, 1e-5)
            assert one.classes is None or torch.equal(part.classes, one.classes)
            assert flat(part.map_status) == flat(one.map_status)
    assert memory.passes == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1]  # found once, and remembered


@pytest.mark.parametrize(("at_once", "passes"), [(None, [7]), (3, [3, 3, 1]), (7, [7]), (99, [7])])
def test_no_more_run_at_once_than_asked(at_once, passes):
    targets = [TARGETS["label"]]
    model, probe, plan = case(targets)
    memory = Full(model, 99)
    ShardedExplainer(plan, chunks=Chunks(at_once))(model, probe, targets)
    assert memory.passes == passes


def test_memory_for_no_image_is_said():
    model, probe, plan = case([TARGETS["label"]])
    Full(model, 0)
    with pytest.raises(NotExplainableError, match=r"too small to explain a single image \(CUDA out of memory"):
        ShardedExplainer(plan)(model, probe, [TARGETS["label"]])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_of_the_cpu_runs_out_too(error):
    model, probe, plan = case([TARGETS["label"]])

    def refuse(_module, args):
        if len(args[0]) > 3:
            raise error

    model.register_forward_pre_hook(refuse)
    portions = ShardedExplainer(plan)
    portions(model, probe, [TARGETS["label"]])
    assert portions.chunks.size == 2


class Tight(Lit):
    """Memory runs out where more than ``images`` are evaluated outside of the loader's batches of 12."""

    images = 5

    def forward(self, images):
        if not self.training and self.images < len(images) != 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


@pytest.mark.parametrize(
    ("images", "message", "looks"), [(5, "snapshots explain 4 images at once", 3), (0, "Memory is too small", 0)]
)
def test_a_run_whose_memory_runs_out_ends_with_one_warning_and_the_same_weights(
    tmp_path, monkeypatch, images, message, looks
):
    monkeypatch.setattr(Tight, "images", images)
    monkeypatch.setattr("lightning_gradcam.layers.trace_model.TRACED_IMAGES", 12)  # the trace finds room
    callback = GradCAMCallback()
    with pytest.warns(UserWarning, match=message) as caught:
        trainer = fit(tmp_path, [callback], make=Tight)
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
    assert callback.monitor.tracker.snapshots == looks
    assert weights(trainer) == weights(fit(tmp_path, make=Tight))


class World:
    """The other processes' tensors, handed over as Lightning's strategies do."""

    def __init__(self, everyone):
        self.turns = [torch.stack(list(tensors)) for tensors in zip(*everyone, strict=True)]

    def all_gather(self, tensor):
        return self.turns.pop(0)


@for_all(images=st.integers(1, 40), processes=st.integers(1, 9))
def test_shares_are_of_one_size_and_joined_they_are_the_whole(images, processes):
    rows = torch.arange(images)
    whole = Explanation({"a": rows[:, None] * 1.0}, rows[:, None] * 2.0, rows, (1,), map_status={"a": rows.byte()})
    shares = [Ranks(None, i, processes).get_shard(images) for i in range(processes)]
    assert len({share.stop - share.start for share in shares}) == 1
    everyone = [whole.map(lambda tensor, at=share: tensor[at]) for share in shares]
    tensors = [[e.evidence["a"], e.logits, e.classes, e.map_status["a"]] for e in everyone]
    for i, mine in enumerate(everyone):
        joined = Ranks(World(tensors), i, processes).gather_shards(mine, images)
        for key in ("evidence", "map_status"):
            assert torch.equal(getattr(joined, key)["a"], getattr(whole, key)["a"])
        assert torch.equal(joined.logits, whole.logits)
        assert torch.equal(joined.classes, whole.classes)


def test_a_strategy_that_is_not_served_is_named_before_training(tmp_path):
    class DeepSpeedStrategy(SingleDeviceStrategy):
        pass

    with pytest.warns(UserWarning, match="does not support `DeepSpeedStrategy`.*DDP, FSDP and ModelParallel") as caught:
        trainer = fit(tmp_path, [GradCAMCallback()], strategy=DeepSpeedStrategy("cpu"))
    assert len([w for w in caught if "GradCAM" in str(w.message)]) == 1
    assert weights(trainer) == weights(fit(tmp_path))
